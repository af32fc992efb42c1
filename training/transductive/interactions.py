"""Who engaged with what, as one matrix of ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from model_store.csr import EdgeType
from training.graph import Graph, engagements
from training.link_matrix import LinkMatrix


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """All engagements of a graph: users of all types in one column, entities of all types in another.

    An engagement counts once, however often, however heavy, and by whichever relation.
    """

    matrix: Any
    """CSR ``[users, entities]``, float32 ones, neighbours ascending."""
    counts: dict[str, int]
    """Nodes of each type: the types of users in order, then those of entities."""
    user_types: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph) -> Interactions:
        """Read the engagement relations of a graph."""
        triples = [relation.triple for relation in engagements(graph.schema)]
        user_types = tuple(dict.fromkeys(triple.source for triple in triples))
        entity_types = tuple(dict.fromkeys(triple.target for triple in triples))
        counts = {name: graph.num_nodes(name) for name in (*user_types, *entity_types)}
        first = {**_offsets(user_types, counts), **_offsets(entity_types, counts)}
        if len(triples) == 1:
            # The usual case: the edges lie as they are wanted.
            links = LinkMatrix.of([graph.csr(EdgeType(triples[0]))], [0.0], counts[triples[0].target], weighted=False)
            ones_of = (np.ones(links.nnz, np.float32), links.indices, links.indptr)
            return cls(matrix=sp.csr_matrix(ones_of, shape=links.shape), counts=counts, user_types=user_types)
        rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for triple in triples:
            csr = graph.csr(EdgeType(triple))
            rows.append(np.repeat(np.arange(csr.num_rows, dtype=np.int64), np.diff(csr.indptr)) + first[triple.source])
            columns.append(np.asarray(csr.indices, np.int64) + first[triple.target])
        shape = (sum(counts[name] for name in user_types), sum(counts[name] for name in entity_types))
        return cls(
            matrix=ones(np.concatenate(rows), np.concatenate(columns), shape), counts=counts, user_types=user_types
        )

    @property
    def users(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def entities(self) -> int:
        return int(self.matrix.shape[1])

    @cached_property
    def user_degrees(self) -> NDArray[np.float32]:
        return np.asarray(np.diff(self.matrix.indptr), np.float32)

    @cached_property
    def entity_degrees(self) -> NDArray[np.float32]:
        return np.asarray(np.bincount(self.matrix.indices, minlength=self.entities), np.float32)

    def links(self, user_power: float, entity_power: float) -> LinkMatrix:
        """``scaled`` without a copy."""
        return LinkMatrix(
            indptr=self.matrix.indptr.astype(np.int64),
            indices=self.matrix.indices.astype(np.int32, copy=False),
            weight=None,
            columns=self.entities,
            row_scale=(np.maximum(self.user_degrees, 1.0) ** -user_power).astype(np.float64),
            column_scale=(np.maximum(self.entity_degrees, 1.0) ** -entity_power).astype(np.float64),
        )

    def scaled(self, user_power: float, entity_power: float) -> Any:
        """``D_u^-user_power R D_e^-entity_power`` as CSR; nodes without engagements have rows and columns of zeros."""
        rows = sp.diags(np.maximum(self.user_degrees, 1.0) ** -user_power)
        columns = sp.diags(np.maximum(self.entity_degrees, 1.0) ** -entity_power)
        return (rows @ self.matrix @ columns).tocsr().astype(np.float32)

    def rows_of(self, node_type: str) -> slice:
        """Where a type's nodes stand in its column."""
        types = (
            self.user_types if node_type in self.user_types else [n for n in self.counts if n not in self.user_types]
        )
        first = _offsets(tuple(types), self.counts)[node_type]
        return slice(first, first + self.counts[node_type])


def ones(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> Any:
    """CSR with a float32 one at each pair, repeated pairs once."""
    matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _offsets(types: tuple[str, ...], counts: dict[str, int]) -> dict[str, int]:
    found, total = {}, 0
    for name in types:
        found[name] = total
        total += counts[name]
    return found
