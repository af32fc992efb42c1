"""Area under the ROC curve, and its gains with intervals over resampled users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import Interval

Floats = NDArray[np.float64]


def roc_auc(clicked: NDArray[np.bool_], scores: Floats, counts: NDArray[np.int64] | None = None) -> float:
    """Chance that a click scores above a view without one, ties half; ``counts``: how often each row stands there.

    NaN where either kind is missing.
    """
    weight = np.ones(len(scores)) if counts is None else counts.astype(np.float64)
    return _area(*_ordered(clicked, scores), weight)


def auc_interval(
    clicked: NDArray[np.bool_],
    scores: Floats,
    users: NDArray[np.int64],
    resamplings: int,
    *,
    less: Floats | None = None,
    seed: int = 0,
) -> Interval:
    """The area with its 95 % interval; with ``less``, how much it is above that of these other scores.

    Users are resampled, each with all rows: rows of one user are not independent. Resamplings that hold only clicks, or
    none, are left out.
    """
    _, place = np.unique(users, return_inverse=True)
    number = int(place.max(initial=-1)) + 1
    orders = [_ordered(clicked, each) for each in ([scores] if less is None else [scores, less])]

    def value(weight: Floats) -> float:
        areas = [_area(*order, weight) for order in orders]
        return areas[0] if len(areas) == 1 else areas[0] - areas[1]

    rng = np.random.default_rng(seed)
    found = np.array(
        [
            value(np.bincount(rng.integers(number, size=number), minlength=number)[place].astype(np.float64))
            for _ in range(resamplings if number else 0)
        ]
    )
    found = found[np.isfinite(found)]
    mean = value(np.ones(len(scores)))
    if not len(found):
        return Interval(mean=mean, low=float("nan"), high=float("nan"))
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(mean=mean, low=float(low), high=float(high))


def _ordered(
    clicked: NDArray[np.bool_], scores: Floats
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Rows by rising score, which of them are clicks, and where each run of equal scores begins."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else np.empty(0, int)
    return order, clicked[order], begins


def _area(order: NDArray[np.int64], clicked: NDArray[np.bool_], begins: NDArray[np.int64], weight: Floats) -> float:
    weight = weight[order]
    if not len(weight):
        return float("nan")
    clicks = np.add.reduceat(np.where(clicked, weight, 0.0), begins)
    others = np.add.reduceat(np.where(clicked, 0.0, weight), begins)
    total = clicks.sum() * others.sum()
    below = np.cumsum(others) - others / 2
    return float((clicks * below).sum() / total) if total else float("nan")
