"""Neighbour lists of some nodes as the store has them now, in the order that a bundle's lists have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph_store.schema import Relation
from model_store.csr import Csr

Rows = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Lists:
    """Lists of N nodes; of one node ``indptr[n] : indptr[n + 1]``."""

    indptr: Rows
    neighbours: pa.Array
    """Ids."""
    weight: NDArray[np.float32]

    @classmethod
    def of(
        cls, ids: pa.Array, relation: Relation, own: pa.ChunkedArray, other: pa.ChunkedArray, more: pa.Table
    ) -> Lists:
        """Of the nodes ``ids``: edges from ``own`` to ``other``, with the relation's weight and time in ``more``.

        The newest come first (those without a time last), then the heaviest, then by id.
        """
        owner = np.asarray(pc.index_in(own, value_set=ids).to_numpy(), np.int64)
        weight = np.ones(len(owner), np.float32)
        if relation.weight is not None:
            given = pc.fill_null(more.column(relation.weight).cast(pa.float64()), 1.0)
            # As float32, which is what the lists hold and what the encoder reads.
            weight = given.to_numpy().astype(np.float32)
        names = other.combine_chunks().dictionary_encode()
        rank = np.empty(len(names.dictionary), np.int64)
        # Arrow sorts strings by their bytes, as ids are.
        rank[pc.array_sort_indices(names.dictionary).to_numpy()] = np.arange(len(rank))
        by_id = rank[names.indices.to_numpy()] if len(names) else np.empty(0, np.int64)
        if relation.time is None and relation.weight is None:
            order = np.argsort(owner * max(len(rank), 1) + by_id, kind="stable")
        else:
            order = np.lexsort((by_id, -weight, _age(relation, more), owner))
        return cls(
            indptr=np.searchsorted(owner[order], np.arange(len(ids) + 1)).astype(np.int64),
            neighbours=other.combine_chunks().take(pa.array(order)),
            weight=weight[order],
        )

    @property
    def degree(self) -> Rows:
        return np.diff(self.indptr)

    def take(self, nodes: Rows, most: int | None = None) -> Lists:
        """Of some of the nodes, in their order, the first ``most`` of each."""
        degree = self.degree[nodes] if most is None else np.minimum(self.degree[nodes], most)
        indptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
        place = np.repeat(self.indptr[:-1][nodes] - indptr[:-1], degree) + np.arange(indptr[-1])
        return Lists(indptr=indptr, neighbours=self.neighbours.take(pa.array(place)), weight=self.weight[place])

    def known(self, published: pa.Array) -> Csr:
        """By the published rows of the neighbours; those that are not published are left out."""
        at = pc.fill_null(pc.index_in(self.neighbours, value_set=published), -1).to_numpy().astype(np.int64)
        owner = np.repeat(np.arange(len(self.indptr) - 1), self.degree)[at >= 0]
        return Csr(
            indptr=np.searchsorted(owner, np.arange(len(self.indptr))).astype(np.int64),
            indices=at[at >= 0].astype(np.int32),
            weight=self.weight[at >= 0],
        )

    def ids_column(self) -> pa.Array:
        """A list of ids a node."""
        return pa.ListArray.from_arrays(pa.array(self.indptr, pa.int32()), self.neighbours)

    def weights_column(self) -> pa.Array:
        """A list of float32 a node."""
        return pa.ListArray.from_arrays(pa.array(self.indptr, pa.int32()), pa.array(self.weight))


def _age(relation: Relation, more: pa.Table) -> Rows:
    if relation.time is None:
        return np.zeros(more.num_rows, np.int64)
    column = more.column(relation.time)
    whole = column.cast(pa.int32()) if pa.types.is_date(column.type) else column
    numbers: Rows = pc.fill_null(whole.cast(pa.int64()), -_NEVER).to_numpy().astype(np.int64)
    return -numbers
