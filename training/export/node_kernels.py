"""A hash table of texts, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled

_FIRST, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX, _SHIFT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(33)
_HALF, _LOW, _ONE, _NONE = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(1), np.uint64(0)


@compiled
def _hash(text: NDArray[np.uint8], start: int, end: int) -> np.uint64:
    """FNV-1a, its bits mixed once more: 64 bits (Fowler, Noll, Vo; MurmurHash3's finaliser)."""
    value = _FIRST
    for place in range(start, end):
        value = (value ^ np.uint64(text[place])) * _PRIME
    value = (value ^ (value >> _SHIFT)) * _MIX
    return np.uint64(value ^ (value >> _SHIFT))


@compiled
def fill(slots: NDArray[np.uint64], offsets: NDArray[np.int64], text: NDArray[np.uint8]) -> None:
    """Put every text into empty ``slots``, whose number is a power of two and above that of the texts."""
    last = np.uint64(len(slots) - 1)
    for row in range(len(offsets) - 1):
        hashed = _hash(text, offsets[row], offsets[row + 1])
        slot = hashed & last
        while slots[slot] != _NONE:
            slot = (slot + _ONE) & last
        slots[slot] = ((hashed >> _HALF) << _HALF) | np.uint64(row + 1)


@compiled
def _same(
    text: NDArray[np.uint8],
    start: int,
    end: int,
    wanted_text: NDArray[np.uint8],
    wanted: NDArray[np.int64],
    number: int,
) -> bool:
    first = wanted[number]
    if wanted[number + 1] - first != end - start:
        return False
    different = np.uint8(0)
    for place in range(end - start):
        different |= text[start + place] ^ wanted_text[first + place]
    return bool(different == 0)


@compiled
def find(
    slots: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    text: NDArray[np.uint8],
    wanted: NDArray[np.int64],
    wanted_text: NDArray[np.uint8],
    rows: NDArray[np.int32],
) -> None:
    """Set ``rows`` to the rows of the wanted texts, -1 for those that are not there."""
    # Three loops, so that the processor waits for the memory of many texts at once.
    last = np.uint64(len(slots) - 1)
    places = np.empty(len(rows), dtype=np.uint64)
    halves = np.empty(len(rows), dtype=np.uint64)
    for number in range(len(rows)):
        hashed = _hash(wanted_text, wanted[number], wanted[number + 1])
        places[number], halves[number] = hashed & last, hashed >> _HALF
    for number in range(len(rows)):
        slot, half = places[number], halves[number]
        while slots[slot] != _NONE and slots[slot] >> _HALF != half:
            slot = (slot + _ONE) & last
        places[number] = slot
    for number in range(len(rows)):
        slot, half = places[number], halves[number]
        rows[number] = -1
        while slots[slot] != _NONE:
            held = slots[slot]
            row = np.int64(held & _LOW) - 1
            if held >> _HALF == half and _same(text, offsets[row], offsets[row + 1], wanted_text, wanted, number):
                rows[number] = row
                break
            slot = (slot + _ONE) & last
