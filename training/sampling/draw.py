"""The inner loops of sampling, compiled: they run without the interpreter's lock.

Random numbers are SplitMix64 (Steele, Lea and Flood 2014), one stream a node, so that a draw does not depend on what
was drawn before it. Compiled code is cached beside this file, or in Numba's own cache folder where that is read-only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_27, _30, _31, _32 = (np.uint64(bits) for bits in (27, 30, 31, 32))
_MASK = 0xFFFFFFFFFFFFFFFF

_SEARCHED = 64
"""Up to this fan-out the edges drawn so far are searched one by one; above, all edges are walked through once."""


def stream(seed: int, key: int, number: int) -> np.uint64:
    """State of the random numbers of one (sampler's seed, call, hop and edge type)."""
    state = 0
    for part in (seed, key, number):
        state = ((state ^ (part & _MASK)) + int(_GOLDEN)) & _MASK
        state = ((state ^ (state >> 30)) * int(_MIX_1)) & _MASK
        state = ((state ^ (state >> 27)) * int(_MIX_2)) & _MASK
        state ^= state >> 31
    return np.uint64(state)


@compiled
def _mix(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> _30)) * _MIX_1
    state = (state ^ (state >> _27)) * _MIX_2
    return state ^ (state >> _31)


@compiled
def _below(state: np.uint64, bound: int) -> int:
    """A number below ``bound`` (< 2^31) from a mixed state, by multiplication (Lemire 2019) without rejection."""
    return int(((_mix(state) >> _32) * np.uint64(bound)) >> _32)


@compiled
def _allowed(
    indices: NDArray[np.int32], start: int, stop: int, left_out: NDArray[np.int64], buffer: NDArray[np.int64]
) -> int:
    """Positions of the row whose neighbour is not among the sorted ``left_out``, into the buffer; how many."""
    count = 0
    for position in range(start, stop):
        neighbour = indices[position]
        place = np.searchsorted(left_out, neighbour)
        if place == len(left_out) or left_out[place] != neighbour:
            buffer[count] = position
            count += 1
    return count


@compiled
def draw_uniform(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    nodes: NDArray[np.int64],
    fan_out: int,
    left_out_nodes: NDArray[np.int64],
    left_out_neighbours: NDArray[np.int64],
    state: np.uint64,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Up to ``fan_out`` (-1: all) edges of each node, without replacement, none between left-out pairs.

    ``left_out_*`` are pairs sorted by node, then neighbour. Returns positions in ``indices`` (ascending per node) and
    the place in ``nodes`` each belongs to, both int64 ``[E]``.
    """
    total = 0
    widest = 0
    for place in range(len(nodes)):
        degree = indptr[nodes[place] + 1] - indptr[nodes[place]]
        widest = max(widest, degree)
        total += degree if fan_out < 0 else min(degree, fan_out)
    positions = np.empty(total, dtype=np.int64)
    owners = np.empty(total, dtype=np.int64)
    buffer = np.empty(widest if len(left_out_nodes) else 0, dtype=np.int64)
    out = 0
    for place in range(len(nodes)):
        start = indptr[nodes[place]]
        degree = indptr[nodes[place] + 1] - start
        low = np.searchsorted(left_out_nodes, nodes[place])
        high = np.searchsorted(left_out_nodes, nodes[place], side="right")
        narrowed = high > low
        if narrowed:
            degree = _allowed(indices, start, start + degree, left_out_neighbours[low:high], buffer)
        kept = degree if fan_out < 0 else min(degree, fan_out)
        first = out
        own = _mix(state + np.uint64(place) * _GOLDEN)
        if kept == degree:
            for chosen in range(degree):
                positions[out] = chosen
                out += 1
        elif kept <= _SEARCHED:
            # Floyd's sampling (Bentley and Floyd 1987): kept draws, none in vain.
            for top in range(degree - kept, degree):
                own += _GOLDEN
                chosen = _below(own, top + 1)
                for earlier in range(first, out):
                    if positions[earlier] == chosen:
                        chosen = top
                        break
                positions[out] = chosen
                out += 1
            positions[first:out].sort()
        else:
            # Selection sampling (Knuth, volume 2, 3.4.2, algorithm S).
            for chosen in range(degree):
                own += _GOLDEN
                if _below(own, degree - chosen) < kept - (out - first):
                    positions[out] = chosen
                    out += 1
        for drawn in range(first, out):
            positions[drawn] = buffer[positions[drawn]] if narrowed else start + positions[drawn]
            owners[drawn] = place
    return positions[:out], owners[:out]


@compiled
def localise(
    places: NDArray[np.int32], nodes: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the nodes in the subgraph that has ``count`` so far, and the nodes that were not in it yet.

    ``places`` holds every node's position, -1 for none; the new nodes' are written into it.
    """
    local = np.empty(len(nodes), dtype=np.int64)
    new = np.empty(len(nodes), dtype=np.int64)
    added = 0
    for number in range(len(nodes)):
        node = nodes[number]
        if places[node] < 0:
            places[node] = count + added
            new[added] = node
            added += 1
        local[number] = places[node]
    return local, new[:added]
