"""Exact scores of the candidates an index chose, and the best of them: compiled, for it is done for every search."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled, compiled_with

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

_NONE = np.empty(0, np.int64)


def scores_of(vectors: Vectors, query: Vectors) -> Vectors:
    """Inner products ``[N]`` of ``vectors [N, dimension]`` with one query, each row summed in the same order.

    A matrix product sums a row differently by its place in the matrix, so equal vectors would not tie; this does not.
    """
    scores = np.empty(len(vectors), np.float32)
    _scores(np.ascontiguousarray(vectors), np.ascontiguousarray(query), scores)
    return scores


def lengths_of(vectors: Vectors) -> Vectors:
    """Lengths ``[N]`` of ``vectors [N, dimension]``, each the same to the last bit whichever rows are beside it."""
    squares = np.empty(len(vectors), np.float32)
    _squares(np.ascontiguousarray(vectors), squares)
    return cast(Vectors, np.sqrt(squares, out=squares))


def length_of(vector: Vectors) -> float:
    """The length of one vector, as ``lengths_of`` gives it."""
    return float(_length(vector))


def best_candidates(
    vectors: Vectors, query: Vectors, candidates: NDArray[Any], exclude: Rows | None, k: int
) -> tuple[Rows, Vectors]:
    """The k best by score, ties by row, among ``candidates`` (rows) less those of ``exclude``."""
    rows, scores = np.empty(k, np.int64), np.empty(k, np.float32)
    left_out = _NONE if exclude is None else exclude if len(exclude) < 2 else np.sort(exclude)
    count = _best(vectors, query, candidates, left_out, rows, scores)
    return (rows, scores) if count == k else (rows[:count], scores[:count])


def best_of_each(
    vectors: Vectors, queries: Vectors, candidates: NDArray[Any], exclude: Rows, k: int
) -> tuple[Rows, Vectors, Rows]:
    """The same for each of ``queries [B, dimension]`` with its ``candidates [B, C]``: rows, scores ``[B, k]``, counts.

    ``exclude [B]``: one row for each to leave out, or -1. Candidates that are no rows are passed over.
    """
    shape = len(queries), k
    rows, scores, counts = np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(len(queries), np.int64)
    _best_of_each(vectors, queries, candidates, exclude, rows, scores, counts)
    return rows, scores, counts


# The compiler may add up several products at once (reassoc), and does so in one way for vectors of one length: equal
# vectors tie, whoever asks. A test holds it to that.
@compiled_with(fastmath=("reassoc",))
def _score(vector: Any, query: Any) -> Any:
    total = np.float32(0)
    for place in range(len(query)):
        total += vector[place] * query[place]
    return total


@compiled
def _scores(vectors: Any, query: Any, scores: Any) -> None:
    for row in range(len(vectors)):
        scores[row] = _score(vectors[row], query)


@compiled
def _squares(vectors: Any, squares: Any) -> None:
    for row in range(len(vectors)):
        squares[row] = _score(vectors[row], vectors[row])


@compiled
def _length(vector: Any) -> Any:
    return np.sqrt(_score(vector, vector))


@compiled
def _best(vectors: Any, query: Any, candidates: Any, excluded: Any, rows: Any, scores: Any) -> int:
    count, most, left, known = 0, len(rows), len(excluded), len(vectors)
    # All scores first: nothing between them hangs on one, so that the processor fetches several vectors at a time.
    found = np.empty(len(candidates), np.float32)
    for number in range(len(candidates)):
        row = np.int64(candidates[number])
        if row >= 0 and row < known:
            found[number] = _score(vectors[row], query)
    for number in range(len(candidates)):
        row = np.int64(candidates[number])
        if row < 0 or row >= known:
            continue
        if left == 1:
            if row == excluded[0]:
                continue
        elif left:
            near = np.searchsorted(excluded, row)
            if near < left and excluded[near] == row:
                continue
        score = found[number]
        if count == most and (score < scores[most - 1] or (score == scores[most - 1] and row > rows[most - 1])):
            continue
        place = count if count < most else most - 1
        while place > 0 and (scores[place - 1] < score or (scores[place - 1] == score and rows[place - 1] > row)):
            scores[place], rows[place] = scores[place - 1], rows[place - 1]
            place -= 1
        scores[place], rows[place] = score, row
        if count < most:
            count += 1
    return count


@compiled
def _best_of_each(
    vectors: Any, queries: Any, candidates: Any, exclude: Any, rows: Any, scores: Any, counts: Any
) -> None:
    for number in range(len(queries)):
        counts[number] = _best(
            vectors, queries[number], candidates[number], exclude[number : number + 1], rows[number], scores[number]
        )
