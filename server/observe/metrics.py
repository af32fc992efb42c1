"""What a worker counts and times, for Prometheus.

Several workers: each writes its numbers to files of ``PROMETHEUS_MULTIPROC_DIR`` (prometheus-client's multiprocess
mode, chosen when it is imported), and ``server/observe/metrics_page.py`` shows the sum. The number of series is
bounded: labels are methods, codes, stages, spaces and node types, never ids.

A call only notes what happened; ``add_up`` counts it, for all calls since the last time at once, when the page is asked
for and every second. Observing each histogram within the calls took a fifth of their time.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.calls.answer_bytes import EncodedBatch
from server.deadline import Deadline
from server.index.planner import SearchPath
from server.model.served_model import ServedModel
from server.processes.state import DeltaCounts

_CALL_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
_STAGES = {"encoding": "encode", "next vector": "encode", "reasons": "explain"}
"""What ``Deadline.check`` is asked for, where it is called otherwise here."""
_MOST_NOTED = 10_000
"""Calls that are noted and not yet counted."""

T = TypeVar("T")


class _Times(Histogram):
    """A histogram that takes many values at once."""

    def observe_all(self, seconds: Sequence[float] | NDArray[np.float64]) -> None:
        values = np.asarray(seconds)
        # As ``observe``: the first bucket whose upper bound is not below the value.
        counts = np.bincount(np.searchsorted(self._upper_bounds, values))
        for place in np.flatnonzero(counts).tolist():
            self._buckets[place].inc(int(counts[place]))
        self._sum.inc(float(values.sum()))


class _First:
    """Stands before the metrics of a registry and has them counted up before they are read."""

    def __init__(self, add_up: Callable[[], None]) -> None:
        self._add_up = add_up

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> list[Any]:
        self._add_up()
        return []


class Metrics:
    """All metrics of one worker; any thread may note in them and ``add_up``."""

    def __init__(self, in_work: Callable[[], int] = lambda: 0) -> None:
        """``in_work``: the calls in work at the moment."""
        self._count_in_work = in_work
        self._ended: deque[tuple[str, str, float, tuple[str, ...], tuple[float, ...]]] = deque()
        self._searched: deque[tuple[str, str, str, bool, int]] = deque()
        self.registry = CollectorRegistry()
        self.registry.register(_First(self.add_up))
        self._calls = self._counter("kithkin_calls", "Calls answered or refused.", "method", "code")
        self._seconds = _Times(
            "kithkin_call_seconds", "Time in the server.", ("method",), buckets=_CALL_BUCKETS, registry=self.registry
        )
        self._stage_seconds = _Times(
            "kithkin_stage_seconds",
            "Time of a call's stages.",
            ("method", "stage"),
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._in_work = self._gauge("kithkin_calls_in_work", "Calls in work or waiting.", "livesum")
        self._refusals = self._counter("kithkin_refusals", "Calls refused, by the reason of the error.", "reason")
        self._fallbacks = self._counter("kithkin_fallbacks", "Answers by a fallback.", "method")
        self._shortfalls = self._counter("kithkin_shortfalls", "Answers with fewer results than asked.", "method")
        self._searches = self._counter(
            "kithkin_searches", "Searches by what was read.", "space", "node_type", "path", "exact"
        )
        self._audits = self._counter("kithkin_audits", "Searches repeated exactly.", "space", "node_type")
        self._expected = self._counter(
            "kithkin_audit_expected", "Results of the exact repetitions.", "space", "node_type"
        )
        self._found = self._counter("kithkin_audit_found", "Those that the search had found.", "space", "node_type")
        self._recall = self._gauge(
            "kithkin_online_recall", "Recall of the last audits; of the worst worker.", "livemin", "space", "node_type"
        )
        self._bundle = self._gauge("kithkin_bundle_info", "Workers that answer from it.", "livesum", "version")
        self._published = self._gauge(
            "kithkin_bundle_published_timestamp_seconds",
            "When the oldest bundle that answers was published.",
            "livemin",
        )
        self._vectors = self._gauge(
            "kithkin_index_vectors", "Vectors of an index.", "livemax", "space", "node_type", "kind"
        )
        self._published_recall = self._gauge(
            "kithkin_index_recall", "Recall at 10, audited when published.", "livemin", "space", "node_type"
        )
        self._refused_bundle = self._gauge(
            "kithkin_bundle_refused", "1: the newest bundle was refused, and an older one serves.", "livemax"
        )
        self._delta = self._gauge(
            "kithkin_delta_nodes", "Nodes that differ from the bundle, by how.", "livemax", "change"
        )
        self._lag = self._gauge(
            "kithkin_delta_lag_seconds", "Since the follower of the store last had everything.", "livemax"
        )
        self._impressions = self._counter("kithkin_impressions", "Recorded answers, by what became of them.", "outcome")
        self._children: dict[tuple[object, ...], Any] = {}
        self._shown: set[tuple[Any, ...]] = set()

    def answered(self, method: str, code: str, deadline: Deadline) -> None:
        """Note a call that has ended, and what its time went to; ``method`` without its service."""
        # A copy, by one step each: a thread that nobody waits for any more may go on with the deadline.
        stages = deadline.stages.copy()
        self._ended.append((method, code, deadline.spent, tuple(stages), tuple(stages.values())))
        if len(self._ended) > _MOST_NOTED:
            self.add_up()

    def add_up(self) -> None:
        """Count what was noted since the last time."""
        calls: Tally[tuple[str, str]] = Tally()
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        # Nearly all calls of a method go through the same stages: what is done for each call is one step.
        parts: defaultdict[tuple[str, tuple[str, ...]], list[tuple[float, ...]]] = defaultdict(list)
        for method, code, spent, stages, taken in _taken(self._ended):
            calls[method, code] += 1
            seconds[method].append(spent)
            parts[method, stages].append(taken)
        for (method, code), count in calls.items():
            self._child(self._calls, method, code).inc(count)
        for method, values in seconds.items():
            self._child(self._seconds, method).observe_all(values)
        for (method, stages), rows in parts.items():
            for stage, column in zip(stages, np.array(rows).T, strict=True):
                self._child(self._stage_seconds, method, _STAGES.get(stage, stage)).observe_all(column)
        searches: Tally[tuple[str, str, str, bool]] = Tally()
        for space, node_type, path, exact, count in _taken(self._searched):
            searches[space, node_type, path, exact] += count
        for (space, node_type, path, exact), count in searches.items():
            self._child(self._searches, space, node_type, path, "yes" if exact else "no").inc(count)
        self._in_work.set(self._count_in_work())

    def refused(self, reason: str) -> None:
        """Count the reason of an error."""
        self._child(self._refusals, reason).inc()

    def described(self, method: str, response: Any) -> None:
        """Count what a response says of itself; of a batch, each of its items."""
        infos = response.infos if isinstance(response, EncodedBatch) else [(response.info, 1)]
        for info, count in infos:
            if info.fallback:
                self._child(self._fallbacks, method).inc(count)
            if info.shortfall_reason:
                self._child(self._shortfalls, method).inc(count)

    def searched(self, space: str, node_type: str, path: SearchPath, exact: bool, count: int = 1) -> None:
        """Note searches by what they read."""
        self._searched.append((space, node_type, path.value, exact, count))
        if len(self._searched) > _MOST_NOTED:
            self.add_up()

    def audited(self, space: str, node_type: str, expected: int, found: int, recall: float) -> None:
        """Note a repeated search: of ``expected`` results ``found`` were found; ``recall`` is that of the last ones."""
        self._child(self._audits, space, node_type).inc()
        self._child(self._expected, space, node_type).inc(expected)
        self._child(self._found, space, node_type).inc(found)
        self._child(self._recall, space, node_type).set(recall)

    def impression(self, outcome: str) -> None:
        """Count a recorded answer: ``written`` or ``dropped``."""
        self._child(self._impressions, outcome).inc()

    def bundle(self, model: ServedModel | None, *, refused: bool) -> None:
        """Show what serves."""
        self._refused_bundle.set(refused)
        if model is None:
            return
        manifest = model.bundle.manifest
        self._published.set(manifest.published_at.ToNanoseconds() / 1e9)
        shown: dict[tuple[Any, ...], float] = {(self._bundle, model.version): 1.0}
        for space in manifest.spaces:
            for index in space.indexes:
                loaded = model.indexes[space.name, index.node_type]
                shown[self._vectors, space.name, index.node_type, loaded.kind] = len(loaded)
                recall = index.recall_at_10 if loaded.kind == index.kind else 1.0
                shown[self._published_recall, space.name, index.node_type] = recall
        # What serves no more cannot be taken away from the files of several workers; it is nothing, or perfect.
        for key in self._shown - shown.keys():
            self._child(*key).set(1.0 if key[0] is self._published_recall else 0.0)
        for key, value in shown.items():
            self._child(*key).set(value)
        self._shown |= shown.keys()

    def delta(self, counts: DeltaCounts) -> None:
        """Show what answers have beyond the bundle."""
        for change, nodes in (("fresh", counts.fresh), ("changed", counts.changed), ("deleted", counts.deleted)):
            self._child(self._delta, change).set(nodes)
        self._lag.set(math.inf if counts.lag_s is None else counts.lag_s)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: Any, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)

    def _child(self, metric: Any, *labels: str) -> Any:
        """``metric.labels(...)``, remembered: looking it up there takes longer than counting."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child


def _taken(noted: deque[T]) -> Iterator[T]:
    """What was noted, taken away; one at a time, for others may note meanwhile."""
    while True:
        try:
            yield noted.popleft()
        except IndexError:
            return
