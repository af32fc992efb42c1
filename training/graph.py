"""The graph that training reads: a snapshot, or a snapshot less some engagements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.schema import GraphSchema, Relation, RelationRole
from model_store.csr import Csr, EdgeType
from training.edge_kernels import NO_TIMES, NO_WEIGHT, kept_indptr, turned


class Snapshot(Protocol):
    """What training reads of ``training.export.Snapshot``."""

    @property
    def schema(self) -> GraphSchema: ...

    @property
    def content_hash(self) -> str: ...

    @property
    def edge_types(self) -> tuple[EdgeType, ...]: ...

    def num_nodes(self, node_type: str) -> int: ...

    def ids(self, node_type: str) -> pa.StringArray: ...

    def nodes(self, node_type: str) -> pa.Table: ...

    def csr(self, edge_type: EdgeType) -> Csr: ...


class Graph:
    """Nodes and neighbours by edge type; ``replaced`` edge types stand in for the snapshot's."""

    def __init__(
        self, snapshot: Snapshot, *, replaced: Mapping[EdgeType, Csr] | None = None, derived: bool = True
    ) -> None:
        """``derived`` false: derived co-engagement, which is made of every engagement, is left out."""
        self.snapshot = snapshot
        self.schema = snapshot.schema
        self._replaced = dict(replaced or {})
        self.edge_types = tuple(
            each for each in snapshot.edge_types if derived or self.schema.relation(each.triple).derive is None
        )

    @cached_property
    def content_hash(self) -> str:
        """The snapshot's, with what differs from it: hexadecimal SHA-256."""
        digest = hashlib.sha256(self.snapshot.content_hash.encode())
        for edge_type in self.edge_types:
            digest.update(edge_type.key.encode())
            if self.differs(edge_type):
                csr = self.csr(edge_type)
                for array in (csr.indptr, csr.indices, csr.weight, csr.time):
                    digest.update(b"" if array is None else np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def differs(self, edge_type: EdgeType) -> bool:
        """Whether the edges are other ones than the snapshot's."""
        return edge_type in self._replaced

    def shared(self, edge_type: EdgeType, make: Callable[[], Csr]) -> Csr:
        """What ``make`` gives of the neighbours over one edge type; graphs that have these in common make it once."""
        return make()

    def num_nodes(self, node_type: str) -> int:
        return self.snapshot.num_nodes(node_type)

    def properties(self, node_type: str) -> pa.Table:
        """The declared properties of every node, in the order of the nodes."""
        return self.snapshot.nodes(node_type)

    def csr(self, edge_type: EdgeType) -> Csr:
        """The neighbours over one edge type."""
        return self._replaced[edge_type] if edge_type in self._replaced else self.snapshot.csr(edge_type)

    def links(self, node_type: str) -> dict[EdgeType, Csr]:
        """The neighbours of one node type over each of its edge types."""
        return {each: self.csr(each) for each in self.edge_types if each.node_type == node_type}

    @cached_property
    def offsets(self) -> dict[str, int]:
        """First row of each node type where all nodes stand in one column, in declared order."""
        offsets, total = {}, 0
        for node_type in self.schema.node_types:
            offsets[node_type.name] = total
            total += self.num_nodes(node_type.name)
        return offsets

    @property
    def total_nodes(self) -> int:
        return sum(self.num_nodes(node_type.name) for node_type in self.schema.node_types)


def engagements(schema: GraphSchema) -> tuple[Relation, ...]:
    """The engagement relations."""
    return schema.relations_of_role(RelationRole.ENGAGEMENT)


def kept_edges(csr: Csr, keep: NDArray[np.bool_]) -> Csr:
    """The adjacency with only the edges where ``keep`` is true, rows as before."""
    return Csr(
        indptr=kept_indptr(np.asarray(csr.indptr), keep),
        indices=np.asarray(csr.indices)[keep],
        weight=None if csr.weight is None else np.asarray(csr.weight)[keep],
        time=None if csr.time is None else np.asarray(csr.time)[keep],
    )


def transposed(csr: Csr, columns: int) -> Csr:
    """The same edges seen from the other end, neighbours ascending."""
    indptr, indices, weight, time = turned(
        np.asarray(csr.indptr),
        np.asarray(csr.indices),
        NO_WEIGHT if csr.weight is None else np.asarray(csr.weight),
        NO_TIMES if csr.time is None else np.asarray(csr.time),
        columns,
    )
    return Csr(
        indptr=indptr,
        indices=indices,
        weight=None if csr.weight is None else weight,
        time=None if csr.time is None else time,
    )
