"""What an evaluation found, as tables to print and as JSON to keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.evaluation.metrics import Interval

OURS = "kithkin"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table to print."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Every scorer under one protocol."""

    name: str
    kind: str
    """``judged`` or ``users``."""
    queries: int
    note: str
    headline: str
    """The metric that ranks scorers."""
    scores: dict[str, dict[str, Interval]]
    """By scorer, by metric."""
    best_baseline: str = ""
    gain: Interval | None = None
    """Ours less the best baseline in the headline metric, query by query."""

    def table(self) -> Table:
        """Scorers by rising headline metric, ours last."""
        metrics = list(next(iter(self.scores.values()))) if self.scores else []
        names = sorted(
            (name for name in self.scores if name != OURS), key=lambda name: self.scores[name][self.headline].mean
        )
        names += [OURS] if OURS in self.scores else []
        rows = []
        for name in names:
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
            "scores": {
                name: {metric: _plain(value) for metric, value in found.items()} for name, found in self.scores.items()
            },
            "best_baseline": self.best_baseline,
            "gain": None if self.gain is None else _plain(self.gain),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Protocol:
        """What ``to_json`` made."""
        return cls(
            name=document["name"],
            kind=document["kind"],
            queries=int(document["queries"]),
            note=document["note"],
            headline=document["headline"],
            scores={
                name: {metric: _interval(value) for metric, value in found.items()}
                for name, found in document["scores"].items()
            },
            best_baseline=document["best_baseline"],
            gain=None if document["gain"] is None else _interval(document["gain"]),
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
