"""The gate of the daily retraining: whether a new model may take the place of the one that serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graph_store.settings import RetrainGate
from training.evaluation.report import OURS, EvaluationReport


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate said, and why."""

    promoted: bool
    reason: str
    protocol: str | None = None
    metric: str | None = None
    value: float | None = None
    """Of the new model."""
    active: float | None = None
    """Of the active bundle, as it was measured before it was published."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "promoted": self.promoted,
            "reason": self.reason,
            "protocol": self.protocol,
            "metric": self.metric,
            "value": self.value,
            "active": self.active,
        }


def decide(gate: RetrainGate | None, new: EvaluationReport, active: EvaluationReport | None) -> Decision:
    """Hold a new model's evaluation to the gate; ``active``: what was measured of the bundle that serves, if any is.

    A metric that the new evaluation does not have fails the gate: what cannot be measured is not known to be good. One
    that the active bundle was not measured in says nothing against the new model but for ``at_least``.
    """
    if gate is None:
        return Decision(promoted=True, reason="no gate is declared ([retrain] gate)")
    found = _value(new, gate.metric, gate.protocol)
    if found is None:
        where = f"the protocol {gate.protocol!r}" if gate.protocol else "any protocol"
        return Decision(promoted=False, reason=f"{gate.metric} was not measured in {where}", metric=gate.metric)
    protocol, value = found
    earlier = None if active is None else _value(active, gate.metric, protocol)
    known = earlier[1] if earlier is not None else None
    what = f"{gate.metric} of {protocol} is {value:.4f}"

    def decision(promoted: bool, reason: str) -> Decision:
        return Decision(
            promoted=promoted, reason=reason, protocol=protocol, metric=gate.metric, value=value, active=known
        )

    if gate.at_least is not None and not value >= gate.at_least:
        return decision(False, f"{what}, at least {gate.at_least:g} is asked for")
    if gate.max_drop is not None and known is not None and not value >= known - gate.max_drop:
        return decision(False, f"{what}, the active bundle's {known:.4f}: a drop of more than {gate.max_drop:g}")
    return decision(True, what + ("" if known is None else f", the active bundle's {known:.4f}"))


def _value(report: EvaluationReport, metric: str, protocol: str | None) -> tuple[str, float] | None:
    """Name of the protocol, and our value in it."""
    for each in report.protocols:
        own = each.scores.get(OURS, {})
        if metric in own and protocol in (None, each.name):
            return each.name, float(own[metric].mean)
    return None
