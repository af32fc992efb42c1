"""The compiled steps of a beam search: the two heaps, and the neighbours of what is expanded.

Positions are numbers of scored entities, in the order they were scored; ``rows`` and ``scores`` are read through them.
The *frontier* is a heap of positions not yet expanded, the best on top; *kept* one of the best ``size`` that may be
answered, the worst on top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled

Ints = NDArray[np.int64]
Scores = NDArray[np.float32]


@compiled
def _better(rows: Ints, scores: Scores, one: int, other: int) -> bool:
    if scores[one] != scores[other]:
        return bool(scores[one] > scores[other])
    return bool(rows[one] < rows[other])


@compiled
def _before(rows: Ints, scores: Scores, one: int, other: int, best_on_top: bool) -> bool:
    return _better(rows, scores, one, other) if best_on_top else _better(rows, scores, other, one)


@compiled
def _rise(rows: Ints, scores: Scores, heap: Ints, place: int, best_on_top: bool) -> None:
    position = heap[place]
    while place > 0:
        parent = (place - 1) // 2
        if not _before(rows, scores, position, heap[parent], best_on_top):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = position


@compiled
def _sink(rows: Ints, scores: Scores, heap: Ints, filled: int, best_on_top: bool) -> None:
    position = heap[0]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= filled:
            break
        if child + 1 < filled and _before(rows, scores, heap[child + 1], heap[child], best_on_top):
            child += 1
        if not _before(rows, scores, heap[child], position, best_on_top):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = position


@compiled
def push(
    rows: Ints,
    scores: Scores,
    first: int,
    last: int,
    allowed: NDArray[np.bool_],
    frontier: Ints,
    waiting: int,
    kept: Ints,
    filled: int,
) -> tuple[int, int]:
    """Take up positions ``first`` to ``last``; returns how many the frontier and the kept then hold.

    ``allowed`` ``[entities]`` says what may be answered, an empty array that everything may. What is worse than all of
    a full ``kept`` is in neither: it would never be expanded.
    """
    size = len(kept)
    for position in range(first, last):
        if filled == size and not _better(rows, scores, position, kept[0]):
            continue
        frontier[waiting] = position
        waiting += 1
        _rise(rows, scores, frontier, waiting - 1, True)
        if len(allowed) and not allowed[rows[position]]:
            continue
        if filled < size:
            kept[filled] = position
            filled += 1
            _rise(rows, scores, kept, filled - 1, False)
        else:
            kept[0] = position
            _sink(rows, scores, kept, filled, False)
    return waiting, filled


@compiled
def expand(
    rows: Ints,
    scores: Scores,
    frontier: Ints,
    waiting: int,
    kept: Ints,
    filled: int,
    width: int,
    nodes: Ints,
    indptr: Ints,
    indices: NDArray[np.int32],
    visited: NDArray[np.bool_],
    found: Ints,
) -> tuple[int, int]:
    """Write the unvisited neighbours of the best ``width`` of the frontier to ``found``, the best node's first.

    Returns how many the frontier holds then, and how many were found, which are marked as visited. Nothing is left to
    expand where the frontier is empty or its best is worse than a full ``kept``. Where ``nodes`` is empty, a row is its
    own place in ``indptr``.
    """
    count = 0
    for _ in range(width):
        if waiting == 0:
            break
        position = frontier[0]
        if filled == len(kept) and _better(rows, scores, kept[0], position):
            waiting = 0
            break
        waiting -= 1
        frontier[0] = frontier[waiting]
        if waiting:
            _sink(rows, scores, frontier, waiting, True)
        place = rows[position] if len(nodes) == 0 else np.searchsorted(nodes, rows[position])
        for edge in range(indptr[place], indptr[place + 1]):
            neighbour = indices[edge]
            if not visited[neighbour]:
                visited[neighbour] = True
                found[count] = neighbour
                count += 1
    return waiting, count
