"""Hard negatives that get more by epoch (PinSage, arXiv 1806.01973, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graph_store.settings import SpaceSettings
from training.graph import Graph
from training.objectives.page_rank import ranked_band, transition

Nodes = NDArray[np.int64]

_KEPT = 128
"""Members of a band that are kept for a node, 4 bytes each."""
_PRECISION = 0.02
"""Divided by the band's upper rank: how precisely PageRank is found."""


class HardNegatives:
    """Draws entities somewhat like a node: between two ranks of its personalised PageRank.

    In epoch n there are n - 1 of them for each node, ``settings.hard_negatives`` at the most. An epoch is a pass over
    the positive edges, and at most ``steps / (hard_negatives + 1)`` steps, so that a short training comes to the last
    level too. Where a node's band is empty, nodes of the pool are drawn evenly in their place.
    """

    def __init__(
        self,
        graph: Graph,
        settings: SpaceSettings,
        *,
        queries: Sequence[str],
        entities: Sequence[str],
        edges: int,
        steps: int,
    ) -> None:
        """``queries``, ``entities``: the node types asked from and asked for; ``edges`` of a pass, ``steps`` in all."""
        self.most = settings.hard_negatives
        passed = -(-edges // settings.batch_size)
        self.epoch_steps = max(1, min(passed, steps // (self.most + 1)))
        asked, candidates = _of_types(graph, queries), np.zeros(graph.total_nodes, bool)
        self._pool = _of_types(graph, entities)
        candidates[self._pool] = True
        low, high = settings.hard_band
        indptr, self._members = ranked_band(
            transition(graph), asked, candidates, low=low, high=high, kept=_KEPT, precision=_PRECISION / high
        )
        self._first, self._count = np.zeros(graph.total_nodes, np.int64), np.zeros(graph.total_nodes, np.int64)
        self._first[asked], self._count[asked] = indptr[:-1], np.diff(indptr)

    def count(self, step: int) -> int:
        """How many a node gets in a step."""
        return min(step // self.epoch_steps, self.most)

    def band(self, node: int) -> Nodes:
        """The members of a node's band, most like it first."""
        first = self._first[node]
        return self._members[first : first + self._count[node]].astype(np.int64)

    def draw(self, nodes: Nodes, step: int, rng: np.random.Generator) -> Nodes:
        """For each of ``nodes`` [B] as many as the step has, with replacement: [B, count]."""
        count = self.count(step)
        if not count:
            return np.empty((len(nodes), 0), np.int64)
        there = self._count[nodes][:, None]
        place = self._first[nodes][:, None] + (rng.random((len(nodes), count)) * there).astype(np.int64)
        evenly = self._pool[rng.integers(len(self._pool), size=place.shape)]
        if not len(self._members):
            return evenly
        return np.where(there > 0, self._members[np.minimum(place, len(self._members) - 1)], evenly)


def _of_types(graph: Graph, types: Sequence[str]) -> Nodes:
    """Their nodes as numbers in the column of all nodes, ascending."""
    parts = [np.arange(graph.num_nodes(name), dtype=np.int64) + graph.offsets[name] for name in types]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
