"""Recall in operation: a sampled share of the searches is repeated exactly, beside the calls.

What was audited when a bundle was published is the recall of queries drawn then; this is that of the queries that come.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.fresh.index import FreshIndex
from server.index.exact_index import ExactIndex
from server.index.selection import Selection
from server.index.vector_index import Found, FoundEach, Rows, VectorIndex, Vectors, lists_of, unit_rows
from server.model.served_model import ServedModel
from server.observe import log
from server.observe.metrics import Metrics

_WAITING = 64
"""Searches that may wait to be repeated; further ones are not."""
_RESTS = 49
"""Times that a repetition took, for which the thread rests after it: many searches must not make it a second load."""
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
            left_out = None if exclude is None else exclude[number]
            self._seen(queries[number], k, left_out, None if allowed is None else allowed[number], found)
        return results

    def search_one(self, query: Vectors, k: int, exclude: Rows) -> Found:
        found = self._index.search_one(query, k, exclude)
        self._seen(query, k, exclude, None, found)
        return found

    def search_each(self, queries: Vectors, k: int, exclude: Rows) -> FoundEach:
        results = self._index.search_each(queries, k, exclude)
        for (path, exact), count in Counter(zip(results.paths, results.exact.tolist(), strict=True)).items():
            self._audit.metrics.searched(*self._place, path, exact, count)
        if self._exact is not None:
            for number in range(len(queries)):
                if self._audit.samples():
                    self._give(queries[number], k, lists_of(exclude)[number], None, results.one(number))
        return results

    def _seen(self, query: Vectors, k: int, exclude: Rows | None, allowed: Selection | None, found: Found) -> None:
        self._audit.metrics.searched(*self._place, found.path, found.exact)
        if self._exact is not None and self._audit.samples():
            self._give(query, k, exclude, allowed, found)

    def _give(self, query: Vectors, k: int, exclude: Rows | None, allowed: Selection | None, found: Found) -> None:
        if self._exact is None or found.exact:
            return
        self._audit.give(
            _Search(
                place=self._place, exact=self._exact, query=query, k=k, exclude=exclude, allowed=allowed, found=found
            )
        )


class RecallAudit:
    """Repeats searches in a thread of its own, one at a time."""

    def __init__(self, share: float, metrics: Metrics, *, seed: int | None = None) -> None:
        self.metrics = metrics
        self._share = share
        self._random = random.Random(seed)
        self._waiting: queue.Queue[_Search | None] = queue.Queue(_WAITING)
        self._ending = threading.Event()
        self._last: dict[tuple[str, str], deque[tuple[int, int]]] = {}
        self._thread = threading.Thread(target=self._run, name="kithkin-audit", daemon=True)
        if share:
            self._thread.start()

    def watch(self, model: ServedModel) -> None:
        """Put watchers before the indexes of a loaded bundle, before it serves."""
        for place, index in model.indexes.items():
            if isinstance(index.base if isinstance(index, FreshIndex) else index, WatchedIndex):
                continue
            compacted = index.compacted if isinstance(index, FreshIndex) else None
            exact = None
            if self._share and index.kind != ExactIndex.kind:
                vectors = model.bundle.vectors(*place) if compacted is None else compacted.vectors
                exact = ExactIndex(unit_rows(vectors) if model.metric_is_cosine(place[0]) else vectors)
            watched = WatchedIndex(index if compacted is None else compacted.index, place, exact, self)
            if compacted is None:
                model.indexes[place] = watched
            else:
                compacted.index = watched

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
            self._ending.set()
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (search := self._waiting.get()) is not None:
            begun = time.thread_time()
            try:
                self._repeat(search)
            except Exception as error:
                # A fault here must not end the audits to come.
                log.event(logging.ERROR, "audit failed", trace=True, error=str(error))
            self._ending.wait(_RESTS * (time.thread_time() - begun))

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
