"""The insertion of HNSW, compiled (Malkov and Yashunin 2018, arXiv 1603.09320, algorithms 1 to 4).

A layer's neighbours stand in one array of slots: those of ``node`` on layer 0 in ``ground[node]``, on layer l > 0 in
``upper[offsets[node] + l - 1]``; -1 marks an empty slot. One thread, so that the graph follows from its inputs alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled_with

# Sums may be taken in another order, so that a distance uses vector instructions.
_compiled = compiled_with(fastmath=("reassoc", "contract"))


@_compiled
def _distance(vectors: NDArray[np.float32], a: int, b: int) -> np.floating[Any]:
    total = np.float32(0.0)
    for column in range(vectors.shape[1]):
        difference = vectors[a, column] - vectors[b, column]
        total += difference * difference
    return total


@_compiled
def _slots(
    ground: NDArray[np.int32], upper: NDArray[np.int32], offsets: NDArray[np.int64], node: int, level: int
) -> NDArray[np.int32]:
    slots: NDArray[np.int32] = ground[node] if level == 0 else upper[offsets[node] + level - 1]
    return slots


@_compiled
def _nearest(
    vectors: NDArray[np.float32],
    ground: NDArray[np.int32],
    upper: NDArray[np.int32],
    offsets: NDArray[np.int64],
    query: int,
    level: int,
    found: NDArray[np.int64],
    distances: NDArray[np.float32],
    filled: int,
    visited: NDArray[np.int64],
    stamp: int,
    expanded: NDArray[np.bool_],
) -> int:
    """Algorithm 2 from the first ``filled`` of ``found`` (sorted by distance); returns how many there are then.

    ``found`` and ``distances`` hold ef entries, kept sorted; ``visited[node] == stamp`` marks a node looked at.
    """
    size = len(found)
    for place in range(filled):
        visited[found[place]] = stamp
        expanded[place] = False
    first = 0
    while first < filled:
        if expanded[first]:
            first += 1
            continue
        expanded[first] = True
        node = found[first]
        for neighbour in _slots(ground, upper, offsets, node, level):
            if neighbour < 0:
                break
            if visited[neighbour] == stamp:
                continue
            visited[neighbour] = stamp
            far = _distance(vectors, query, neighbour)
            if filled == size and far >= distances[filled - 1]:
                continue
            place = filled if filled < size else size - 1
            while place > 0 and distances[place - 1] > far:
                found[place], distances[place] = found[place - 1], distances[place - 1]
                expanded[place] = expanded[place - 1]
                place -= 1
            found[place], distances[place], expanded[place] = neighbour, far, False
            if filled < size:
                filled += 1
            first = min(first, place)
    return filled


@_compiled
def _choose(
    vectors: NDArray[np.float32],
    found: NDArray[np.int64],
    distances: NDArray[np.float32],
    filled: int,
    limit: int,
    chosen: NDArray[np.int64],
) -> int:
    """Algorithm 4: candidates, nearest first, that are nearer to the node than to any chosen before; how many."""
    count = 0
    for place in range(filled):
        if count == limit:
            break
        keep = True
        for other in range(count):
            if _distance(vectors, found[place], chosen[other]) < distances[place]:
                keep = False
                break
        if keep:
            chosen[count] = found[place]
            count += 1
    return count


@_compiled
def _link_back(
    vectors: NDArray[np.float32],
    slots: NDArray[np.int32],
    node: int,
    new: int,
    found: NDArray[np.int64],
    distances: NDArray[np.float32],
    chosen: NDArray[np.int64],
) -> None:
    """Make ``new`` a neighbour of ``node``; where its slots are full, choose again among all of them."""
    limit = len(slots)
    filled = 0
    while filled < limit and slots[filled] >= 0:
        filled += 1
    if filled < limit:
        slots[filled] = new
        return
    for number in range(limit + 1):
        other = new if number == limit else slots[number]
        far = _distance(vectors, node, other)
        place = number
        while place > 0 and distances[place - 1] > far:
            found[place], distances[place] = found[place - 1], distances[place - 1]
            place -= 1
        found[place], distances[place] = other, far
    count = _choose(vectors, found, distances, limit + 1, limit, chosen)
    for number in range(limit):
        slots[number] = chosen[number] if number < count else -1


@_compiled
def insert_all(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    levels: NDArray[np.int64],
    offsets: NDArray[np.int64],
    ground: NDArray[np.int32],
    upper: NDArray[np.int32],
    candidates: int,
    entry: int,
    start: int,
    stop: int,
    visited: NDArray[np.int64],
    stamp: int,
) -> tuple[int, int]:
    """Insert ``order[start:stop]``; ``entry`` is where a search begins, -1 in an empty graph.

    ``visited`` ``[N]`` and ``stamp`` are the marks of searches before, -1 and 0 at first. Returns the new entry, stamp.
    """
    neighbours = upper.shape[1]
    size = max(candidates, neighbours)
    found = np.empty(size, np.int64)
    distances = np.empty(size, np.float32)
    expanded = np.empty(size, np.bool_)
    one, one_distance, one_expanded = np.empty(1, np.int64), np.empty(1, np.float32), np.empty(1, np.bool_)
    chosen = np.empty(ground.shape[1] + 1, np.int64)
    again, again_distances = np.empty(ground.shape[1] + 1, np.int64), np.empty(ground.shape[1] + 1, np.float32)
    kept = np.empty(neighbours, np.int64)
    for number in range(start, stop):
        node = order[number]
        if entry < 0:
            entry = node
            continue
        one[0], one_distance[0] = entry, _distance(vectors, node, entry)
        for level in range(levels[entry], levels[node], -1):
            stamp += 1
            _nearest(vectors, ground, upper, offsets, node, level, one, one_distance, 1, visited, stamp, one_expanded)
        found[0], distances[0] = one[0], one_distance[0]
        filled = 1
        for level in range(min(levels[node], levels[entry]), -1, -1):
            stamp += 1
            filled = _nearest(
                vectors, ground, upper, offsets, node, level, found, distances, filled, visited, stamp, expanded
            )
            count = _choose(vectors, found, distances, filled, neighbours, kept)
            slots = _slots(ground, upper, offsets, node, level)
            for place in range(count):
                slots[place] = kept[place]
            for place in range(count):
                other = kept[place]
                _link_back(
                    vectors,
                    _slots(ground, upper, offsets, other, level),
                    other,
                    node,
                    again,
                    again_distances,
                    chosen,
                )
        if levels[node] > levels[entry]:
            entry = node
    return entry, stamp
