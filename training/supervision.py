"""Which engagements a step asks for while the others carry messages: they take turns (space ``user``).

The parts of a graph are views: beside its edges there is one number an edge, the part it falls into. Adjacencies
without a part are made when they are asked for and not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from training.edge_kernels import pair_parts, pairs_by_part, rows_joined
from training.graph import Graph, engagements, kept_edges

_FACTOR = 0xBF58476D1CE4E5B9
_MASK = 0xFFFFFFFFFFFFFFFF
_EDGES_AT_ONCE = 1 << 22


class Turns:
    """The parts that the engagements of a graph fall into, by a hash of user and entity.

    All engagements of one user with one entity fall into one part, so that no pair serves as both.
    """

    def __init__(self, graph: Graph, parts: int, seed: int) -> None:
        self.graph, self.parts = graph, parts
        self._added = np.uint64(seed * _FACTOR & _MASK)
        self._dtype = np.min_scalar_type(parts - 1)
        triples = [relation.triple for relation in engagements(graph.schema)]
        self.edge_types = tuple(EdgeType(triple, backward) for triple in triples for backward in (False, True))
        self.numbers: Mapping[EdgeType, NDArray[np.unsignedinteger[Any]]] = {
            each: self.of(each, graph.csr(each), np.arange(graph.num_nodes(each.node_type))) for each in self.edge_types
        }
        """Per engagement edge type the part of every edge."""

    def of(self, edge_type: EdgeType, csr: Csr, nodes: NDArray[np.int64]) -> NDArray[np.unsignedinteger[Any]]:
        """The part of every edge of some ``nodes``, whose neighbours are the rows of ``csr``."""
        out = np.empty(csr.num_edges, self._dtype)
        pair_parts(
            np.asarray(nodes, np.int64),
            np.asarray(csr.indptr),
            np.asarray(csr.indices),
            self._added,
            np.uint64(self.parts),
            edge_type.reversed,
            out,
        )
        return out


class PartGraph(Graph):
    """A graph without the engagements of one part, and without derived co-engagement."""

    def __init__(self, turns: Turns, part: int, together: dict[EdgeType, Csr]) -> None:
        """``together``: what the graphs of all parts have in common, see ``shared``."""
        super().__init__(turns.graph.snapshot, derived=False)
        self.whole, self.turns, self.part = turns.graph, turns, part
        self._together = together

    def differs(self, edge_type: EdgeType) -> bool:
        """See ``Graph``."""
        return edge_type in self.turns.numbers or self.whole.differs(edge_type)

    def csr(self, edge_type: EdgeType) -> Csr:
        """The neighbours over one edge type; of engagements a copy, made anew with each call."""
        csr = self.whole.csr(edge_type)
        if edge_type not in self.turns.numbers:
            return csr
        return kept_edges(csr, self.turns.numbers[edge_type] != self.part)

    def shared(self, edge_type: EdgeType, make: Callable[[], Csr]) -> Csr:
        """See ``Graph``."""
        if edge_type in self.turns.numbers:
            return make()
        if edge_type not in self._together:
            self._together[edge_type] = make()
        return self._together[edge_type]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One turn of supervision: what is asked for, and the graph without it."""

    message: PartGraph
    users: NDArray[np.int32]
    entities: NDArray[np.int32]
    """Ends of the supervision pairs, as numbers in the column of all nodes."""


def supervision_parts(graph: Graph, parts: int, seed: int) -> list[Part]:
    """Split the engagements into ``parts``; each is asked for while the others carry the messages."""
    turns = Turns(graph, parts, seed)
    forward = [each for each in turns.edge_types if not each.reversed]
    count = sum(
        (np.bincount(part, minlength=parts) for each in forward for part in _runs(turns.numbers[each])),
        np.zeros(parts, np.int64),
    )
    bounds = np.concatenate([[0], np.cumsum(count)])
    users, entities = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.int32)
    place = bounds[:-1].copy()
    for each in forward:
        csr = graph.csr(each)
        pairs_by_part(
            np.asarray(csr.indptr),
            np.asarray(csr.indices),
            turns.numbers[each],
            graph.offsets[each.node_type],
            graph.offsets[each.neighbour_type],
            place,
            users,
            entities,
        )
    together: dict[EdgeType, Csr] = {}
    return [
        Part(
            message=PartGraph(turns, part, together),
            users=users[bounds[part] : bounds[part + 1]],
            entities=entities[bounds[part] : bounds[part + 1]],
        )
        for part in range(parts)
    ]


def known_pairs(graph: Graph) -> sp.csr_matrix:
    """Who engaged with what: booleans ``[all nodes, all nodes]``; a pair stands there as often as it engaged."""
    total = graph.total_nodes
    forward = [EdgeType(relation.triple) for relation in engagements(graph.schema)]
    degree = np.zeros(total, np.int64)
    for each in forward:
        first = graph.offsets[each.node_type]
        degree[first : first + graph.num_nodes(each.node_type)] += np.diff(graph.csr(each).indptr)
    edges = int(degree.sum())
    index = np.int32 if max(edges, total) <= np.iinfo(np.int32).max else np.int64
    indptr = np.concatenate([[0], np.cumsum(degree)]).astype(index)
    indices, place = np.empty(edges, index), indptr[:-1].copy()
    for each in forward:
        csr, first = graph.csr(each), graph.offsets[each.node_type]
        rows = place[first : first + csr.num_rows]
        rows_joined(np.asarray(csr.indptr), np.asarray(csr.indices), graph.offsets[each.neighbour_type], rows, indices)
    return sp.csr_matrix((np.ones(edges, bool), indices, indptr), shape=(total, total))


def counted(nodes: NDArray[np.int32], total: int) -> NDArray[np.int64]:
    """How often each of the ``total`` nodes is there."""
    return np.asarray(sum((np.bincount(each, minlength=total) for each in _runs(nodes)), np.zeros(total, np.int64)))


def _runs(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Views of some elements at a time."""
    return [values[first : first + _EDGES_AT_ONCE] for first in range(0, len(values), _EDGES_AT_ONCE)]
