"""The inner loops of random walks, compiled: they run without the interpreter's lock.

All walkers of a batch take a step together: their reads of memory do not wait for each other, which a walk followed to
its end would make them do. Every walker has its own stream of random numbers (SplitMix64, as in ``draw``), so that a
walk depends on its node and number alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Numba's cache looks at this file alone: whoever changes these in ``draw`` has to touch this file too.
from model_store.compiled import compiled
from training.sampling.draw import _GOLDEN, _below, _mix

_LOW = np.uint64(0xFFFFFFFF)
_11 = np.uint64(11)
_2_32 = 2.0**32

_BLOCK = 256
"""Walkers whose reads of memory are under way together."""
_REDRAWS = 8
"""Draws that may meet a left-out edge before the row is walked through; either way the chances are exact."""


@compiled
def alias_table(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], weight: NDArray[np.float32]
) -> NDArray[np.uint32]:
    """A draw in proportion to weight in constant time (Walker 1977; tables as in Vose 1991), 8 bytes an edge.

    Returns ``[E, 2]``: out of 2^32, the share of the edge's slot that is its own, and the neighbour who has the rest.
    A row whose weights are all 0 has no way out: its neighbours are 2^32 - 1, -1 as int32.
    """
    table = np.empty((len(indices), 2), dtype=np.uint32)
    widest = 0
    for row in range(len(indptr) - 1):
        widest = max(widest, indptr[row + 1] - indptr[row])
    share = np.empty(widest, dtype=np.float64)
    waiting = np.empty(widest, dtype=np.int64)
    for row in range(len(indptr) - 1):
        start = indptr[row]
        degree = indptr[row + 1] - start
        total = 0.0
        heaviest = start
        for position in range(start, start + degree):
            total += weight[position]
            if weight[position] > weight[heaviest]:
                heaviest = position
        if total == 0.0:
            for position in range(start, start + degree):
                table[position, 0] = np.uint32(0)
                table[position, 1] = np.uint32(0xFFFFFFFF)
            continue
        # One stack at either end of ``waiting``: slots not full on the left, slots too full on the right.
        few, many = 0, degree
        for slot in range(degree):
            share[slot] = weight[start + slot] / total * degree
            if share[slot] < 1.0:
                waiting[few] = slot
                few += 1
            else:
                many -= 1
                waiting[many] = slot
        while few > 0 and many < degree:
            few -= 1
            poor, rich = waiting[few], waiting[many]
            table[start + poor, 0] = np.uint32(min(share[poor] * _2_32, _2_32 - 1.0))
            table[start + poor, 1] = np.uint32(indices[start + rich])
            share[rich] -= 1.0 - share[poor]
            if share[rich] < 1.0:
                many += 1
                waiting[few] = rich
                few += 1
        # What is left is full but for rounding; a weight of 0 must stay without a chance all the same.
        for place in range(degree):
            if place < few or place >= many:
                slot = waiting[place]
                kept = slot if weight[start + slot] > 0 else heaviest - start
                table[start + slot, 0] = np.uint32(0)
                table[start + slot, 1] = np.uint32(indices[start + kept])
    return table


@compiled
def begin(nodes: NDArray[np.int64], walks: int, state: np.uint64) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Walkers ``[n * walks]``, those of a node side by side: where they are, and the state of their random numbers."""
    current = np.empty(len(nodes) * walks, dtype=np.int32)
    states = np.empty(len(nodes) * walks, dtype=np.uint64)
    for place in range(len(nodes)):
        own = _mix(state + np.uint64(nodes[place]) * _GOLDEN)
        for walk in range(walks):
            current[place * walks + walk] = nodes[place]
            states[place * walks + walk] = _mix(own + np.uint64(walk) * _GOLDEN)
    return current, states


@compiled
def _left_out(neighbour: int, low: int, high: int, neighbours: NDArray[np.int64]) -> bool:
    place = low + np.searchsorted(neighbours[low:high], neighbour)
    return bool(place < high and neighbours[place] == neighbour)


@compiled
def _drawn(indices: NDArray[np.int32], table: NDArray[np.uint32], slot: int, state: np.uint64) -> int:
    """The neighbour of a slot, or the other who shares it (see ``alias_table``); -1 where all weights are 0.

    The slot was drawn by the upper half of the number, the side is by the lower.
    """
    own = int(indices[slot])
    if len(table) == 0:
        return own
    other = int(np.int32(table[slot, 1]))
    return own if (_mix(state) & _LOW) < np.uint64(table[slot, 0]) else other


@compiled
def _scanned(
    indices: NDArray[np.int32],
    weight: NDArray[np.float32],
    start: int,
    stop: int,
    low: int,
    high: int,
    neighbours: NDArray[np.int64],
    state: np.uint64,
) -> int:
    """A neighbour that is not left out, by walking through the row twice; -1 where there is none."""
    total = 0.0
    last = -1
    for position in range(start, stop):
        own = weight[position] if len(weight) else 1.0
        if own > 0 and not _left_out(indices[position], low, high, neighbours):
            total += own
            last = indices[position]
    rest = (_mix(state) >> _11) * 2.0**-53 * total
    for position in range(start, stop):
        own = weight[position] if len(weight) else 1.0
        if own > 0 and not _left_out(indices[position], low, high, neighbours):
            rest -= own
            if rest < 0:
                return int(indices[position])
    return last


@compiled
def step(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    table: NDArray[np.uint32],
    weight: NDArray[np.float32],
    current: NDArray[np.int32],
    states: NDArray[np.uint64],
    left_out_nodes: NDArray[np.int64],
    left_out_neighbours: NDArray[np.int64],
) -> None:
    """Move each walker to a neighbour, in place; to -1 where no edge leads on.

    ``table`` (see ``alias_table``) and ``weight`` are empty where every edge weighs 1. ``left_out_*`` are pairs sorted
    by node, then neighbour: the draw is from the row without them.
    """
    if len(indices) == 0:
        current[:] = -1
        return
    slots = np.empty(_BLOCK, dtype=np.int64)
    before = np.empty(_BLOCK, dtype=np.int32)
    for first in range(0, len(current), _BLOCK):
        count = min(_BLOCK, len(current) - first)
        # Two loops without branches, so that many reads of memory are under way at once.
        for number in range(count):
            node = current[first + number]
            row = max(node, 0)
            start = indptr[row]
            degree = indptr[row + 1] - start
            states[first + number] += _GOLDEN
            slot = start + _below(states[first + number], degree)
            slots[number] = slot if node >= 0 and degree > 0 else -1
            before[number] = node
        for number in range(count):
            slot = slots[number]
            neighbour = _drawn(indices, table, max(slot, 0), states[first + number])
            current[first + number] = neighbour if slot >= 0 else -1
        if len(left_out_nodes):
            for number in range(count):
                node, walker = before[number], first + number
                low = np.searchsorted(left_out_nodes, node)
                if low == len(left_out_nodes) or left_out_nodes[low] != node or current[walker] < 0:
                    continue
                high = np.searchsorted(left_out_nodes, node, side="right")
                start, stop = indptr[node], indptr[node + 1]
                tries = 0
                while _left_out(current[walker], low, high, left_out_neighbours):
                    states[walker] += _GOLDEN
                    tries += 1
                    if tries == _REDRAWS:
                        current[walker] = _scanned(
                            indices, weight, start, stop, low, high, left_out_neighbours, states[walker]
                        )
                        break
                    slot = start + _below(states[walker], stop - start)
                    current[walker] = _drawn(indices, table, slot, states[walker])


@compiled
def restart(
    current: NDArray[np.int32],
    nodes: NDArray[np.int64],
    states: NDArray[np.uint64],
    probability: float,
) -> None:
    """Put walkers back to their node, in place: each with the probability, and all that met a dead end."""
    walks = len(current) // max(len(nodes), 1)
    for walker in range(len(current)):
        states[walker] += _GOLDEN
        if current[walker] < 0 or (_mix(states[walker]) >> _11) * 2.0**-53 < probability:
            current[walker] = nodes[walker // walks]


@compiled
def most_visited(
    visits: NDArray[np.int32], nodes: NDArray[np.int64], top: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """The up to ``top`` most visited of each node, itself and -1 left out; ties by index, the lower first.

    ``visits`` ``[rounds, n * walks]``, those of a node side by side. Returns the visited nodes int32 ``[E]``, their
    counts and the place in ``nodes`` each belongs to, int64 ``[E]``, by place, then most visited first.
    """
    rounds = visits.shape[0]
    walks = visits.shape[1] // max(len(nodes), 1)
    bits = 1
    while (1 << bits) < 2 * rounds * walks:
        bits += 1
    shift = np.uint64(64 - bits)
    mask = (1 << bits) - 1
    slots = np.full(1 << bits, -1, dtype=np.int64)  # place in ``found`` by hash, open addressing
    used = np.empty(rounds * walks, dtype=np.int64)
    found = np.empty(rounds * walks, dtype=np.int64)  # count and node in one number that sorts as wanted
    neighbours = np.empty(len(nodes) * min(top, rounds * walks), dtype=np.int32)
    counts = np.empty(len(neighbours), dtype=np.int64)
    owners = np.empty(len(neighbours), dtype=np.int64)
    out = 0
    for place in range(len(nodes)):
        distinct = 0
        for number in range(rounds):
            for walker in range(place * walks, (place + 1) * walks):
                visited = np.int64(visits[number, walker])
                if visited < 0 or visited == nodes[place]:
                    continue
                slot = np.int64((np.uint64(visited) * _GOLDEN) >> shift)
                while slots[slot] >= 0 and (found[slots[slot]] & 0xFFFFFFFF) != visited:
                    slot = (slot + 1) & mask
                if slots[slot] < 0:
                    slots[slot] = distinct
                    used[distinct] = slot
                    found[distinct] = visited
                    distinct += 1
                # One visit more is 2^32 less: the most visited come first, and the lower index among equals.
                found[slots[slot]] -= np.int64(1) << 32
        for number in range(distinct):
            slots[used[number]] = -1
        found[:distinct].sort()
        for number in range(min(distinct, top)):
            neighbours[out] = found[number] & 0xFFFFFFFF
            counts[out] = -(found[number] >> 32)
            owners[out] = place
            out += 1
    return neighbours[:out], counts[:out], owners[:out]
