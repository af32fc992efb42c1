"""What an evaluation found, as tables to print and as JSON to keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.evaluation.metrics import Interval

OURS = "kithkin"
_COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table to print."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The queries that have something in common."""

    by: str
    """What they were grouped by: ``popularity``, ``activity`` or ``relation``."""
    name: str
    queries: int
    scores: dict[str, Interval]
    """The headline metric by scorer."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; intervals as [mean, low, high]."""
        scores = {name: _plain(value) for name, value in self.scores.items()}
        return {"by": self.by, "name": self.name, "queries": self.queries, "scores": scores}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Group:
        """What ``to_json`` made."""
        scores = {name: _interval(value) for name, value in document["scores"].items()}
        return cls(by=document["by"], name=document["name"], queries=int(document["queries"]), scores=scores)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Every scorer under one protocol."""

    name: str
    kind: str
    """``judged``, ``cold``, ``users`` or ``next``."""
    queries: int
    note: str
    headline: str
    """The metric that ranks scorers."""
    scores: dict[str, dict[str, Interval]]
    """By scorer, by metric."""
    best_baseline: str = ""
    gain: Interval | None = None
    """Ours less the best baseline in the headline metric, query by query."""
    groups: tuple[Group, ...] = ()
    """The headline metric by groups of queries."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, those that say most first."""
        return tuple(next(iter(self.scores.values()))) if self.scores else ()

    def ranked(self) -> list[str]:
        """Scorers by rising headline metric, ours last."""
        return sorted(self.scores, key=lambda name: (name == OURS, self.scores[name][self.headline].mean))

    def table(self) -> Table:
        """Scorers and the first metrics, as many as a terminal has room for; JSON and the HTML report have all."""
        metrics = self.metrics[:_COLUMNS]
        rows = []
        for name in self.ranked():
            found = self.scores[name]
            cells = [str(found[each]) if each == self.headline else _number(found[each].mean) for each in metrics]
            rows.append((name, *cells))
        title = f"{self.name}: {self.queries:,} queries. {self.note}".strip()
        if self.gain is not None:
            title += f" Gain in {self.headline} over {self.best_baseline}: {self.gain}."
        return Table(title=title, columns=("scorer", *metrics), rows=tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """Plain values; intervals as [mean, low, high]."""
        return {
            "name": self.name,
            "kind": self.kind,
            "queries": self.queries,
            "note": self.note,
            "headline": self.headline,
            "metrics": list(self.metrics),
            "scores": {
                name: {metric: _plain(value) for metric, value in found.items()} for name, found in self.scores.items()
            },
            "best_baseline": self.best_baseline,
            "gain": None if self.gain is None else _plain(self.gain),
            "groups": [each.to_json() for each in self.groups],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Protocol:
        """What ``to_json`` made, from a bundle's manifest too, which keeps no order of names."""
        scores = {
            name: {metric: _interval(found[metric]) for metric in document.get("metrics", found)}
            for name, found in document["scores"].items()
        }
        return cls(
            name=document["name"],
            kind=document["kind"],
            queries=int(document["queries"]),
            note=document["note"],
            headline=document["headline"],
            scores=scores,
            best_baseline=document["best_baseline"],
            gain=None if document["gain"] is None else _interval(document["gain"]),
            # A bundle of an earlier version has none.
            groups=tuple(Group.from_json(each) for each in document.get("groups", [])),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """All protocols of one evaluation."""

    protocols: tuple[Protocol, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What was not measured, and why."""

    def tables(self) -> tuple[Table, ...]:
        """One table a protocol."""
        return tuple(protocol.table() for protocol in self.protocols)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle's manifest."""
        return {"protocols": [protocol.to_json() for protocol in self.protocols], "notes": list(self.notes)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> EvaluationReport:
        """What ``to_json`` made."""
        return cls(
            protocols=tuple(Protocol.from_json(each) for each in document.get("protocols", [])),
            notes=tuple(document.get("notes", [])),
        )


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "-"


def _plain(value: Interval) -> list[float | None]:
    # JSON has no NaN.
    return [None if each != each else round(each, 6) for each in (value.mean, value.low, value.high)]


def _interval(value: list[float | None]) -> Interval:
    mean, low, high = (float("nan") if each is None else float(each) for each in value)
    return Interval(mean=mean, low=low, high=high)
