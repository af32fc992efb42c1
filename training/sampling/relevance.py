"""The inner loops of regions of interest, compiled: they run without the interpreter's lock."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

# Numba's cache looks at this file alone: whoever changes these there has to touch this file too.
from model_store.compiled import compiled
from training.sampling.draw_before import _until


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> np.float32:
    """Inner product; the terms may be added in any order, so that the processor adds several at once."""
    total = np.float32(0.0)
    for number in range(len(left)):
        total += left[number] * right[number]
    return total


@compiled
def _relevance(product: np.float32, square: np.float32, other: np.float32, tanimoto: bool) -> np.float32:
    """Relevance of two vectors from their inner product and squared lengths; 0 where there is nothing to divide by."""
    below = square + other - product if tanimoto else np.float32(np.sqrt(square * other))
    return product / below if below > 0 else np.float32(0.0)


@compiled
def _after(
    relevance: NDArray[np.float32], neighbour: NDArray[np.int64], position: NDArray[np.int64], left: int, right: int
) -> bool:
    """Whether the left candidate comes after the right one: less relevant, then the greater index, then position."""
    if relevance[left] != relevance[right]:
        return bool(relevance[left] < relevance[right])
    if neighbour[left] != neighbour[right]:
        return bool(neighbour[left] > neighbour[right])
    return bool(position[left] > position[right])


@compiled
def _swap(
    relevance: NDArray[np.float32], neighbour: NDArray[np.int64], position: NDArray[np.int64], left: int, right: int
) -> None:
    relevance[left], relevance[right] = relevance[right], relevance[left]
    neighbour[left], neighbour[right] = neighbour[right], neighbour[left]
    position[left], position[right] = position[right], position[left]


@compiled
def _sift_down(
    relevance: NDArray[np.float32], neighbour: NDArray[np.int64], position: NDArray[np.int64], start: int, count: int
) -> None:
    """Restore a heap whose root is the candidate that comes last, below ``start``."""
    parent = start
    while True:
        child = 2 * parent + 1
        if child >= count:
            return
        if child + 1 < count and _after(relevance, neighbour, position, child + 1, child):
            child += 1
        if not _after(relevance, neighbour, position, child, parent):
            return
        _swap(relevance, neighbour, position, child, parent)
        parent = child


@compiled
def most_relevant(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    time: NDArray[np.int64],
    nodes: NDArray[np.int64],
    limit: NDArray[np.int64],
    row: NDArray[np.int64],
    focal: NDArray[np.float32],
    vectors: NDArray[np.float32],
    squares: NDArray[np.float32],
    top: int,
    tanimoto: bool,
    apart: NDArray[np.int64],
    left_out_nodes: NDArray[np.int64],
    left_out_neighbours: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The ``top`` (-1: all) edges of each node whose neighbours are the most relevant to its focal vector.

    ``time`` ascends within a row (empty: no times); only edges before a node's ``limit`` [nodes] are there. ``row``
    [nodes] says which row of ``focal`` [F, d] is each node's. ``vectors`` [M, d] are the neighbours', ``squares`` [M]
    their squared lengths. Left out are the edges of each node to ``apart`` [nodes] (-1: none) and ``left_out_*``, pairs
    sorted by node, then neighbour. Ties go to the lower index. Returns positions in ``indices``, the most relevant
    first, the place in ``nodes`` each belongs to, and the relevance, each ``[E]``.
    """
    total = 0
    widest = 0
    for place in range(len(nodes)):
        degree = indptr[nodes[place] + 1] - indptr[nodes[place]]
        total += degree if top < 0 else min(degree, top)
        widest = max(widest, degree)
    positions = np.empty(total, dtype=np.int64)
    owners = np.empty(total, dtype=np.int64)
    found = np.empty(total, dtype=np.float32)
    size = widest if top < 0 else min(widest, top)
    relevance = np.empty(size, dtype=np.float32)
    neighbour = np.empty(size, dtype=np.int64)
    position = np.empty(size, dtype=np.int64)
    out = 0
    for place in range(len(nodes)):
        node = nodes[place]
        wanted = focal[row[place]]
        square = _dot(wanted, wanted)
        low = np.searchsorted(left_out_nodes, node)
        high = np.searchsorted(left_out_nodes, node, side="right")
        count = 0
        for each in range(indptr[node], _until(time, indptr[node], indptr[node + 1], limit[place])):
            other = indices[each]
            if other == apart[place]:
                continue
            if high > low:
                hit = low + np.searchsorted(left_out_neighbours[low:high], other)
                if hit < high and left_out_neighbours[hit] == other:
                    continue
            value = _relevance(_dot(wanted, vectors[other]), square, squares[other], tanimoto)
            if count < size:
                relevance[count], neighbour[count], position[count] = value, other, each
                count += 1
                if count == size:
                    for start in range(size // 2 - 1, -1, -1):
                        _sift_down(relevance, neighbour, position, start, size)
            elif value > relevance[0] or (value == relevance[0] and other < neighbour[0]):
                # Better than the last of those kept, which stands at the root.
                relevance[0], neighbour[0], position[0] = value, other, each
                _sift_down(relevance, neighbour, position, 0, size)
        if count < size:
            for start in range(count // 2 - 1, -1, -1):
                _sift_down(relevance, neighbour, position, start, count)
        # Heap sort: the last goes to the end, until the first is left.
        for end in range(count - 1, 0, -1):
            _swap(relevance, neighbour, position, 0, end)
            _sift_down(relevance, neighbour, position, 0, end)
        for number in range(count):
            positions[out] = position[number]
            found[out] = relevance[number]
            owners[out] = place
            out += 1
    return positions[:out], owners[:out], found[:out]
