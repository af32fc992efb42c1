"""Personalised PageRank of many nodes by forward push: a push costs what it moves, whatever the size of the graph."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from model_store.compiled import compiled
from model_store.features import link_weight
from training.fit_features import median_weight
from training.graph import Graph

RESTART = 0.15
"""Chance that a walk goes back to its node instead of on."""
_SOURCES_AT_ONCE = 1024


def transition(graph: Graph) -> sp.csr_matrix:
    """Chances of a step ``[all nodes, all nodes]``: any of the node's edge types alike, then by log-scaled weight.

    So a relation with a thousand times the edges is no more likely to be taken than a rare one.
    """
    total = graph.total_nodes
    steps = sp.csr_matrix((total, total), dtype=np.float64)
    present = np.zeros(total)
    for edge_type in graph.edge_types:
        csr = graph.csr(edge_type)
        weight = link_weight(csr, median_weight(csr)).astype(np.float64)
        node = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr)) + graph.offsets[edge_type.node_type]
        neighbour = np.asarray(csr.indices, dtype=np.int64) + graph.offsets[edge_type.neighbour_type]
        whole = np.bincount(node, weights=weight, minlength=total)
        present += whole > 0
        share = weight / np.where(whole > 0, whole, 1.0)[node]
        steps = steps + sp.csr_matrix((share, (node, neighbour)), shape=(total, total))
    steps = (sp.diags(1.0 / np.maximum(present, 1.0)) @ steps).tocsr()
    steps.eliminate_zeros()
    return steps


def ranked_band(
    steps: sp.csr_matrix,
    sources: NDArray[np.int64],
    candidates: NDArray[np.bool_],
    *,
    low: int,
    high: int,
    kept: int,
    precision: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """For each source up to ``kept`` candidates of rank ``low`` to ``high`` of its PageRank: indptr, node numbers.

    Forward push of Andersen, Chung and Lang (2006): an estimate is too small by at most ``precision`` times the node's
    number of edges. Of more than ``kept`` nodes those at even distances are taken; ties of rank go to the lower number.
    The source is not ranked; its own neighbours are, but never taken.
    """
    counts, members = [np.zeros(1, np.int64)], [np.empty(0, np.int32)]
    indptr, indices = steps.indptr.astype(np.int64), steps.indices.astype(np.int32)
    chance = steps.data.astype(np.float64)
    for first in range(0, len(sources), _SOURCES_AT_ONCE):
        part = np.ascontiguousarray(sources[first : first + _SOURCES_AT_ONCE], dtype=np.int64)
        found = _band(indptr, indices, chance, part, candidates, low, high, kept, RESTART, precision)
        counts.append(found[0])
        members.append(found[1])
    return np.cumsum(np.concatenate(counts)), np.concatenate(members)


@compiled
def _band(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    chance: NDArray[np.float64],
    sources: NDArray[np.int64],
    candidates: NDArray[np.bool_],
    low: int,
    high: int,
    kept: int,
    restart: float,
    precision: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    nodes = len(indptr) - 1
    estimate = np.zeros(nodes)
    residual = np.zeros(nodes)
    waits = np.zeros(nodes, dtype=np.bool_)
    seen = np.zeros(nodes, dtype=np.bool_)
    touched = np.empty(nodes, dtype=np.int64)
    queue = np.empty(nodes + 1, dtype=np.int64)  # a ring; a node stands in it once
    counts = np.zeros(len(sources), dtype=np.int64)
    members = np.empty(len(sources) * kept, dtype=np.int32)
    out = 0
    for number in range(len(sources)):
        source = sources[number]
        head, tail, many = 0, 1, 1
        queue[0], touched[0] = source, source
        residual[source] = 1.0
        waits[source] = seen[source] = True
        while head != tail:
            node = queue[head]
            head = (head + 1) % len(queue)
            waits[node] = False
            mass = residual[node]
            residual[node] = 0.0
            if indptr[node] == indptr[node + 1]:
                estimate[node] += mass
                continue
            estimate[node] += restart * mass
            mass *= 1.0 - restart
            for position in range(indptr[node], indptr[node + 1]):
                other = np.int64(indices[position])
                residual[other] += mass * chance[position]
                if not seen[other]:
                    seen[other] = True
                    touched[many] = other
                    many += 1
                if not waits[other] and residual[other] > precision * (indptr[other + 1] - indptr[other]):
                    waits[other] = True
                    queue[tail] = other
                    tail = (tail + 1) % len(queue)
        reached = np.empty(many, dtype=np.int64)
        score = np.empty(many, dtype=np.float64)
        count = 0
        touched[:many].sort()
        for place in range(many):
            node = touched[place]
            # What has not been pushed on counts too: it is on the node.
            if candidates[node] and node != source:
                reached[count] = node
                score[count] = -(estimate[node] + restart * residual[node])
                count += 1
        order = np.argsort(score[:count], kind="mergesort")
        for place in range(many):
            node = touched[place]
            estimate[node] = residual[node] = 0.0
            seen[node] = False
        for position in range(indptr[source], indptr[source + 1]):
            seen[indices[position]] = True  # its own neighbours, for a moment
        stop = min(high, count)
        wanted = min(kept, stop - low)
        for place in range(wanted):
            node = reached[order[low + place * (stop - low) // wanted]]
            if not seen[node]:
                members[out] = node
                out += 1
                counts[number] += 1
        for position in range(indptr[source], indptr[source + 1]):
            seen[indices[position]] = False
    return counts, members[:out].copy()
