"""The seam to nearest-neighbour search over the vectors of one node type in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.index.planner import SearchPath
from server.index.rescoring import best_candidates, length_of, lengths_of
from server.index.selection import Selection

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

_UNIT = np.float32(1e-5)
"""A length that differs less from 1 is 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one query found: best first, ties by row (which is by id)."""

    rows: Rows
    """int64 ``[found]``, rows of the node type."""
    scores: Vectors
    """float32 ``[found]``, inner products computed from the float vectors."""
    exact: bool
    """True where every candidate was scored."""
    scored: int
    """Candidates scored exactly."""
    path: SearchPath = SearchPath.ALL
    """What was read."""
    truncated: bool = False
    """It ended at the deadline, with the best so far (neural search)."""
    network_calls: int = 0
    """Of the neural scorer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundEach:
    """What the queries of a batch found, as arrays."""

    rows: Rows
    """int64 ``[B, k]``, of which the first ``counts`` of each query are found."""
    scores: Vectors
    """float32 ``[B, k]``."""
    counts: Rows
    """int64 ``[B]``."""
    exact: NDArray[np.bool_]
    """``[B]``"""
    scored: Rows
    """int64 ``[B]``."""
    paths: tuple[SearchPath, ...]
    """``[B]``"""

    @classmethod
    def of(cls, found: Sequence[Found], k: int) -> FoundEach:
        """Single results together."""
        rows, scores = np.zeros((len(found), k), np.int64), np.zeros((len(found), k), np.float32)
        for number, one in enumerate(found):
            rows[number, : len(one.rows)], scores[number, : len(one.rows)] = one.rows, one.scores
        return cls(
            rows=rows,
            scores=scores,
            counts=np.array([len(one.rows) for one in found], np.int64),
            exact=np.array([one.exact for one in found], np.bool_),
            scored=np.array([one.scored for one in found], np.int64),
            paths=tuple(one.path for one in found),
        )

    def replaced(self, others: Mapping[int, Found]) -> FoundEach:
        """With other results for some of the queries."""
        if not others:
            return self
        found = [others.get(number) or self.one(number) for number in range(len(self.rows))]
        return FoundEach.of(found, self.rows.shape[1])

    def one(self, number: int) -> Found:
        """The result of one query."""
        count = int(self.counts[number])
        return Found(
            rows=self.rows[number, :count],
            scores=self.scores[number, :count],
            exact=bool(self.exact[number]),
            scored=int(self.scored[number]),
            path=self.paths[number],
        )


class VectorIndex(Protocol):
    """The k vectors of largest inner product with a query (cosine, where both have length 1).

    Nodes whose vector is all zeros (nothing is known of them) are never returned.
    """

    kind: str
    """``exact`` or ``scann``."""

    def __len__(self) -> int:
        """Vectors that can be found."""
        ...

    def search(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None = None,
        allowed: Sequence[Selection | None] | None = None,
    ) -> list[Found]:
        """Search for each of ``queries`` float32 ``[B, dimension]``.

        ``exclude``: rows to leave out, one array a query; ``allowed``: rows that may be found, one selection a query
        (None: all). Fewer than k come back only where fewer than k are there.
        """
        ...

    def search_one(self, query: Vectors, k: int, exclude: Rows) -> Found:
        """What ``search`` finds for one query ``[dimension]``, in less time."""
        ...

    def search_each(self, queries: Vectors, k: int, exclude: Rows) -> FoundEach:
        """What ``search`` finds, each query with one row of ``exclude [B]`` left out (-1: none), in less time."""
        ...


def lists_of(exclude: Rows) -> list[Rows]:
    """Rows to leave out as ``search`` takes them, of those that ``search_each`` takes."""
    return [exclude[number : number + (row >= 0)] for number, row in enumerate(exclude.tolist())]


def known_rows(vectors: Vectors) -> Rows | None:
    """Rows with a vector that is not all zeros; None where that is every row."""
    known = np.asarray(vectors.any(axis=1))
    return None if known.all() else np.flatnonzero(known)


def unit_rows(vectors: Vectors) -> Vectors:
    """The vectors scaled to length 1 (zeros stay); the same array where they have it already.

    A row comes out the same to the last bit whichever rows are beside it: an item of a batch answers as its call alone.
    """
    lengths = lengths_of(vectors)
    off = (np.abs(lengths - 1) >= _UNIT) & (lengths != 0)
    if not off.any():
        return vectors
    units = np.array(vectors, dtype=np.float32)
    units[off] /= lengths[off, None]
    return units


def unit_row(vector: Vectors) -> Vectors:
    """One vector as ``unit_rows`` gives it, to the last bit, in a fifth of the time."""
    length = np.float32(length_of(vector))
    return np.asarray(vector / length) if length and abs(length - 1) >= _UNIT else vector


def best_first(rows: Rows, scores: Vectors, k: int) -> tuple[Rows, Vectors]:
    """The k best by score, ties by row."""
    if len(rows) > 8 * k:
        # Of many candidates most are sorted in vain.
        some = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[some], scores[some]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def best_of_rows(vectors: Vectors, query: Vectors, k: int, rows: Rows, is_known: NDArray[np.bool_] | None) -> Found:
    """The k best of the given rows, each scored; ``is_known``: which rows of all have a vector (None: every one)."""
    if is_known is not None:
        rows = rows[is_known[rows]]
    best, scores = best_candidates(vectors, query, rows, None, min(k, len(rows)))
    return Found(rows=best, scores=scores, exact=True, scored=len(rows), path=SearchPath.ROWS)
