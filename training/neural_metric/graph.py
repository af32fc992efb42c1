"""The similarity graph over entity vectors that a neural score is searched in: HNSW by l2 distance, in plain arrays.

NANN builds it so (Chen et al. 2022, arXiv 2202.10226, section 3.2): the graph knows the vectors, not the score. Written
here rather than taken from a library, because the layers themselves are what is wanted, and those that have wheels
bring a second OpenMP and give them as their own bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from model_store.neighbour_graph import Layer, NeighbourGraph
from training.neural_metric.hnsw import insert_all
from training.neural_metric.settings import GraphSettings

_PART = 5000
"""Insertions between reports of progress."""


def build_graph(
    vectors: NDArray[np.float32], settings: GraphSettings | None = None, *, progress: Progress | None = None
) -> NeighbourGraph:
    """HNSW over vectors ``[N, d]`` by l2 distance; the same for the same vectors and settings.

    A node that insertion and pruning left out of reach becomes a further neighbour of the nearest of its own neighbours
    that is in reach, so that a search without a budget can find every entity.
    """
    settings = settings or GraphSettings()
    vectors = np.ascontiguousarray(vectors, np.float32)
    count, m = len(vectors), settings.neighbours
    if not count:
        raise ValueError("no entities to make a graph of")
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(count)
    levels = np.floor(-np.log(1.0 - rng.random(count)) / np.log(m)).astype(np.int64)
    offsets = np.cumsum(levels) - levels
    ground = np.full((count, 2 * m), -1, np.int32)
    upper = np.full((max(int(levels.sum()), 1), m), -1, np.int32)
    entry = -1
    visited = np.full(count, -1, np.int64)
    with (progress or NoProgress()).task("similarity graph", count, "entities") as task:
        stamp = 0
        for start in range(0, count, _PART):
            stop = min(start + _PART, count)
            entry, stamp = insert_all(
                vectors, order, levels, offsets, ground, upper, settings.candidates, entry, start, stop, visited, stamp
            )
            task.advance(stop - start)
    layers = []
    for level in range(int(levels.max()) + 1):
        nodes = np.flatnonzero(levels >= level)
        slots = ground if level == 0 else upper[offsets[nodes] + level - 1]
        layers.append(_connected(vectors, nodes, slots, entry))
    return NeighbourGraph(layers=tuple(layers), entry=entry)


def _connected(vectors: NDArray[np.float32], nodes: NDArray[np.int64], slots: NDArray[np.int32], entry: int) -> Layer:
    """The layer of these slots, with edges to whatever could not be reached from the entry."""
    there = slots >= 0
    layer = Layer(
        nodes=nodes,
        indptr=np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int64),
        indices=slots[there].astype(np.int32),
    )
    reached = np.zeros(int(nodes[-1]) + 1, bool)
    _reach(layer, reached, [entry])
    added: list[tuple[int, int]] = []
    for node in nodes:
        if reached[node]:
            continue
        near = layer.neighbours_of(np.array([node]))
        near = near[reached[near]]
        if not len(near):
            near = nodes[reached[nodes]]
        distance = np.square(vectors[near] - vectors[node]).sum(1)
        added.append((int(near[np.argmin(distance)]), int(node)))
        _reach(layer, reached, [int(node)])
    if not added:
        return layer
    place = np.searchsorted(nodes, [a for a, _ in added])
    order = np.argsort(place, kind="stable")
    more = np.bincount(place, minlength=len(nodes))
    return Layer(
        nodes=nodes,
        indptr=layer.indptr + np.concatenate([[0], np.cumsum(more)]),
        indices=np.insert(layer.indices, layer.indptr[place[order] + 1], np.array([b for _, b in added])[order]).astype(
            np.int32
        ),
    )


def _reach(layer: Layer, reached: NDArray[np.bool_], start: Iterable[int]) -> None:
    """Mark everything that can be reached from ``start``."""
    front = np.array(list(start), np.int64)
    reached[front] = True
    while len(front):
        near = np.unique(layer.neighbours_of(front))
        front = near[~reached[near]]
        reached[front] = True
