"""The inner loops of disjoint sampling, compiled: edges before a time, and nodes found again within their example."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Numba's cache looks at this file alone: whoever changes these in ``draw`` has to touch this file too.
from model_store.compiled import compiled
from training.sampling.draw import _GOLDEN, _below, _mix

Nodes = NDArray[np.int64]


@compiled
def _until(time: Nodes, start: int, stop: int, limit: int) -> int:
    """First position of the row at or after the limit; its end where there are no times."""
    if len(time) == 0:
        return stop
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if time[middle] < limit:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def count_before(
    indptr: Nodes, indices: NDArray[np.int32], time: Nodes, nodes: Nodes, limit: Nodes, left_out: Nodes
) -> Nodes:
    """How many edges each node has before its limit, those to ``left_out`` (-1: none) not counted ``[nodes]``."""
    degree = np.empty(len(nodes), dtype=np.int64)
    for place in range(len(nodes)):
        start = indptr[nodes[place]]
        stop = _until(time, start, indptr[nodes[place] + 1], limit[place])
        degree[place] = stop - start
        if left_out[place] >= 0:
            for position in range(start, stop):
                if indices[position] == left_out[place]:
                    degree[place] -= 1
    return degree


@compiled
def draw_before(
    indptr: Nodes,
    indices: NDArray[np.int32],
    time: Nodes,
    nodes: Nodes,
    limit: Nodes,
    left_out: Nodes,
    fan_out: int,
    newest: bool,
    state: np.uint64,
) -> tuple[Nodes, Nodes]:
    """Up to ``fan_out`` (-1: all) edges of each node before its limit, none to ``left_out`` (-1: none).

    ``time`` ascends within a row (empty: no times). Drawn without replacement, or the ``newest``. Returns positions in
    ``indices``, ascending per node, and the place in ``nodes`` each belongs to, both int64 ``[E]``.
    """
    degree = count_before(indptr, indices, time, nodes, limit, left_out)
    total = 0
    widest = 0
    for place in range(len(nodes)):
        total += degree[place] if fan_out < 0 else min(degree[place], fan_out)
        widest = max(widest, degree[place])
    positions = np.empty(total, dtype=np.int64)
    owners = np.empty(total, dtype=np.int64)
    allowed = np.empty(widest, dtype=np.int64)
    out = 0
    for place in range(len(nodes)):
        start = indptr[nodes[place]]
        stop = _until(time, start, indptr[nodes[place] + 1], limit[place])
        known = 0
        for position in range(start, stop):
            if indices[position] != left_out[place]:
                allowed[known] = position
                known += 1
        kept = known if fan_out < 0 else min(known, fan_out)
        first = out
        if kept == known or newest:
            for number in range(known - kept, known):
                positions[out] = allowed[number]
                out += 1
        else:
            # Selection by exchange (Fisher and Yates): the row is written out already, so kept draws are all it takes.
            own = _mix(state + np.uint64(place) * _GOLDEN)
            for number in range(kept):
                own += _GOLDEN
                chosen = number + _below(own, known - number)
                allowed[number], allowed[chosen] = allowed[chosen], allowed[number]
                positions[out] = allowed[number]
                out += 1
            positions[first:out].sort()
        for drawn in range(first, out):
            owners[drawn] = place
    return positions, owners


@compiled
def _slot(keys: Nodes, key: np.int64) -> np.int64:
    """Where a key stands in the table, or the free slot where it belongs; the table is never full."""
    mask = len(keys) - 1
    slot = np.int64(_mix(np.uint64(key)) & np.uint64(mask))
    while keys[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def find_or_add(keys: Nodes, values: Nodes, wanted: Nodes, count: int) -> tuple[Nodes, Nodes]:
    """The number of each key, and the keys that were new, numbered from ``count`` on; the table takes them in."""
    numbers = np.empty(len(wanted), dtype=np.int64)
    new = np.empty(len(wanted), dtype=np.int64)
    added = 0
    for place in range(len(wanted)):
        slot = _slot(keys, wanted[place])
        if keys[slot] < 0:
            keys[slot] = wanted[place]
            values[slot] = count + added
            new[added] = wanted[place]
            added += 1
        numbers[place] = values[slot]
    return numbers, new[:added]


@compiled
def _moved(keys: Nodes, values: Nodes, into_keys: Nodes, into_values: Nodes) -> None:
    for slot in range(len(keys)):
        if keys[slot] >= 0:
            place = _slot(into_keys, keys[slot])
            into_keys[place] = keys[slot]
            into_values[place] = values[slot]


def grown(table: tuple[Nodes, Nodes], entries: int) -> tuple[Nodes, Nodes]:
    """The hash table (keys, -1: free; values) with room for so many entries at a load of one half."""
    size = 1 << max(int(2 * entries).bit_length(), 4)
    if len(table[0]) >= size:
        return table
    wider = np.full(size, -1, dtype=np.int64), np.empty(size, dtype=np.int64)
    _moved(*table, *wider)
    return wider
