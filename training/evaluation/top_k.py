"""Metrics of the first k answers, under the names and with the meanings of ``torch_geometric.metrics`` (LinkPred...).

``lists`` are the answers ``[queries, k]``, best first, as positions of entities; -1 where there are fewer than k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Lists = NDArray[np.int64]
Values = NDArray[np.float64]


def hits(lists: Lists, wanted: Any) -> NDArray[np.bool_]:
    """Which answers are relevant ``[queries, k]``; ``wanted`` is a SciPy CSR matrix ``[queries, entities]``."""
    columns = np.int64(wanted.shape[1])
    rows = np.arange(len(lists), dtype=np.int64)
    relevant = np.repeat(rows, np.diff(wanted.indptr)) * columns + wanted.indices
    return np.isin(rows[:, None] * columns + lists, relevant) & (lists >= 0)


def list_metrics(hits: NDArray[np.bool_], relevant: NDArray[np.int64], at: int) -> dict[str, Values]:
    """Recall, NDCG, MRR, HitRatio, MAP, Precision and F1 of each query, by name (``NDCG@20``).

    Args:
        hits: Which of the answers are relevant ``[queries, k]``, k at most ``at`` (further answers are not looked at).
        relevant: Number of relevant entities ``[queries]``; where it is none every metric is 0.
        at: The k of the metrics; precision counts answers that are missing as wrong ones.
    """
    hits = hits[:, :at]
    places = np.arange(1, hits.shape[1] + 1)
    found = hits.sum(axis=1)
    counted = np.maximum(relevant, 1)
    discount = 1.0 / np.log2(np.arange(2, at + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(counted, at)]
    precision, recall = found / at, found / counted
    values = {
        "Recall": recall,
        "NDCG": (hits * discount[: hits.shape[1]]).sum(axis=1) / ideal,
        "MRR": (hits / places).max(axis=1, initial=0.0),
        "HitRatio": (found > 0).astype(np.float64),
        "MAP": (hits.cumsum(axis=1) / places * hits).sum(axis=1) / np.minimum(counted, at),
        "Precision": precision,
        "F1": 2.0 * precision * recall / np.maximum(precision + recall, 1e-7),
    }
    return {f"{name}@{at}": np.where(relevant > 0, value, 0.0) for name, value in values.items()}


def average_popularity(lists: Lists, popularity: Values) -> Values:
    """Mean popularity of each query's answers ``[queries]``; 0 where there are none (LinkPredAveragePopularity)."""
    known = lists >= 0
    return np.asarray(np.where(known, popularity[lists], 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def coverage(lists: Lists, entities: int) -> float:
    """Share of all entities that are an answer to anybody (LinkPredCoverage)."""
    return len(np.unique(lists[lists >= 0])) / entities if entities else 0.0


def personalization(lists: Lists) -> float:
    """One less the share of answers that two queries have in common, mean over all pairs (LinkPredPersonalization).

    PyG compares pair by pair, of at most 4,096 queries; counted by entity, all pairs are as quick as one.
    """
    queries, k = lists.shape
    pairs = queries * (queries - 1) / 2
    if not pairs or not k:
        return 0.0
    count = np.unique(lists[lists >= 0], return_counts=True)[1].astype(np.float64)
    return float(1.0 - (count * (count - 1) / 2).sum() / (pairs * k))


def diversity(lists: Lists, category: NDArray[np.int64]) -> Values:
    """Share of the pairs of each query's answers that are of different categories ``[queries]`` (LinkPredDiversity).

    ``category`` has one value for each entity. Needs k of two or more, and a full list for each query.
    """
    k = lists.shape[1]
    kind = category[lists]
    alike = (kind[:, :, None] == kind[:, None, :]).sum(axis=(1, 2)) - k
    return np.asarray(1.0 - alike / (k * (k - 1)))
