"""Neighbour lists: per node and edge type the heaviest (or newest) neighbours, the same in training and serving."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from graph_store.schema import RelationRole
from model_store.csr import Csr, EdgeType
from training.graph import Graph

_FEW_EDGES = 1_000_000
"""Up to so many edges are sorted; of more only the first of each row are looked for."""
_NO_WEIGHT, _NO_TIMES = np.empty(0, np.float32), np.empty(0, np.int64)


def top_neighbours(csr: Csr, limit: int | None) -> Csr:
    """Each row's edges, newest first where the relation has time, else heaviest first, at most ``limit`` (None: all).

    Ties are broken by weight, then by the neighbour's index, which is the order of ids by bytes.
    """
    degree = np.diff(csr.indptr)
    kept = degree if limit is None else np.minimum(degree, limit)
    indptr = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    if limit is not None and csr.num_edges > _FEW_EDGES:
        order = first_of_rows(
            np.asarray(csr.indptr),
            np.asarray(csr.indices),
            _NO_WEIGHT if csr.weight is None else np.asarray(csr.weight),
            _NO_TIMES if csr.time is None else np.asarray(csr.time),
            indptr,
        )
    else:
        order = _sorted(csr, degree)
        if limit is not None:
            order = order[np.arange(csr.num_edges) - np.repeat(np.asarray(csr.indptr[:-1]), degree) < limit]
    return Csr(
        indptr=indptr,
        indices=np.asarray(csr.indices)[order],
        weight=None if csr.weight is None else np.asarray(csr.weight)[order],
        time=None if csr.time is None else np.asarray(csr.time)[order],
    )


def _sorted(csr: Csr, degree: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of all edges, row by row, the best first."""
    keys: list[NDArray[Any]] = [np.asarray(csr.indices)]
    if csr.weight is not None:
        keys.append(-np.asarray(csr.weight))
    if csr.time is not None:
        # Times are negated as unsigned numbers: the smallest int64 stands for a missing time.
        keys.append(~np.asarray(csr.time))
    return np.lexsort([*keys, np.repeat(np.arange(csr.num_rows), degree)])


@numba.njit(nogil=True, cache=True)
def first_of_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    time: NDArray[np.int64],
    out_indptr: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The same for the first few of each row, without sorting the rest: memory is that of the result.

    ``weight`` and ``time`` are empty where there are none; ``out_indptr`` says how many of each row are kept.
    """
    out = np.empty(out_indptr[-1], np.int64)
    for row in range(len(indptr) - 1):
        first, room = out_indptr[row], out_indptr[row + 1] - out_indptr[row]
        filled = 0
        for edge in range(indptr[row], indptr[row + 1]):
            place = filled
            # By insertion from the end: of a long list most edges are no better than the last one kept.
            while place > 0:
                other = out[first + place - 1]
                if len(time) and time[edge] != time[other]:
                    better = time[edge] > time[other]
                elif len(weight) and weight[edge] != weight[other]:
                    better = weight[edge] > weight[other]
                else:
                    better = indices[edge] < indices[other]
                if not better:
                    break
                place -= 1
            if place >= room:
                continue
            if filled < room:
                filled += 1
            for shifted in range(filled - 1, place, -1):
                out[first + shifted] = out[first + shifted - 1]
            out[first + place] = edge
    return out


def published_neighbours(graph: Graph, edge_type: EdgeType, limit: int) -> Csr:
    """The list a bundle holds: all engagements of a user, of everything else the first ``limit``."""
    engagement = graph.schema.relation(edge_type.triple).role is RelationRole.ENGAGEMENT
    return top_neighbours(graph.csr(edge_type), None if engagement and not edge_type.reversed else limit)
