"""The neural score with a delta in the bundle: it scores what was published, by the events there are now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from server.deadline import Deadline
from server.fresh.bundle import FreshBundle
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, Vectors
from server.model.neural_search import NeuralSearch


class FreshNeuralSearch(NeuralSearch):
    """Its entities' vectors are published ones: a fresh entity is not found, and its score is minus infinity."""

    def __init__(self, base: NeuralSearch, bundle: FreshBundle) -> None:
        self._files, self._scorer = base._files, base._scorer
        self.user_type, self.entity_type = base.user_type, base.entity_type
        self._lists = bundle.neighbours(self._files.events)
        self._map = bundle.rows[self.entity_type]
        self._gone = np.flatnonzero(self._map.new_of < 0)

    def scores(self, events: Rows, rows: Rows) -> Vectors:
        before = self._map.base_of[rows]
        found = np.full(len(rows), -np.inf, np.float32)
        found[before >= 0] = super().scores(self._before(events), before[before >= 0])
        return found

    def search(self, events: Rows, k: int, *, exclude: Rows, allowed: Selection | None, deadline: Deadline) -> Found:
        if allowed is not None:
            rows = np.setdiff1d(self._before(allowed.rows), self._gone, assume_unique=True)
            allowed = Selection.of(rows, len(self))
        excluded = np.union1d(self._before(exclude), self._gone).astype(np.int64)
        found = super().search(self._before(events), k, exclude=excluded, allowed=allowed, deadline=deadline)
        return replace(found, rows=self._map.new_of[found.rows])

    def _before(self, rows: Rows) -> Rows:
        before = self._map.base_of[rows]
        return before[before >= 0]
