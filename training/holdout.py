"""Which engagements training may see: the newest of each user are kept for evaluation, the rest take turns."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import Relation
from model_store.csr import Csr, EdgeType
from training.export.snapshot import NO_TIME
from training.graph import Graph, Snapshot, engagements, kept_edges, transposed

_LEAST_EVENTS = 3
"""A user with fewer engagements keeps them all for training."""


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
    replaced: dict[EdgeType, Csr] = {}
    held_out: dict[EdgeType, Csr] = {}
    newest_of: dict[EdgeType, NDArray[np.bool_]] = {}
    kept_pairs: dict[tuple[str, str], list[NDArray[np.int64]]] = defaultdict(list)
    for relation in engagements(snapshot.schema):
        edge_type = EdgeType(relation.triple)
        csr = snapshot.csr(edge_type)
        degree = np.diff(csr.indptr)
        rows = np.repeat(np.arange(csr.num_rows), degree)
        wanted = (
            np.where(degree >= _LEAST_EVENTS, np.maximum(np.floor(degree * share), 1), 0) if share > 0 else degree * 0
        )
        newest = _place_from_newest(csr, rows, _salt(edge_type)) < wanted[rows]
        columns = snapshot.num_nodes(relation.triple.target)
        newest_of[edge_type] = newest
        kept_pairs[relation.triple.source, relation.triple.target].append((rows * columns + csr.indices)[~newest])
        replaced[edge_type] = kept_edges(csr, ~newest)
        replaced[EdgeType(relation.triple, True)] = transposed(replaced[edge_type], columns)
    # A pair that another relation keeps would be asked for while it carries messages.
    for edge_type, newest in newest_of.items():
        csr = snapshot.csr(edge_type)
        rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        pairs = rows * snapshot.num_nodes(edge_type.neighbour_type) + csr.indices
        again = np.isin(pairs, np.concatenate(kept_pairs[edge_type.node_type, edge_type.neighbour_type]))
        held_out[edge_type] = kept_edges(csr, newest & ~again)
    return Split(graph=Graph(snapshot, replaced=replaced, derived=False), held_out=held_out, newest=newest_of)


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


@dataclass(frozen=True, kw_only=True)
class Part:
    """One turn of supervision: what is asked for, and the graph without it."""

    message: Graph
    users: NDArray[np.int64]
    entities: NDArray[np.int64]
    """Ends of the supervision pairs, as numbers in the column of all nodes."""


def supervision_parts(graph: Graph, parts: int, seed: int) -> list[Part]:
    """Split the engagements into ``parts``; each is asked for while the others carry the messages.

    All engagements of one user with one entity fall into one part, so that no pair serves as both.
    """
    found = []
    for part in range(parts):
        replaced: dict[EdgeType, Csr] = {}
        users, entities = [], []
        for relation in engagements(graph.schema):
            edge_type = EdgeType(relation.triple)
            csr = graph.csr(edge_type)
            rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
            asked = _mixed(rows, np.asarray(csr.indices), seed) % np.uint64(parts) == part
            replaced[edge_type] = kept_edges(csr, ~asked)
            columns = graph.num_nodes(relation.triple.target)
            replaced[EdgeType(relation.triple, True)] = transposed(replaced[edge_type], columns)
            users.append(rows[asked] + graph.offsets[relation.triple.source])
            entities.append(np.asarray(csr.indices)[asked].astype(np.int64) + graph.offsets[relation.triple.target])
        found.append(
            Part(
                message=Graph(graph.snapshot, replaced=replaced, derived=False),
                users=np.concatenate(users),
                entities=np.concatenate(entities),
            )
        )
    return found


def _salt(edge_type: EdgeType) -> str:
    return f"holdout {edge_type.triple.key}"


def _place_from_newest(csr: Csr, rows: NDArray[np.int64], salt: str) -> NDArray[np.int64]:
    seed = int.from_bytes(salt.encode()[-7:], "little")
    tie = _mixed(rows, np.asarray(csr.indices), seed)
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
