"""The planted answers: what is truly similar, and what a user would truly like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graph_store.synthetic.plan import Ints, Plan

ANSWERS = 20
"""True answers given per query."""
_QUERIES = 500
_CANDIDATES = 20_000
_ROWS = 256
"""Queries compared at once: 20 MB of scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """Judgements as pairs, the best answer first."""

    candidates: Ints
    """Films among which the similar ones were looked for (all, up to 20,000), ascending."""
    query: Ints
    similar: Ints
    user: Ints
    liked: Ints
    """The films a user would like best among those they have not touched."""


def make_truth(plan: Plan, users: Ints, seen: dict[int, Ints], rng: np.random.Generator) -> Truth:
    """The 20 nearest by cosine in the space of tastes; ``seen`` are the films that each of ``users`` touched.

    A quarter of the queries are films that nobody has touched, if there are as many.
    """
    films = len(plan.films)
    candidates = np.sort(rng.permutation(films)[:_CANDIDATES])
    asked = candidates[rng.permutation(len(candidates))]
    wanted = min(_QUERIES, films)
    cold = asked[plan.cold[asked]][: wanted // 4]
    query = np.sort(np.concatenate([cold, asked[~plan.cold[asked]][: wanted - len(cold)]]))
    answers = min(ANSWERS, len(candidates) - 1)
    similar = np.concatenate(
        [_nearest(plan, plan.films[part], candidates, part[:, None], answers) for part in _parts(query)]
    )
    liked = [
        _nearest(plan, plan.users[user : user + 1], candidates, seen[int(user)][None, :], answers)[0] for user in users
    ]
    return Truth(
        candidates=candidates,
        query=np.repeat(query, answers),
        similar=similar.ravel(),
        user=np.repeat(users, answers),
        liked=np.concatenate([*liked, np.empty(0, dtype=np.int64)]),
    )


def judged_users(users: int, rng: np.random.Generator) -> Ints:
    """The users whose true answers are written, ascending."""
    return np.sort(rng.permutation(users)[:_QUERIES])


def _parts(query: Ints) -> list[Ints]:
    return [query[start : start + _ROWS] for start in range(0, len(query), _ROWS)]


def _nearest(plan: Plan, places: np.ndarray, candidates: Ints, without: Ints, count: int) -> Ints:
    """The ``count`` candidates with the highest cosine to each place, but those ``without``, best first."""
    scores = places @ plan.films[candidates].T
    position = np.minimum(np.searchsorted(candidates, without), len(candidates) - 1)
    inside = candidates[position] == without
    rows = np.broadcast_to(np.arange(len(scores))[:, None], position.shape)
    scores[rows[inside], position[inside]] = -np.inf
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.lexsort((best, -np.take_along_axis(scores, best, axis=1)), axis=1)
    return candidates[np.take_along_axis(best, order, axis=1)]
