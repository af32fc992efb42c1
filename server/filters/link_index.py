"""Which nodes are linked to a node: the bundle's neighbour lists, read from either end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from graph_store.schema import RelationRole
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from server.index.selection import bitmap_of
from server.index.vector_index import Rows

_MOST_TURNED = 20_000_000
"""Links of one edge type up to which its lists are turned around and kept: 4 bytes each. More are read through."""


class LinkIndex:
    """Nodes by who they are linked to.

    A bundle holds the users' engagements whole, and of all other lists the first ``publish.max_neighbours``: a link is
    known where either end lists it.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._turned: dict[EdgeType, Csr | None] = {}

    def prepare(self, node_type: str) -> None:
        """Turn the lists of a type around that are likely asked: those of its semantic relations."""
        for edge_type in self._bundle.edge_types:
            if edge_type.node_type == node_type and self._role(edge_type) == RelationRole.SEMANTIC.value:
                self._turn(edge_type)

    def make_ready(self, edge_type: EdgeType) -> None:
        """Make what ``linked`` reads and keeps, where it is not made yet."""
        if self._reads_turned(edge_type):
            self._turn(edge_type)

    def linked(self, edge_type: EdgeType, neighbours: Rows) -> BitMap:
        """Rows of ``edge_type.node_type`` with a link to one of these neighbours, seen either way."""
        opposite = EdgeType(edge_type.triple, not edge_type.reversed)
        found: list[NDArray[np.integer]] = []
        if opposite in self._bundle.edge_types:
            lists = self._bundle.neighbours(opposite)
            found += [np.asarray(lists.indices[lists.row(row)]) for row in neighbours.tolist()]
        if self._reads_turned(edge_type):
            turned = self._turn(edge_type)
            if turned is not None:
                found += [turned.indices[turned.row(row)] for row in neighbours.tolist()]
            else:
                csr = self._bundle.neighbours(edge_type)
                wanted = np.zeros(self._bundle.node_types[edge_type.neighbour_type].count, np.bool_)
                wanted[neighbours] = True
                places = np.flatnonzero(wanted[csr.indices])
                found.append(np.searchsorted(csr.indptr, places, side="right") - 1)
        return bitmap_of(np.unique(np.concatenate(found))) if found else BitMap()

    def _role(self, edge_type: EdgeType) -> str:
        role: str = self._bundle.relations[edge_type.triple].role
        return role

    def _reads_turned(self, edge_type: EdgeType) -> bool:
        """Whether the lists of this end may hold links that those of the other end leave out."""
        opposite = EdgeType(edge_type.triple, not edge_type.reversed)
        return edge_type in self._bundle.edge_types and not self._is_whole(opposite)

    def _is_whole(self, edge_type: EdgeType) -> bool:
        """Whether the lists of an edge type hold every link."""
        return (
            not edge_type.reversed
            and self._role(edge_type) == RelationRole.ENGAGEMENT.value
            and edge_type in self._bundle.edge_types
        )

    def _turn(self, edge_type: EdgeType) -> Csr | None:
        """Rows by neighbour; None where the links are too many."""
        if edge_type not in self._turned:
            csr = self._bundle.neighbours(edge_type)
            if csr.num_edges > _MOST_TURNED:
                self._turned[edge_type] = None
            else:
                count = self._bundle.node_types[edge_type.neighbour_type].count
                rows = np.repeat(np.arange(csr.num_rows, dtype=np.int32), np.diff(csr.indptr))
                order = np.argsort(csr.indices, kind="stable")
                indptr = np.concatenate([[0], np.cumsum(np.bincount(csr.indices, minlength=count))])
                self._turned[edge_type] = Csr(indptr=indptr.astype(np.int64), indices=rows[order])
        return self._turned[edge_type]
