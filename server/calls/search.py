"""A search that was read from its request, and what searches of one index find together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from server.calls.diversity import DEPTH, diversify
from server.deadline import Deadline
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, Vectors
from server.model.served_model import ServedModel

R = TypeVar("R")
Group = tuple[str, str, int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What may be answered, and how many."""

    k: int
    exclude: Rows
    allowed: Selection | None = None
    """What the request's filter lets pass; None: no filter."""
    min_score: float | None = None
    diversity: float = 0.0

    @property
    def depth(self) -> int:
        """How many to search for: with diversity the results are chosen out of more."""
        return self.k * DEPTH if self.diversity else self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared(Generic[R]):
    """A search whose request was read and found right: all but the search itself."""

    space: str
    target: str
    vector: Vectors | None
    """``[dimension]``; None: the most engaged entities instead."""
    limits: Limits
    finish: Callable[[Found], R]
    """The response with what was found."""
    neural: Callable[[Deadline], Found] | None = None
    """Searches in place of an index; takes milliseconds, so call ``find`` in a thread (``server.threads``)."""

    @property
    def group(self) -> Group:
        """Searches of the same group can be asked together."""
        kind = "neural" if self.neural is not None else "popular" if self.vector is None else "vector"
        return self.space, self.target, self.limits.depth, kind


def find(model: ServedModel, prepared: Sequence[Prepared[R]], deadline: Deadline) -> list[Found]:
    """What searches of one group find, by one call of their index; at most ``limits.k`` each."""
    found = searched(model, prepared, deadline)
    return [narrowed(model, each, one, deadline) for each, one in zip(prepared, found, strict=True)]


def searched(model: ServedModel, prepared: Sequence[Prepared[R]], deadline: Deadline) -> list[Found]:
    """What searches of one group find, each before it is ``narrowed``; at most ``limits.depth`` each."""
    first = prepared[0]
    deadline.check("search")
    vectors = [each.vector for each in prepared if each.vector is not None]
    if first.neural is not None:
        return [each.neural(deadline) for each in prepared if each.neural is not None]
    if not vectors:
        return [_popular(model, each.target, each.limits) for each in prepared]
    excludes = [each.limits.exclude for each in prepared]
    allowed = [each.limits.allowed for each in prepared]
    index = model.index(first.space, first.target, "target_type")
    return index.search(
        vectors[0][None] if len(vectors) == 1 else np.stack(vectors), first.limits.depth, excludes, allowed
    )


def answer(model: ServedModel, prepared: Prepared[R], deadline: Deadline) -> R:
    """Search for one request alone, and give its response."""
    return prepared.finish(find(model, [prepared], deadline)[0])


def narrowed(model: ServedModel, prepared: Prepared[R], found: Found, deadline: Deadline) -> Found:
    """What was found, as the request's least score and diversity leave it."""
    limits = prepared.limits
    if limits.min_score is not None:
        enough = found.scores >= np.float32(limits.min_score)
        found = replace(found, rows=found.rows[enough], scores=found.scores[enough])
    if not limits.diversity:
        return found
    if model.has_vectors(prepared.space, prepared.target):
        vectors = np.asarray(model.bundle.vectors(prepared.space, prepared.target)[found.rows])
    else:
        vectors = np.zeros((len(found.rows), 1), np.float32)
    return diversify(found, vectors, limits.k, limits.diversity, deadline)


def _popular(model: ServedModel, target: str, limits: Limits) -> Found:
    order = model.popular(target)
    if limits.allowed is not None:
        order = order[limits.allowed.mask[order]]
    exclude = set(limits.exclude.tolist())
    # At most so many must be looked at: a list of all rows would hold up every other call.
    rows = [row for row in order[: limits.depth + len(exclude)].tolist() if row not in exclude][: limits.depth]
    scores = model.bundle.popularity(target)[rows].astype(np.float32)
    return Found(rows=np.array(rows, np.int64), scores=np.nan_to_num(scores), exact=True, scored=len(order))
