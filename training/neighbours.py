"""Neighbour lists: per node and edge type the heaviest (or newest) neighbours, the same in training and serving."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import RelationRole
from model_store.csr import Csr, EdgeType
from training.graph import Graph


def top_neighbours(csr: Csr, limit: int | None) -> Csr:
    """Each row's edges, newest first where the relation has time, else heaviest first, at most ``limit`` (None: all).

    Ties are broken by weight, then by the neighbour's index, which is the order of ids by bytes.
    """
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    keys: list[NDArray[Any]] = [np.asarray(csr.indices)]
    if csr.weight is not None:
        keys.append(-np.asarray(csr.weight))
    if csr.time is not None:
        # Times are negated as unsigned numbers: the smallest int64 stands for a missing time.
        keys.append(~np.asarray(csr.time))
    order = np.lexsort([*keys, rows])
    indptr = np.asarray(csr.indptr)
    if limit is not None:
        place = np.arange(csr.num_edges) - indptr[rows]
        order = order[place < limit]
        indptr = np.concatenate([[0], np.cumsum(np.minimum(np.diff(indptr), limit))]).astype(np.int64)
    return Csr(
        indptr=indptr,
        indices=np.asarray(csr.indices)[order],
        weight=None if csr.weight is None else np.asarray(csr.weight)[order],
        time=None if csr.time is None else np.asarray(csr.time)[order],
    )


def published_neighbours(graph: Graph, edge_type: EdgeType, limit: int) -> Csr:
    """The list a bundle holds: all engagements of a user, of everything else the first ``limit``."""
    engagement = graph.schema.relation(edge_type.triple).role is RelationRole.ENGAGEMENT
    return top_neighbours(graph.csr(edge_type), None if engagement and not edge_type.reversed else limit)
