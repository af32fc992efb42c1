"""The published index with fresh vectors beside it, searched exactly, and without those that went or changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from server.fresh.bundle import RowMap
from server.index.exact_index import ExactIndex
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, VectorIndex, Vectors, best_first


class FreshIndex:
    """A VectorIndex over rows as they are with a delta; what it finds is exact where the published index is."""

    def __init__(self, base: VectorIndex, rows: RowMap, own: dict[int, Vectors]) -> None:
        """``own``: vectors by row of the delta's table (length 1 under cosine)."""
        self.kind = base.kind
        self.base = base
        """The published index."""
        self._map = rows
        replaced = np.flatnonzero([int(row) in own for row in rows.delta_of])
        self._own_rows: Rows = replaced.astype(np.int64)
        width = len(next(iter(own.values()))) if own else 1
        vectors = np.array([own[int(rows.delta_of[row])] for row in replaced], np.float32).reshape(-1, width)
        self._own = ExactIndex(vectors)
        before = rows.base_of[replaced]
        gone = np.flatnonzero(rows.new_of < 0)
        self._void: Rows = np.union1d(before[before >= 0], gone).astype(np.int64)
        """Published rows that are not to be found any more by the published vector."""

    def __len__(self) -> int:
        return max(0, len(self.base) - len(self._void)) + len(self._own)

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
        published = self.base.search(
            queries,
            k,
            [np.union1d(self._before(each), self._void) for each in excluded],
            None if allowed is None else [None if each is None else self._selected_before(each) for each in selected],
        )
        if not len(self._own_rows):
            return [self._now(found) for found in published]
        fresh = self._own.search(
            queries,
            k,
            [np.flatnonzero(np.isin(self._own_rows, each)) for each in excluded],
            None if allowed is None else [None if each is None else self._selected_own(each) for each in selected],
        )
        return [self._merged(self._now(one), other, k) for one, other in zip(published, fresh, strict=True)]

    def _before(self, rows: Rows) -> Rows:
        before = self._map.base_of[rows]
        return before[before >= 0]

    def _selected_before(self, selection: Selection) -> Selection:
        rows = np.setdiff1d(self._before(selection.rows), self._void, assume_unique=True)
        return Selection.of(rows, len(self._map.new_of))

    def _selected_own(self, selection: Selection) -> Selection:
        return Selection.of(np.flatnonzero(selection.mask[self._own_rows]), len(self._own_rows))

    def _now(self, found: Found) -> Found:
        return replace(found, rows=self._map.new_of[found.rows])

    def _merged(self, one: Found, other: Found, k: int) -> Found:
        rows = np.concatenate([one.rows, self._own_rows[other.rows]])
        rows, scores = best_first(rows, np.concatenate([one.scores, other.scores]), k)
        return replace(one, rows=rows, scores=scores, scored=one.scored + other.scored)
