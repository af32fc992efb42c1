"""Beam search of a similarity graph under any score (NANN, Chen et al. 2022, section 3.3, algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.neural_metric.graph import Layer, NeighbourGraph
from training.neural_metric.settings import SearchSettings

Rows = NDArray[np.int64]
Score = Callable[[Rows], NDArray[np.float32]]
"""Scores ``[n]`` of entity rows ``[n]`` for one user, the higher the better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search found, best first, ties by row."""

    entities: Rows
    scores: NDArray[np.float32]
    evaluations: int
    """Entities scored, each once."""
    rounds: int
    """Calls of the score: batches that had to wait for each other."""


def beam_search(
    graph: NeighbourGraph, score: Score, *, k: int, settings: SearchSettings, starts: Rows | None = None
) -> Found:
    """The best ``k`` entities by a score, as far as the search finds them.

    A layer small enough is scored whole; the best of it are where the layer below begins, and so on down to the lowest,
    which holds every entity. In a layer, round by round, the unvisited neighbours of the best ``width`` nodes not yet
    expanded are scored in one call, until the beam's nodes are all expanded, or rounds or budget are used up. With
    ``width`` None all nodes new to the beam are expanded at once, as in the source; few at a time need more calls and
    fewer evaluations. ``starts``: further rows to begin from in the lowest layer, such as the user's events (not in
    the source).
    """
    walk = _Walk(graph.num_entities, score, settings.budget)
    small = (number for number, layer in enumerate(graph.layers) if len(layer.nodes) <= settings.scored_whole)
    whole = next(small, len(graph.layers))
    walk.visit(graph.layers[whole].nodes if whole < len(graph.layers) else np.array([graph.entry]))
    for number in range(whole - 1, -1, -1):
        if number:
            walk.layer(graph.layers[number], settings.upper_beam, settings.width, None)
        else:
            if starts is not None:
                walk.visit(np.unique(starts))
            walk.layer(graph.layers[0], max(settings.beam, k), settings.width, settings.rounds)
    best = walk.best(k)
    return Found(entities=best.rows, scores=best.scores, evaluations=walk.evaluations, rounds=walk.calls)


@dataclass(frozen=True, slots=True)
class _Beam:
    """Scored rows, best first."""

    rows: Rows
    scores: NDArray[np.float32]
    expanded: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Rows, scores: NDArray[np.float32], expanded: NDArray[np.bool_] | None = None) -> _Beam:
        order = np.lexsort((rows, -scores))
        marks = np.zeros(len(rows), bool) if expanded is None else expanded
        return cls(rows[order], scores[order], marks[order])

    def best(self, count: int) -> _Beam:
        return _Beam(self.rows[:count], self.scores[:count], self.expanded[:count])

    def merged(self, other: _Beam, size: int) -> _Beam:
        return _Beam.of(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.expanded, other.expanded]),
        ).best(size)


class _Walk:
    """What one search has scored so far."""

    def __init__(self, entities: int, score: Score, budget: int | None) -> None:
        self.score, self.budget = score, budget
        self.visited = np.zeros(entities, bool)
        self.evaluations = self.calls = 0
        self._rows: list[Rows] = []
        self._scores: list[NDArray[np.float32]] = []

    def visit(self, rows: Rows) -> _Beam:
        """Score the rows not scored yet, as far as the budget goes."""
        rows = rows[~self.visited[rows]]
        if self.budget is not None:
            rows = rows[: self.budget - self.evaluations]
        if not len(rows):
            return _Beam.of(np.empty(0, np.int64), np.empty(0, np.float32))
        self.visited[rows] = True
        scores = np.asarray(self.score(rows), np.float32)
        self.evaluations += len(rows)
        self.calls += 1
        self._rows.append(rows)
        self._scores.append(scores)
        return _Beam.of(rows, scores)

    def layer(self, layer: Layer, size: int, width: int | None, rounds: int | None) -> None:
        """Walk one layer, from the best ``size`` of everything scored so far (all in this layer: layers are nested)."""
        beam = self.best(size)
        done = 0
        while rounds is None or done < rounds:
            chosen = np.flatnonzero(~beam.expanded)[:width]
            if not len(chosen) or (self.budget is not None and self.evaluations >= self.budget):
                break
            beam.expanded[chosen] = True
            near = layer.neighbours_of(beam.rows[chosen])
            # The best node's neighbours first, so that a budget cuts off the least promising; each row once.
            near = near[np.sort(np.unique(near, return_index=True)[1])]
            beam = beam.merged(self.visit(near), size)
            done += 1

    def best(self, count: int) -> _Beam:
        """The best of everything scored in any layer."""
        return _Beam.of(np.concatenate(self._rows), np.concatenate(self._scores)).best(count)
