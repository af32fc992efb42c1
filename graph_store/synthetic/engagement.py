"""Who saw and clicked what: by taste and popularity, with noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graph_store.synthetic.plan import Ints, Plan, softmax_choices, weighted_draws

_EVENTS = 1 << 17
"""Views drawn at once."""
_SHOWN = 24
"""Films that come up before one is looked at."""
VIEW_SHARE = 5
"""Hundredths that stand for a view: little, but not nothing."""
_CHANCE = 0.15
"""Share of views that have nothing to do with taste."""
_START = 1_672_531_200
"""2023-01-01, seconds since 1970; the log covers three years."""
_SPAN = 3 * 365 * 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """A block of events, by user and then by time: columns of one length."""

    user: Ints
    film: Ints
    time: Ints
    """Seconds since 1970, UTC."""
    clicked: Ints
    """0 for a view, 1 for a click (which follows a view of the same film)."""
    share: Ints
    """Hundredths of the film watched: 10 to 100 for a click, ``VIEW_SHARE`` for a view."""


def events(plan: Plan, *, events_per_user: float, rng: np.random.Generator) -> Iterator[Events]:
    """Blocks of events of whole users; ``events_per_user`` is the mean number of views, before repetitions go."""
    users = len(plan.users)
    spread = 0.8
    most = max(3, len(plan.films) // 2)
    views = rng.lognormal(np.log(events_per_user) - spread**2 / 2, spread, users)
    counts: Ints = np.clip(np.round(views), 3, most).astype(np.int64)
    ends = np.cumsum(counts)
    start = 0
    while start < users:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _EVENTS, side="right")))
        yield _block(plan, np.repeat(np.arange(start, stop), counts[start:stop]), rng)
        start = stop


def _block(plan: Plan, user: Ints, rng: np.random.Generator) -> Events:
    shown = weighted_draws(plan.popularity, (len(user), _SHOWN), rng)
    taste = np.einsum("ed,ecd->ec", plan.users[user], plan.films[shown])
    taste *= np.where(rng.random(len(user)) < _CHANCE, 0, 11).astype(np.float32)[:, None]
    film = np.take_along_axis(shown, softmax_choices(taste, 1, rng), axis=1)[:, 0]
    # A user looks at a film once.
    pair = np.unique(user * len(plan.films) + film)
    user, film = pair // len(plan.films), pair % len(plan.films)
    match = np.einsum("ed,ed->e", plan.users[user], plan.films[film])
    clicked = rng.random(len(user)) < 1 / (1 + np.exp(-8 * (match - 0.55)))
    seen = _START + rng.integers(0, _SPAN, len(user))
    watched = np.clip(np.round(100 * (0.3 + 0.5 * match + 0.2 * rng.standard_normal(len(user)))), 10, 100)
    user, film = np.concatenate([user, user[clicked]]), np.concatenate([film, film[clicked]])
    time = np.concatenate([seen, seen[clicked] + rng.integers(2, 90, int(clicked.sum()))])
    kind = np.concatenate([np.zeros(len(seen), dtype=np.int64), np.ones(int(clicked.sum()), dtype=np.int64)])
    share = np.concatenate([np.full(len(seen), VIEW_SHARE, dtype=np.int64), watched[clicked].astype(np.int64)])
    order = np.lexsort((kind, film, time, user))
    return Events(user=user[order], film=film[order], time=time[order], clicked=kind[order], share=share[order])
