"""Beam search of a similarity graph under any score (NANN, Chen et al. 2022, section 3.3, algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model_store.beam_kernels import expand, push
from model_store.neighbour_graph import Layer, NeighbourGraph

Item = TypeVar("Item", bound=np.generic)
Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Score = Callable[[Rows], Scores]
"""Scores ``[n]`` of entity rows ``[n]`` for one user, the higher the better; what is no number is the worst."""
_TOGETHER = 4096
"""Entities that ``exhaustive`` scores in one call."""
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """How far a search goes."""

    beam: int = 200
    """Best nodes kept in the lowest layer; at least the number of results asked for."""
    upper_beam: int = 50
    """Best nodes kept in the layers above."""
    width: int | None = 16
    """Nodes whose neighbours are scored together in a round; None: all that are new to the beam (the source)."""
    rounds: int | None = None
    """Rounds in the lowest layer, at most; None: until the beam stays (the source: 3)."""
    budget: int | None = None
    """Evaluations of the score, at most; None: no limit."""
    scored_whole: int = 256
    """The search begins in the lowest layer of at most so many nodes, all of which are scored."""

    def __post_init__(self) -> None:
        for name in ("beam", "upper_beam", "width", "rounds", "budget", "scored_whole"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamFound:
    """What a search found, best first, ties by row."""

    entities: Rows
    scores: Scores
    evaluations: int
    """Entities scored, each once."""
    rounds: int
    """Calls of the score: batches that had to wait for each other."""
    truncated: bool = False
    """It was stopped before its end: the best of what was scored until then."""


def beam_search(
    graph: NeighbourGraph,
    score: Score,
    *,
    k: int,
    settings: SearchSettings,
    starts: Rows | None = None,
    allowed: NDArray[np.bool_] | None = None,
    stop: Callable[[], bool] | None = None,
) -> BeamFound:
    """The best ``k`` entities by a score, as far as the search finds them.

    A layer small enough is scored whole; the best of it are where the layer below begins, and so on down to the lowest,
    which holds every entity. In a layer, round by round, the unvisited neighbours of the best ``width`` nodes not yet
    expanded are scored in one call, until the beam's nodes are all expanded, or rounds or budget are used up. With
    ``width`` None all nodes new to the beam are expanded at once, as in the source; few at a time need more calls and
    fewer evaluations.

    Not in the source: ``starts``, further rows to begin from in the lowest layer, such as the user's events;
    ``allowed`` ``[entities]``, what may be answered: the walk passes through everything and goes on until ``beam`` of
    these are kept; ``stop``, asked before each call of the score but the first, ends the search with the best so far.
    """
    walk = _Walk(graph.num_entities, score, settings.budget, stop)
    small = (number for number, layer in enumerate(graph.layers) if len(layer.nodes) <= settings.scored_whole)
    whole = next(small, len(graph.layers))
    walk.visit(np.asarray(graph.layers[whole].nodes) if whole < len(graph.layers) else np.array([graph.entry]))
    for number in range(whole - 1, 0, -1):
        walk.layer(graph.layers[number], settings.upper_beam, settings.width, None, None)
    if whole > 0:
        if starts is not None:
            walk.visit(np.unique(starts))
        walk.layer(graph.layers[0], max(settings.beam, k), settings.width, settings.rounds, allowed)
    return walk.found(k, allowed)


def exhaustive(rows: Rows, score: Score, *, k: int, stop: Callable[[], bool] | None = None) -> BeamFound:
    """The best ``k`` of these rows by brute force; ``stop`` as in ``beam_search``."""
    walk = _Walk(0, score, None, stop)
    for start in range(0, len(rows), _TOGETHER):
        walk.visit(rows[start : start + _TOGETHER], marked=True)
    return walk.found(k, None)


class _Walk:
    """What one search has scored so far."""

    def __init__(self, entities: int, score: Score, budget: int | None, stop: Callable[[], bool] | None) -> None:
        self._score, self._stop = score, stop
        self._left = np.iinfo(np.int64).max if budget is None else budget
        self._visited = np.zeros(entities, bool)
        self._rows, self._scores = np.empty(1024, np.int64), np.empty(1024, np.float32)
        self._count = self._calls = 0
        self._truncated = False

    @property
    def _over(self) -> bool:
        return self._truncated or self._left <= 0

    def visit(self, rows: Rows, *, marked: bool = False) -> None:
        """Score the rows not scored yet (``marked``: all are such), as far as budget and time go."""
        if not marked:
            rows = rows[~self._visited[rows]]
            self._visited[rows] = True
        rows = rows[: self._left]
        if not len(rows) or self._over:
            return
        if self._calls and self._stop is not None and self._stop():
            self._truncated = True
            return
        scores = np.asarray(self._score(rows), np.float32)
        last = self._count + len(rows)
        if last > len(self._rows):
            self._rows = np.concatenate([self._rows[: self._count], np.empty(2 * last - self._count, np.int64)])
            self._scores = np.concatenate([self._scores[: self._count], np.empty(2 * last - self._count, np.float32)])
        self._rows[self._count : last] = rows
        self._scores[self._count : last] = np.where(np.isnan(scores), -np.inf, scores)
        self._count = last
        self._left -= len(rows)
        self._calls += 1

    def layer(
        self, layer: Layer, size: int, width: int | None, rounds: int | None, allowed: NDArray[np.bool_] | None
    ) -> None:
        """Walk one layer, from the best of everything scored so far (all in this layer: layers are nested)."""
        nodes = _read_only(_NONE if layer.whole else layer.nodes)
        indptr, indices = _read_only(layer.indptr), _read_only(layer.indices)
        may = _read_only(np.empty(0, bool) if allowed is None else allowed)
        degree = layer.degree
        kept = np.empty(size, np.int64)
        frontier = np.empty(len(self._rows), np.int64)
        waiting, filled = push(self._rows, self._scores, 0, self._count, may, frontier, 0, kept, 0)
        done = 0
        while waiting and not self._over and (rounds is None or done < rounds):
            together = waiting if width is None else min(width, waiting)
            near = np.empty(min(together * degree, len(self._visited)), np.int64)
            waiting, count = expand(
                self._rows,
                self._scores,
                frontier,
                waiting,
                kept,
                filled,
                together,
                nodes,
                indptr,
                indices,
                self._visited,
                near,
            )
            before = self._count
            self.visit(near[:count], marked=True)
            if len(frontier) < len(self._rows):
                frontier = np.concatenate([frontier, np.empty(len(self._rows) - len(frontier), np.int64)])
            waiting, filled = push(self._rows, self._scores, before, self._count, may, frontier, waiting, kept, filled)
            done += 1

    def found(self, k: int, allowed: NDArray[np.bool_] | None) -> BeamFound:
        """The best ``k`` of everything scored in any layer that may be answered."""
        rows, scores = self._rows[: self._count], self._scores[: self._count]
        may = scores > -np.inf
        if allowed is not None:
            may &= allowed[rows]
        rows, scores = rows[may], scores[may]
        order = np.lexsort((rows, -scores))[:k]
        return BeamFound(
            entities=rows[order],
            scores=scores[order],
            evaluations=self._count,
            rounds=self._calls,
            truncated=self._truncated,
        )


def _read_only(array: NDArray[Item]) -> NDArray[Item]:
    """A plain view that cannot be written, as a mapped file is: one compiled form serves both."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
