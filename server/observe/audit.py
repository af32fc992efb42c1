"""Recall in operation: a sampled share of the searches is repeated exactly, beside the calls.

What was audited when a bundle was published is the recall of queries drawn then; this is that of the queries that come.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.fresh.index import FreshIndex
from server.index.exact_index import ExactIndex
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, VectorIndex, Vectors, unit_rows
from server.model.served_model import ServedModel
from server.observe import log
from server.observe.metrics import Metrics

_WAITING = 64
"""Searches that may wait to be repeated; further ones are not."""
_KEPT = 1000
"""Results of the last audits that the gauge is of, by space and type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    place: tuple[str, str]
    exact: ExactIndex
    query: Vectors
    k: int
    exclude: Rows | None
    allowed: Selection | None
    found: Found


class WatchedIndex:
    """An index whose searches are counted, and now and then given to the audit; answers are the index's own."""

    def __init__(
        self, index: VectorIndex, place: tuple[str, str], exact: ExactIndex | None, audit: RecallAudit
    ) -> None:
        self.kind = index.kind
        self._index, self._place, self._exact, self._audit = index, place, exact, audit

    def __len__(self) -> int:
        return len(self._index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def search(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None = None,
        allowed: Sequence[Selection | None] | None = None,
    ) -> list[Found]:
        results = self._index.search(queries, k, exclude, allowed)
        for number, found in enumerate(results):
            self._audit.metrics.searched(*self._place, found)
            if self._exact is None or found.exact or not self._audit.samples():
                continue
            self._audit.give(
                _Search(
                    place=self._place,
                    exact=self._exact,
                    query=queries[number],
                    k=k,
                    exclude=None if exclude is None else exclude[number],
                    allowed=None if allowed is None else allowed[number],
                    found=found,
                )
            )
        return results


class RecallAudit:
    """Repeats searches in a thread of its own, one at a time; start it with ``with``."""

    def __init__(self, share: float, metrics: Metrics, *, seed: int | None = None) -> None:
        self.metrics = metrics
        self._share = share
        self._random = random.Random(seed)
        self._waiting: queue.Queue[_Search | None] = queue.Queue(_WAITING)
        self._last: dict[tuple[str, str], deque[tuple[int, int]]] = {}
        self._thread = threading.Thread(target=self._run, name="kithkin-audit", daemon=True)
        if share:
            self._thread.start()

    def watch(self, model: ServedModel) -> None:
        """Put watchers before the indexes of a loaded bundle, before it serves."""
        for place, index in model.indexes.items():
            if isinstance(index.base if isinstance(index, FreshIndex) else index, WatchedIndex):
                continue
            exact = None
            if self._share and index.kind != ExactIndex.kind:
                vectors = model.bundle.vectors(*place)
                exact = ExactIndex(unit_rows(vectors) if model.metric_is_cosine(place[0]) else vectors)
            model.indexes[place] = WatchedIndex(index, place, exact, self)

    def samples(self) -> bool:
        """Whether the next search is of the sample."""
        return self._random.random() < self._share

    def give(self, search: _Search) -> None:
        """Have a search repeated, unless too many wait: an audit never holds up a call."""
        try:
            self._waiting.put_nowait(search)
        except queue.Full:
            return

    def close(self) -> None:
        """Repeat what waits, and end."""
        if self._share:
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (search := self._waiting.get()) is not None:
            try:
                self._repeat(search)
            except Exception as error:
                # A fault here must not end the audits to come.
                log.event(logging.ERROR, "audit failed", trace=True, error=str(error))

    def _repeat(self, search: _Search) -> None:
        exclude = None if search.exclude is None else [search.exclude]
        allowed = None if search.allowed is None else [search.allowed]
        (right,) = search.exact.search(search.query[None], search.k, exclude, allowed)
        if not len(right.rows):
            return
        # By row, and by score where several rows have that of the last place.
        hits = np.isin(search.found.rows, right.rows) | (search.found.scores >= right.scores[-1])
        last = self._last.setdefault(search.place, deque(maxlen=_KEPT))
        last.append((len(right.rows), int(hits.sum())))
        recall = sum(found for _, found in last) / sum(expected for expected, _ in last)
        self.metrics.audited(*search.place, *last[-1], recall)
