"""Which engagements training may see: the newest of each user are kept for evaluation."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import Relation
from model_store.csr import Csr, EdgeType
from training.edge_kernels import row_spans
from training.export.snapshot import NO_TIME
from training.graph import Graph, Snapshot, engagements, kept_edges, transposed

_LEAST_EVENTS = 3
"""A user with fewer engagements keeps them all for training."""
_EDGES_AT_ONCE = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Split:
    """The snapshot without the newest engagements, and those."""

    graph: Graph
    """Without the held-out engagements and without derived co-engagement, which is counted over all of them."""
    held_out: dict[EdgeType, Csr]
    """Per engagement relation (seen from the users) the newest engagements."""
    newest: dict[EdgeType, NDArray[np.bool_]]
    """Which edges of the snapshot the graph is without."""


def split_newest(snapshot: Snapshot, share: float) -> Split:
    """Hold out the newest ``share`` of each user's engagements, at least one where the user has three or more.

    A pair whose entity the user also engaged with earlier is taken out of the held-out part, not out of the graph.
    Earlier means kept by any engagement relation between the same types.
    Without times the choice is arbitrary but the same for the same snapshot (by a hash of the rows).
    """
    newest_of: dict[EdgeType, NDArray[np.bool_]] = {}
    again_of: dict[EdgeType, NDArray[np.bool_]] = {}
    groups: dict[tuple[str, str], list[EdgeType]] = defaultdict(list)
    for relation in engagements(snapshot.schema):
        edge_type = EdgeType(relation.triple)
        groups[edge_type.node_type, edge_type.neighbour_type].append(edge_type)
        for found in (newest_of, again_of):
            found[edge_type] = np.zeros(snapshot.csr(edge_type).num_edges, bool)
    for (_, target), edge_types in groups.items():
        whole = {each: snapshot.csr(each) for each in edge_types}
        columns = snapshot.num_nodes(target)
        # Some users at a time: what is held is the two masks, an edge a byte.
        for first, last in row_spans([csr.indptr for csr in whole.values()], _EDGES_AT_ONCE):
            pairs: dict[EdgeType, NDArray[np.int64]] = {}
            for each, csr in whole.items():
                part, span = csr.part(first, last), _edges(csr, first, last)
                degree = np.diff(part.indptr)
                rows = np.repeat(np.arange(last - first), degree)
                wanted = (
                    np.where(degree >= _LEAST_EVENTS, np.maximum(np.floor(degree * share), 1), 0)
                    if share > 0
                    else degree * 0
                )
                newest_of[each][span] = _place_from_newest(part, rows, _salt(each), first=first) < wanted[rows]
                pairs[each] = rows * columns + part.indices
            kept = np.concatenate(
                [pairs[each][~newest_of[each][_edges(csr, first, last)]] for each, csr in whole.items()]
            )
            # A pair that another relation keeps would be asked for while it carries messages.
            for each, csr in whole.items():
                again_of[each][_edges(csr, first, last)] = np.isin(pairs[each], kept)
    replaced: dict[EdgeType, Csr] = {}
    held_out: dict[EdgeType, Csr] = {}
    for each, newest in newest_of.items():
        csr = snapshot.csr(each)
        replaced[each] = kept_edges(csr, ~newest)
        replaced[EdgeType(each.triple, True)] = transposed(replaced[each], snapshot.num_nodes(each.neighbour_type))
        held_out[each] = kept_edges(csr, newest & ~again_of[each])
    return Split(graph=Graph(snapshot, replaced=replaced, derived=False), held_out=held_out, newest=newest_of)


def _edges(csr: Csr, first: int, last: int) -> slice:
    return slice(int(csr.indptr[first]), int(csr.indptr[last]))


def first_held_out(split: Split, relation: Relation) -> NDArray[np.int64]:
    """The entity that each user engaged with next after what was kept ``[users]``; -1 where no time says so.

    Of several at the same time the one that the split would have kept first.
    """
    edge_type = EdgeType(relation.triple)
    csr = split.held_out[edge_type]
    found = np.full(csr.num_rows, -1, np.int64)
    if csr.time is None:
        return found
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    place = _place_from_newest(csr, rows, _salt(edge_type))
    oldest = (place == np.diff(csr.indptr)[rows] - 1) & (np.asarray(csr.time) != NO_TIME)
    found[rows[oldest]] = np.asarray(csr.indices)[oldest]
    return found


def _salt(edge_type: EdgeType) -> str:
    return f"holdout {edge_type.triple.key}"


def _place_from_newest(csr: Csr, rows: NDArray[np.int64], salt: str, *, first: int = 0) -> NDArray[np.int64]:
    """How many of its row's edges are newer than each; ``first``: the node that the first row is of."""
    seed = int.from_bytes(salt.encode()[-7:], "little")
    tie = _mixed(rows + first, np.asarray(csr.indices), seed)
    age = np.zeros(csr.num_edges, np.int64) if csr.time is None else ~np.asarray(csr.time)
    order = np.lexsort((tie, age, rows))
    place = np.empty(csr.num_edges, np.int64)
    place[order] = np.arange(csr.num_edges) - np.asarray(csr.indptr)[rows[order]]
    return place


def _mixed(rows: NDArray[np.int64], columns: NDArray[np.int32], seed: int) -> NDArray[np.uint64]:
    """A number that looks random for each pair (SplitMix64)."""
    state = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + columns.astype(np.uint64)
    state += np.uint64((seed * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return state ^ (state >> np.uint64(31))
