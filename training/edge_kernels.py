"""Loops over the edges of an adjacency, compiled: what they hold beside their result is a number for each node.

Arrays that may be missing (weights, times) are passed empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled

Ints = NDArray[np.int64]

NO_WEIGHT, NO_TIMES = np.empty(0, np.float32), np.empty(0, np.int64)

_ROW = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_27, _30, _31 = (np.uint64(bits) for bits in (27, 30, 31))


def row_spans(indptrs: list[Ints], most: int) -> Iterator[tuple[int, int]]:
    """Runs of rows (first, last) with at most ``most`` edges in all of the adjacencies together, or one row.

    They have the same rows.
    """
    total = np.sum([np.asarray(each) for each in indptrs], axis=0)
    first, rows = 0, len(total) - 1
    while first < rows:
        last = int(np.searchsorted(total, total[first] + most, side="right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


@compiled
def kept_indptr(indptr: Ints, keep: NDArray[np.bool_]) -> Ints:
    """``indptr`` of the edges that are kept."""
    out = np.empty(len(indptr), np.int64)
    total = 0
    for row in range(len(indptr) - 1):
        out[row] = total
        for edge in range(indptr[row], indptr[row + 1]):
            total += keep[edge]
    out[-1] = total
    return out


@compiled
def turned(
    indptr: Ints, indices: NDArray[np.int32], weight: NDArray[np.float32], time: Ints, columns: int
) -> tuple[Ints, NDArray[np.int32], NDArray[np.float32], Ints]:
    """The same edges by column, rows ascending: a stable counting sort."""
    out = np.zeros(columns + 1, np.int64)
    for edge in range(len(indices)):
        out[indices[edge] + 1] += 1
    for column in range(columns):
        out[column + 1] += out[column]
    place = out[:-1].copy()
    rows = np.empty(len(indices), np.int32)
    weights = np.empty(len(weight), weight.dtype)
    times = np.empty(len(time), np.int64)
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            to = place[indices[edge]]
            place[indices[edge]] = to + 1
            rows[to] = row
            if len(weight):
                weights[to] = weight[edge]
            if len(time):
                times[to] = time[edge]
    return out, rows, weights, times


@compiled
def pair_parts(
    nodes: Ints,
    indptr: Ints,
    indices: NDArray[np.int32],
    added: np.uint64,
    parts: np.uint64,
    backward: bool,
    out: NDArray[Any],
) -> None:
    """The part below ``parts`` that each edge's pair falls into, by a hash of both ends (SplitMix64), into ``out``.

    ``nodes`` says which node each row is of; ``backward``: the rows are the pairs' second ends.
    """
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            near, far = np.uint64(nodes[row]), np.uint64(indices[edge])
            if backward:
                near, far = far, near
            state = near * _ROW + far + added
            state = (state ^ (state >> _30)) * _MIX_1
            state = (state ^ (state >> _27)) * _MIX_2
            state = state ^ (state >> _31)
            out[edge] = state % parts


@compiled
def pairs_by_part(
    indptr: Ints,
    indices: NDArray[np.int32],
    part: NDArray[Any],
    first_row: int,
    first_column: int,
    place: Ints,
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
) -> None:
    """Write both ends of every edge behind those of its part; ``place`` says where each part goes on."""
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            to = place[part[edge]]
            place[part[edge]] = to + 1
            rows[to] = row + first_row
            columns[to] = indices[edge] + first_column


@compiled
def rows_joined(
    indptr: Ints, indices: NDArray[np.int32], first_column: int, place: NDArray[Any], out: NDArray[Any]
) -> None:
    """Write the neighbours of every row behind what it has; ``place`` says where each row goes on."""
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            out[place[row]] = indices[edge] + first_column
            place[row] += 1


@compiled
def sums_without(
    indptr: Ints,
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    part: NDArray[Any],
    factors: NDArray[np.float32],
    out: NDArray[np.float64],
    count: Ints,
) -> None:
    """Add to ``out[p, row]`` the weighted factors of the row's neighbours that are not of part p, in their order.

    ``count[p, row]`` becomes how many they are. A neighbour without factors is counted alone.
    """
    parts, width = out.shape[0], out.shape[2]
    scaled = np.empty(width, np.float64)
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            neighbour = indices[edge]
            known = neighbour < len(factors)
            if known:
                for column in range(width):
                    scaled[column] = factors[neighbour, column] * weight[edge]
            for other in range(parts):
                if other == part[edge]:
                    continue
                count[other, row] += 1
                if known:
                    for column in range(width):
                        out[other, row, column] += scaled[column]
