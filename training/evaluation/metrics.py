"""Ranking metrics of one query, and their averages with confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over queries with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "-"
        return f"{self.mean:.4f}" + ("" if np.isnan(self.low) else f" [{self.low:.4f}, {self.high:.4f}]")

    @classmethod
    def alone(cls, mean: float = float("nan")) -> Interval:
        """A figure that has no interval; NaN: there was nothing to measure."""
        return cls(mean=mean, low=float("nan"), high=float("nan"))


def ranking(scores: Values, count: int | None = None) -> NDArray[np.int64]:
    """Positions by falling score, ties by position; candidates of score -inf are left out."""
    order = np.argsort(-scores, kind="stable")
    order = order[: int((scores > -np.inf).sum())]
    return order if count is None else order[:count]


def average_precision(order: NDArray[np.int64], relevant: NDArray[np.int64]) -> float:
    """Mean of the precision at each relevant answer, those not ranked counting zero."""
    if not len(relevant):
        return 0.0
    places = np.flatnonzero(np.isin(order, relevant)) + 1
    return float((np.arange(1, len(places) + 1) / places).sum() / len(relevant))


def recall(order: NDArray[np.int64], relevant: NDArray[np.int64], at: int) -> float:
    """Share of the relevant among the first ``at``."""
    return float(np.isin(order[:at], relevant).sum() / len(relevant)) if len(relevant) else 0.0


def ndcg(order: NDArray[np.int64], relevant: NDArray[np.int64], at: int) -> float:
    """Binary gain, discount log2(rank + 1); the ideal has min(``at``, number relevant) at the top."""
    if not len(relevant):
        return 0.0
    discount = 1.0 / np.log2(np.arange(2, at + 2))
    gain = np.isin(order[:at], relevant)
    return float((gain * discount[: len(gain)]).sum() / discount[: min(at, len(relevant))].sum())


def bootstrap(values: Values, resamplings: int, seed: int = 0) -> Interval:
    """Mean of per-query values with the percentile interval over resampled queries."""
    return bootstrap_columns(values[:, None], resamplings, seed)[0]


def bootstrap_columns(values: Values, resamplings: int, seed: int = 0) -> list[Interval]:
    """The same of every column of ``[queries, columns]``, all over the same resampled queries."""
    count, columns = values.shape
    if not count:
        return [Interval.alone()] * columns
    rng = np.random.default_rng(seed)
    means = np.empty((resamplings, columns))
    for row in range(resamplings):
        means[row] = np.bincount(rng.integers(count, size=count), minlength=count) @ values / count
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    mean = values.mean(axis=0)
    return [
        Interval(mean=float(mean[column]), low=float(low[column]), high=float(high[column]))
        for column in range(columns)
    ]


def paired_bootstrap(ours: Values, theirs: Values, resamplings: int, seed: int = 0) -> Interval:
    """The mean gain of ``ours`` over ``theirs``, query by query, with its interval."""
    return bootstrap(ours - theirs, resamplings, seed)
