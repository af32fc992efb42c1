"""An index with fresh vectors beside it, searched exactly, and without those that went or changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from server.fresh.bundle import OwnVectors, RowMap
from server.index.exact_index import ExactIndex
from server.index.selection import Selection
from server.index.vector_index import Found, FoundEach, Rows, VectorIndex, Vectors, best_first, lists_of

_MARGIN = 4
"""Results asked for beyond those that, on average, are void."""


@dataclass(kw_only=True, slots=True)
class Compacted:
    """An index built anew over the vectors as they were at one moment."""

    index: VectorIndex
    vectors: Vectors
    """What it is over (length 1 under cosine)."""
    ids: pa.Array
    """Id of each row."""
    number: int
    """The last record of the delta that is in it."""


class FreshIndex:
    """A VectorIndex over rows as they are with a delta; what it finds is exact where the index below is.

    Rows of the index below that went or have another vector now are void: a few more are asked for, and they are left
    out. Where many are void that is slower, and the index is compacted (``server.fresh.compaction``).
    """

    def __init__(self, below: VectorIndex | Compacted, base_of: Rows, new_of: Rows, own: OwnVectors) -> None:
        """``base_of [rows now]``: row of the index below (-1: none), ``new_of``: the inverse; ``own``: as searched."""
        self._below = below
        self.kind = self.base.kind
        self._base_of, self._new_of = base_of, new_of
        self._own_rows = own.rows
        self._own = ExactIndex(own.vectors)
        before = base_of[own.rows]
        self._is_void = new_of < 0
        self._is_void[before[before >= 0]] = True
        self._void = int(self._is_void.sum())

    @classmethod
    def over(cls, below: VectorIndex | Compacted, rows: RowMap, own: OwnVectors) -> FreshIndex:
        """Over the published index, or over a compacted one and what came since."""
        if not isinstance(below, Compacted):
            return cls(below, rows.base_of, rows.new_of, own)
        now = rows.ids.combine_chunks().cast(pa.string())
        found = pc.fill_null(pc.index_in(now, value_set=below.ids), -1)
        base_of = np.asarray(found.to_numpy(), np.int64)
        new_of = np.full(len(below.ids), -1, np.int64)
        new_of[base_of[base_of >= 0]] = np.flatnonzero(base_of >= 0)
        return cls(below, base_of, new_of, own)

    @property
    def base(self) -> VectorIndex:
        """The index below."""
        return self._below.index if isinstance(self._below, Compacted) else self._below

    @property
    def compacted(self) -> Compacted | None:
        """What is below, where it is not the published index."""
        return self._below if isinstance(self._below, Compacted) else None

    @property
    def apart(self) -> int:
        """Vectors beside the index below, and void ones in it: what a compaction would do away with."""
        return max(len(self._own_rows), self._void)

    def __len__(self) -> int:
        return max(0, len(self.base) - self._void) + len(self._own)

    def search(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None = None,
        allowed: Sequence[Selection | None] | None = None,
    ) -> list[Found]:
        count = len(queries)
        excluded = [np.empty(0, np.int64)] * count if exclude is None else list(exclude)
        selected: list[Selection | None] = [None] * count if allowed is None else list(allowed)
        below = self._search_below(queries, k, excluded, selected)
        if not len(self._own_rows):
            return below
        fresh = self._own.search(
            queries,
            k,
            [np.flatnonzero(np.isin(self._own_rows, each)) for each in excluded],
            None if allowed is None else [None if each is None else self._selected_own(each) for each in selected],
        )
        return [self._merged(one, other, k) for one, other in zip(below, fresh, strict=True)]

    def search_one(self, query: Vectors, k: int, exclude: Rows) -> Found:
        return self.search(query[None], k, [exclude])[0]

    def search_each(self, queries: Vectors, k: int, exclude: Rows) -> FoundEach:
        return FoundEach.of(self.search(queries, k, lists_of(exclude)), k)

    def _search_below(
        self, queries: Vectors, k: int, excluded: Sequence[Rows], selected: Sequence[Selection | None]
    ) -> list[Found]:
        left_out = [self._before(each) for each in excluded]
        allowed = None if all(each is None for each in selected) else [
            None if each is None else self._selected_before(each) for each in selected
        ]  # fmt: skip
        total = len(self._new_of)
        # The share of the void among the best is that among all, more or less.
        wanted = k if not self._void else min(total, k + _MARGIN + 2 * k * self._void // max(total - self._void, 1))
        asked = self.base.search(queries, wanted, left_out, allowed)
        found = [self._now(each, k) for each in asked]
        # Where fewer came than were asked for, there are no more.
        short = [
            number for number, each in enumerate(found) if len(each.rows) < k and len(asked[number].rows) == wanted
        ]
        while short and wanted < total:
            wanted = min(total, 4 * wanted)
            again = self.base.search(
                queries[short],
                wanted,
                [left_out[number] for number in short],
                None if allowed is None else [allowed[number] for number in short],
            )
            for number, each in zip(short, again, strict=True):
                found[number] = self._now(each, k)
            short = [
                n for n, each in zip(short, again, strict=True) if len(found[n].rows) < k and len(each.rows) == wanted
            ]
        return found

    def _before(self, rows: Rows) -> Rows:
        before = self._base_of[rows]
        return before[before >= 0]

    def _selected_before(self, selection: Selection) -> Selection:
        before = self._before(selection.rows)
        return Selection.of(before[~self._is_void[before]], len(self._new_of))

    def _selected_own(self, selection: Selection) -> Selection:
        return Selection.of(np.flatnonzero(selection.mask[self._own_rows]), len(self._own_rows))

    def _now(self, found: Found, k: int) -> Found:
        """The k best of what is not void, by rows as they are now."""
        valid = found.rows if not self._void else found.rows[~self._is_void[found.rows]]
        scores = found.scores if not self._void else found.scores[~self._is_void[found.rows]]
        return replace(found, rows=self._new_of[valid[:k]], scores=scores[:k])

    def _merged(self, one: Found, other: Found, k: int) -> Found:
        rows = np.concatenate([one.rows, self._own_rows[other.rows]])
        rows, scores = best_first(rows, np.concatenate([one.scores, other.scores]), k)
        return replace(one, rows=rows, scores=scores, scored=one.scored + other.scored)
