"""Clicks given views, measured: click models without and with the network's vectors, and the network alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.settings import ClickEvaluation, EvaluationSettings
from training.clicks.area import auc_interval, roc_auc
from training.clicks.click_models import CLICK_MODELS, Fitted, fit_click_model
from training.clicks.data import ClickFrame, How, Snapshot, newest
from training.clicks.fit import EARLY_STOPPING_SHARE, FittedNetwork, fit_network
from training.clicks.tabular import Columns, tabular
from training.evaluation.metrics import Interval
from training.evaluation.report import Table

NETWORK = "network alone"
WITHOUT, WITH = "without vectors", "with vectors"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scorer of the test rows."""

    model: str
    """A click model, or the network alone."""
    columns: str
    """``WITHOUT`` or ``WITH``; empty: the network alone."""
    auc: Interval
    new_users: float
    new_entities: float
    """ROC-AUC of the rows whose user, or entity, has no earlier row; NaN where these hold one kind only."""
    gain: Interval | None = None
    """Above the better of the click models without vectors, as a difference of areas."""
    validated: float
    """ROC-AUC by which settings or epochs were chosen."""
    chosen: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ClickReport:
    """Every scorer under one split of one protocol."""

    name: str
    how: How
    rows: dict[str, int]
    """Message, supervision and test rows; test rows of new users and of new entities."""
    trials: dict[str, int]
    """Settings tried for each click model, the same without and with vectors."""
    network: dict[str, Any]
    """Its settings, epochs and seconds."""
    scored: tuple[Scored, ...]

    @property
    def gain(self) -> Interval:
        """Of the better click model with vectors over the better without."""
        gains = [each.gain for each in self.scored if each.columns == WITH and each.gain is not None]
        return max(gains, key=lambda gain: gain.mean)

    def table(self) -> Table:
        """One line a scorer; the gain in percentage points."""
        lines = tuple(
            (
                each.model,
                each.columns,
                str(each.auc),
                _number(each.new_users),
                _number(each.new_entities),
                "" if each.gain is None else _points(each.gain),
            )
            for each in self.scored
        )
        rows = self.rows
        return Table(
            title=(
                f"{self.name}, split {'by user' if self.how == 'per_user' else 'at one time'}: ROC-AUC of "
                f"{rows['test']:,} views ({rows['new_users']:,} of new users, {rows['new_entities']:,} of new entities)"
            ),
            columns=("model", "columns", "ROC-AUC", "new users", "new entities", "gain, points"),
            rows=lines,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; intervals as [mean, low, high], areas and not points, null for what cannot be measured."""
        return {
            "name": self.name,
            "split": self.how,
            "rows": self.rows,
            "trials": self.trials,
            "network": self.network,
            "gain": _plain(self.gain),
            "scored": [
                {
                    "model": each.model,
                    "columns": each.columns,
                    "auc": _plain(each.auc),
                    "new_users": _finite(each.new_users),
                    "new_entities": _finite(each.new_entities),
                    "gain": None if each.gain is None else _plain(each.gain),
                    "validated": each.validated,
                    "chosen": each.chosen,
                }
                for each in self.scored
            ],
        }


def evaluate_clicks(
    snapshot: Snapshot, settings: EvaluationSettings, *, seed: int = 1, progress: Progress | None = None
) -> list[ClickReport]:
    """Every declared click protocol under each of its splits."""
    return [
        evaluate_split(snapshot, protocol, how, settings, seed=seed, progress=progress)
        for protocol in settings.clicks
        for how in protocol.splits
    ]


def evaluate_split(
    snapshot: Snapshot,
    protocol: ClickEvaluation,
    how: How,
    settings: EvaluationSettings,
    *,
    seed: int = 1,
    progress: Progress | None = None,
) -> ClickReport:
    """Train the network, fit each click model without and with its vectors, and score the test rows."""
    progress = progress or NoProgress()
    frame = ClickFrame.of(snapshot, protocol, how)
    fitted = fit_network(frame, settings.click_network, seed=seed, progress=progress)
    return evaluate_frame(frame, fitted, resamplings=settings.bootstrap, seed=seed, progress=progress)


def evaluate_frame(
    frame: ClickFrame,
    fitted: FittedNetwork,
    *,
    resamplings: int,
    seed: int,
    models: Sequence[str] = CLICK_MODELS,
    progress: Progress | None = None,
) -> ClickReport:
    """The click models without and with the vectors of a trained network, and the network alone."""
    split = frame.split
    test = split.test
    plain = [tabular(frame, split.supervision, split.message), tabular(frame, test, split.earlier)]
    made = [
        fitted.vectors(frame, split.message, split.supervision),
        fitted.vectors(frame, split.earlier, test),
    ]
    joined = [each.beside(vector_columns(*found[:2])) for each, found in zip(plain, made, strict=True)]
    newest_rows = newest(split.supervision, EARLY_STOPPING_SHARE, frame.how)
    found: dict[tuple[str, str], Fitted] = {}
    with (progress or NoProgress()).task("click models", 2 * len(models), "models") as task:
        for columns, (train, asked) in ((WITHOUT, plain), (WITH, joined)):
            for model in models:
                found[model, columns] = fit_click_model(
                    model, train.values, split.supervision.clicked, newest_rows, asked.values, seed=seed
                )
                task.advance()
    better = max((found[model, WITHOUT].scores for model in models), key=lambda each: roc_auc(test.clicked, each))

    def scored(
        model: str, columns: str, scores: NDArray[np.float64], validated: float, chosen: dict[str, Any]
    ) -> Scored:
        masks = split.new_users(), split.new_entities()
        apart = [roc_auc(test.clicked[mask], scores[mask]) for mask in masks]
        return Scored(
            model=model,
            columns=columns,
            auc=auc_interval(test.clicked, scores, test.users, resamplings),
            new_users=apart[0],
            new_entities=apart[1],
            gain=None
            if columns == WITHOUT
            else auc_interval(test.clicked, scores, test.users, resamplings, less=better),
            validated=validated,
            chosen=chosen,
        )

    logits = made[1][2].astype(np.float64)
    results = [
        scored(model, columns, each.scores, each.validated, each.chosen) for (model, columns), each in found.items()
    ]
    results.append(scored(NETWORK, "", logits, fitted.validated, {"epochs": fitted.epochs}))
    return ClickReport(
        name=frame.settings.name,
        how=frame.how,
        rows={
            "message": len(split.message),
            "supervision": len(split.supervision),
            "test": len(test),
            "new_users": int(split.new_users().sum()),
            "new_entities": int(split.new_entities().sum()),
        },
        trials={model: found[model, WITH].trials for model in models},
        network={
            "settings": fitted.network.settings.model_dump(mode="json"),
            "epochs": fitted.epochs,
            "seconds": fitted.seconds,
            "seed": seed,
        },
        scored=tuple(results),
    )


def vector_columns(users: NDArray[np.float32], entities: NDArray[np.float32]) -> Columns:
    """Both vectors and their product, component by component.

    A linear model of two vectors side by side has a taste for each but none for the two together; the product is what
    lets it learn an inner product. That is all that another team can make of the exported vectors.
    """
    u, v = users.astype(np.float64), entities.astype(np.float64)
    names = [f"{what}[{number}]" for what in ("user", "entity", "product") for number in range(u.shape[1])]
    return Columns(names=tuple(names), values=np.hstack([u, v, u * v]))


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "-"


def _points(gain: Interval) -> str:
    return f"{100 * gain.mean:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def _plain(interval: Interval) -> list[float | None]:
    return [_finite(each) for each in (interval.mean, interval.low, interval.high)]


def _finite(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
