"""What each user engaged with, oldest first, and the examples that training draws from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.csr import Csr

Rows = NDArray[np.int64]

_TRAIN, _VALIDATION = 0.90, 0.05


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Events of all users: those of user ``u`` are ``entities[indptr[u]:indptr[u + 1]]``."""

    indptr: Rows
    """``[users + 1]``."""
    entities: NDArray[np.int32]
    """``[events]``, rows of the entity type."""
    ordered: bool
    """Oldest first; otherwise the order says nothing, and any event may be asked for given any others."""

    @property
    def num_users(self) -> int:
        return len(self.indptr) - 1

    def of(self, user: int) -> NDArray[np.int32]:
        """The events of one user."""
        return self.entities[self.indptr[user] : self.indptr[user + 1]]


def histories(csr: Csr, *, seed: int = 0) -> Histories:
    """Events of users from an engagement relation seen from the users.

    Events of the same time are in random order: by row they would tell the model what no served user tells.
    """
    users = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    shuffled = np.random.default_rng(seed).random(csr.num_edges)
    keys = (shuffled, users) if csr.time is None else (shuffled, np.asarray(csr.time), users)
    order = np.lexsort(keys)
    return Histories(
        indptr=np.asarray(csr.indptr, np.int64),
        entities=np.asarray(csr.indices)[order].astype(np.int32),
        ordered=csr.time is not None,
    )


@dataclass(frozen=True, kw_only=True)
class UserSplit:
    """Users by purpose, ``[n]`` each, ascending."""

    train: Rows
    validation: Rows
    test: Rows


def split_users(known: Histories, *, seed: int = 0) -> UserSplit:
    """Users with at least two events, 90 % for training, 5 % to choose settings by, 5 % to report on."""
    able = np.random.default_rng([seed, 17]).permutation(np.flatnonzero(np.diff(known.indptr) >= 2))
    first, second = round(len(able) * _TRAIN), round(len(able) * (_TRAIN + _VALIDATION))
    return UserSplit(train=np.sort(able[:first]), validation=np.sort(able[first:second]), test=np.sort(able[second:]))


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Users at a moment, and what came next."""

    users: Rows
    """``[B]``."""
    events: Rows
    """``[B, T]`` entity rows, oldest first, aligned to the right; -1 where there is none."""
    targets: Rows
    """``[B]`` entity rows."""
    seen: tuple[NDArray[np.int32], ...] = ()
    """Per example everything the user engaged with before; empty in training."""


class ExampleSource:
    """Draws training examples: an event of some users, and up to ``limit`` events before it."""

    def __init__(self, known: Histories, users: Rows, limit: int) -> None:
        self.known, self.limit = known, limit
        first = 1 if known.ordered else 0
        starts, stops = known.indptr[users] + first, known.indptr[users + 1]
        counts = np.maximum(stops - starts, 0)
        self._user = np.repeat(users, counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.positions = np.repeat(starts, counts) + within
        """Positions in ``entities`` that can be asked for: with times, all but each user's first event."""

    def __len__(self) -> int:
        return len(self.positions)

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        """``count`` examples, each event as likely as any other."""
        chosen = rng.integers(len(self.positions), size=count)
        users, positions = self._user[chosen], self.positions[chosen]
        if self.known.ordered:
            events = earlier(self.known, users, positions, self.limit)
        else:
            events = others(self.known, users, positions, self.limit, rng)
        return Examples(users=users, events=events, targets=self.known.entities[positions].astype(np.int64))


def others(known: Histories, users: Rows, positions: Rows, limit: int, rng: np.random.Generator) -> Rows:
    """Up to ``limit`` random events ``[B, limit]`` of each user but that at the position, aligned to the right."""
    events = np.full((len(users), limit), -1, np.int64)
    for row, (user, position) in enumerate(zip(users, positions, strict=True)):
        start, stop = known.indptr[user : user + 2]
        drawn = start + rng.permutation(stop - start)
        drawn = drawn[drawn != position][:limit]
        events[row, limit - len(drawn) :] = known.entities[drawn]
    return events


def earlier(known: Histories, users: Rows, positions: Rows, limit: int) -> Rows:
    """The last ``limit`` events ``[B, limit]`` before positions in ``entities``, aligned to the right, else -1."""
    at = positions[:, None] - np.arange(limit, 0, -1)
    there = at >= known.indptr[users][:, None]
    return np.where(there, known.entities[np.maximum(at, 0)], -1).astype(np.int64)


def questions(known: Histories, users: Rows, limit: int, *, each: int, seed: int = 0) -> Examples:
    """Examples to evaluate on: at most ``each`` of a user, always the last event, the others evenly spaced before.

    Without times an example is a user's event drawn at random, given up to ``limit`` of the others.
    """
    rng = np.random.default_rng([seed, 23])
    asked: list[tuple[int, int]] = []
    for user in users:
        start, stop = known.indptr[user : user + 2]
        if known.ordered:
            places = np.unique(np.linspace(stop - 1, start + 1, min(each, stop - start - 1)).round().astype(np.int64))
        else:
            places = start + rng.permutation(stop - start)[:each]
        asked += [(int(user), int(place)) for place in places]
    of, positions = np.array([a for a, _ in asked], np.int64), np.array([b for _, b in asked], np.int64)
    if known.ordered:
        events = earlier(known, of, positions, limit)
        seen = tuple(known.entities[known.indptr[a] : b] for a, b in asked)
    else:
        events = others(known, of, positions, limit, rng)
        seen = tuple(_without(known.of(a), known.entities[b]) for a, b in asked)
    return Examples(users=of, events=events, targets=known.entities[positions].astype(np.int64), seen=seen)


def batches(count: int, size: int) -> Sequence[slice]:
    """Slices of at most ``size``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _without(events: NDArray[np.int32], one: np.int32) -> NDArray[np.int32]:
    kept: NDArray[np.int32] = events[events != one]
    return kept
