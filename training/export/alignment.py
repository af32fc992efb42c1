"""Two sorted columns side by side, block by block: which rows of the one are which rows of the other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store.csr import Csr
from training.export.canonical import BLOCK_ROWS

Rows = NDArray[np.int64]
Key = Callable[[int], Any]
"""The key of a row; keys go up with the rows, and may repeat."""


class Window(NamedTuple):
    """Rows ``a`` to ``a_end`` of the first and ``b`` to ``b_end`` of the second that hold the same range of keys."""

    a: int
    a_end: int
    b: int
    b_end: int


class Matched(NamedTuple):
    """Rows of both: those that are the same (in pairs), and those that only one has; ascending."""

    a: Rows
    b: Rows
    only_a: Rows
    only_b: Rows


def windows(sizes: tuple[int, int], keys: tuple[Key, Key], *, block: int = BLOCK_ROWS) -> Iterator[Window]:
    """Cut both columns at the same keys, each part of at most ``block`` rows unless one key has more."""
    starts, length = [0, 0], block
    while starts[0] < sizes[0] or starts[1] < sizes[1]:
        ends = [min(start + length, size) for start, size in zip(starts, sizes, strict=True)]
        open_ends = [keys[side](ends[side] - 1) for side in (0, 1) if ends[side] < sizes[side]]
        if open_ends:
            pivot = min(open_ends)
            ends = [
                bisect_left(cast(Sequence[Any], range(sizes[side])), pivot, starts[side], ends[side], key=keys[side])
                for side in (0, 1)
            ]
            if ends == starts:
                length *= 2  # one key fills the block
                continue
        yield Window(starts[0], ends[0], starts[1], ends[1])
        starts, length = ends, block


def match_ids(ids: tuple[pa.ChunkedArray, pa.ChunkedArray], window: Window) -> Matched:
    """The same ids of a window."""
    first = ids[0].slice(window.a, window.a_end - window.a)
    second = ids[1].slice(window.b, window.b_end - window.b)
    found = _flat(pc.index_in(first, value_set=second))
    there = np.asarray(found.is_valid())
    rows = np.asarray(pc.drop_null(found)).astype(np.int64)
    only = np.ones(len(second), dtype=bool)
    only[rows] = False
    return Matched(
        window.a + np.flatnonzero(there),
        window.b + rows,
        window.a + np.flatnonzero(~there),
        window.b + np.flatnonzero(only),
    )


def common_ranks(ids: tuple[pa.ChunkedArray, pa.ChunkedArray], *, block: int = BLOCK_ROWS) -> tuple[Rows, Rows]:
    """The place of every row of both among the ids of both together: equal ids have equal ranks, in order of bytes."""
    ranks = (np.empty(len(ids[0]), dtype=np.int64), np.empty(len(ids[1]), dtype=np.int64))
    start = 0
    for window in windows((len(ids[0]), len(ids[1])), (id_key(ids[0]), id_key(ids[1])), block=block):
        matched = match_ids(ids, window)
        first = ids[0].slice(window.a, window.a_end - window.a)
        joined = _flat(pa.chunked_array([*first.chunks, taken(ids[1], matched.only_b)], pa.string()))
        order = np.asarray(pc.sort_indices(joined)).astype(np.int64)
        places = np.empty(len(order), dtype=np.int64)
        places[order] = start + np.arange(len(order))
        ranks[0][window.a : window.a_end] = places[: len(first)]
        ranks[1][matched.only_b] = places[len(first) :]
        ranks[1][matched.b] = ranks[0][matched.a]
        start += len(order)
    return ranks


def id_key(ids: pa.ChunkedArray) -> Key:
    """Python orders text by code point, which is the order of UTF-8 bytes."""
    return lambda row: ids[row].as_py()


class Pairs:
    """The ends of a snapshot's edges as one number each, comparable with those of another snapshot."""

    def __init__(self, csr: Csr, sources: Rows | None, targets: Rows | None) -> None:
        """``sources`` and ``targets`` are common ranks by row; None: the rows are ranks already."""
        self._csr, self._sources, self._targets = csr, sources, targets

    def rows(self, start: int, end: int) -> tuple[Rows, Rows]:
        """Rows of sources and targets of the edges ``start`` to ``end``."""
        edges = np.arange(start, end, dtype=np.int64)
        sources = np.searchsorted(self._csr.indptr, edges, side="right") - 1
        return sources.astype(np.int64), self._csr.indices[start:end].astype(np.int64)

    def values(self, start: int, end: int) -> NDArray[np.uint64]:
        """Rank of the source, then of the target: both below 2^32, as types have at most 2^31 nodes."""
        sources, targets = self.rows(start, end)
        if self._sources is not None:
            sources = self._sources[sources]
        if self._targets is not None:
            targets = self._targets[targets]
        pairs: NDArray[np.uint64] = (sources.astype(np.uint64) << np.uint64(32)) | targets.astype(np.uint64)
        return pairs

    def key(self, edge: int) -> int:
        return int(self.values(edge, edge + 1)[0])


def match_edges(
    pairs: tuple[Pairs, Pairs], others: Sequence[tuple[pa.ChunkedArray, pa.ChunkedArray]], window: Window
) -> Matched:
    """The same edges of a window: the same ends and the same values of ``others`` (time and kind, whole columns).

    Edges that are there several times are matched in their order.
    """
    first, second = window.a_end - window.a, window.b_end - window.b
    codes = [np.concatenate([pairs[0].values(window.a, window.a_end), pairs[1].values(window.b, window.b_end)])]
    for one, other in others:
        joined = _flat(
            pa.chunked_array([*one.slice(window.a, first).chunks, *other.slice(window.b, second).chunks], one.type)
        )
        codes.append(np.asarray(joined.dictionary_encode().indices.fill_null(-1)).astype(np.int64))
    order = np.lexsort(codes[::-1])  # stable: among equal keys the first column's rows, then the second's
    new = np.zeros(len(order), dtype=bool)
    for code in codes:
        ordered = code[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    group = np.cumsum(new)
    side = order >= first
    heads = np.flatnonzero(np.concatenate([[True], new[1:]])) if len(order) else np.empty(0, dtype=np.int64)
    place = np.arange(len(order)) - heads[group]
    of_first = np.bincount(group[~side], minlength=len(heads))
    place[side] -= of_first[group[side]]
    # Which edge of which group: no group is longer than the window.
    name = np.empty(len(order), dtype=np.int64)
    name[order] = group * len(order) + place
    _, a, b = np.intersect1d(name[:first], name[first:], assume_unique=True, return_indices=True)
    ascending = np.argsort(a)
    a, b = a[ascending], b[ascending]
    return Matched(window.a + a, window.b + b, window.a + _without(a, first), window.b + _without(b, second))


def differing(first: pa.ChunkedArray | pa.Array, second: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    """Which rows of two columns of one type have different values; missing equals missing, NaN equals NaN."""
    first, second = _flat(first), _flat(second)
    there, also = np.asarray(first.is_valid()), np.asarray(second.is_valid())
    different: NDArray[np.bool_] = there != also
    both = there & also
    kind = first.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        unequal = pc.not_equal(first, second)
        if pa.types.is_floating(kind):
            unequal = pc.and_(unequal, pc.invert(pc.and_(pc.is_nan(first), pc.is_nan(second))))
        different |= np.asarray(unequal.fill_null(False))
        return different
    lengths, others = (np.asarray(pc.list_value_length(one).fill_null(0)) for one in (first, second))
    different |= both & (lengths != others)
    rows = np.flatnonzero(both & (lengths == others) & (lengths > 0))
    if len(rows):
        items = differing(first.take(pa.array(rows)).flatten(), second.take(pa.array(rows)).flatten())
        starts = np.concatenate([[0], np.cumsum(lengths[rows])[:-1]])
        different[rows] = np.logical_or.reduceat(items, starts)
    return different


def taken(column: pa.ChunkedArray, rows: Rows) -> pa.Array:
    """The values of rows that lie near each other; Arrow would bring a column of many chunks into memory whole."""
    if not len(rows):
        return _flat(column.slice(0, 0))
    start = int(rows.min())
    return _flat(column.slice(start, int(rows.max()) + 1 - start)).take(pa.array(rows - start))


def _without(rows: NDArray[Any], size: int) -> Rows:
    left = np.ones(size, dtype=bool)
    left[rows] = False
    return np.flatnonzero(left).astype(np.int64)


def _flat(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
