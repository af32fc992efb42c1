"""How good a score is (Recall@k of brute force), and how well a graph search finds what brute force finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.beam_search import BeamFound, SearchSettings, beam_search
from model_store.neighbour_graph import NeighbourGraph
from training.neural_metric.histories import Examples, batches
from training.neural_metric.scorer import Scorer

_PAIRS = 60_000
"""Pairs of user and candidate scored at a time: 64 hidden numbers each are 15 MiB."""


class UserScore:
    """The score of one user, as the search asks for it: ``score(rows) -> scores``."""

    def __init__(self, scorer: Scorer, events: NDArray[np.int64]) -> None:
        """``events`` ``[T]``: entity rows, oldest first; -1 where there is none."""
        self.scorer = scorer
        with torch.no_grad():
            self.vectors, self.mask = scorer.event_vectors(torch.from_numpy(events[None]))

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.no_grad():
            candidates = self.scorer.table[torch.from_numpy(rows)]
            scores: NDArray[np.float32] = self.scorer(self.vectors, self.mask, candidates)[0].numpy()
        return scores


def brute_force(scorer: Scorer, events: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Scores of all entities ``[entities]`` for each row of ``events`` ``[B, T]``, with the row's number."""
    entities = len(scorer.table)
    for users in batches(len(events), max(1, _PAIRS // entities)):
        with torch.no_grad():
            vectors, mask = scorer.event_vectors(torch.from_numpy(events[users]))
            parts: list[Tensor] = [scorer(vectors, mask, scorer.table[part]) for part in batches(entities, _PAIRS)]
        yield from zip(range(users.start, users.stop), torch.cat(parts, dim=1).numpy(), strict=True)


def task_recall(scorer: Scorer, asked: Examples, *, at: int = 100) -> NDArray[np.float64]:
    """Per user (ascending) the share of their questions whose target is among the best ``at`` not seen before.

    Ties count against the target. Users, not questions, are the sample: a user's questions are alike.
    """
    hit = np.zeros(len(asked.users))
    for row, scores in brute_force(scorer, asked.events):
        target = scores[asked.targets[row]]
        scores = scores.copy()
        scores[asked.seen[row]] = -np.inf
        hit[row] = (scores >= target).sum() <= at
    users, which = np.unique(asked.users, return_inverse=True)
    means: NDArray[np.float64] = np.bincount(which, hit, minlength=len(users)) / np.bincount(which)
    return means


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A search beside brute force under the same score, a number a user."""

    overlap: NDArray[np.float64]
    """Share of brute force's best k that the search returned (the source's coverage)."""
    evaluations: NDArray[np.int64]
    rounds: NDArray[np.int64]
    found: tuple[BeamFound, ...]


def agreement(
    scorer: Scorer,
    graph: NeighbourGraph,
    events: NDArray[np.int64],
    exact: NDArray[np.int64],
    settings: SearchSettings | None = None,
    *,
    from_events: bool = False,
) -> Agreement:
    """Search for each user of ``events`` ``[B, T]``; ``exact`` ``[B, k]`` are brute force's best (``exact_best``)."""
    k = exact.shape[1]
    settings = settings or SearchSettings()
    found = []
    for row in range(len(events)):
        starts = events[row][events[row] >= 0] if from_events else None
        found.append(beam_search(graph, UserScore(scorer, events[row]), k=k, settings=settings, starts=starts))
    return Agreement(
        overlap=np.array([np.isin(exact[row], each.entities).mean() for row, each in enumerate(found)]),
        evaluations=np.array([each.evaluations for each in found], np.int64),
        rounds=np.array([each.rounds for each in found], np.int64),
        found=tuple(found),
    )


def exact_best(scorer: Scorer, events: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The best ``k`` entities ``[B, k]`` of each user by brute force, best first."""
    best = np.empty((len(events), k), np.int64)
    for row, scores in brute_force(scorer, events):
        top = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else np.arange(len(scores))
        best[row] = top[np.argsort(-scores[top], kind="stable")]
    return best
