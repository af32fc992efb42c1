"""Ours against torch_geometric.metrics on random rankings, and what is different on purpose."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from training.evaluation.metrics import average_precision, ndcg, recall
from training.evaluation.top_k import average_popularity, coverage, diversity, hits, list_metrics, personalization

QUERIES, ENTITIES, LONGEST = 60, 40, 12


@pytest.fixture(scope="module")
def pyg() -> ModuleType:
    with warnings.catch_warnings():
        # Importing it compiles with torch.jit, which newer versions of torch warn of.
        warnings.simplefilter("ignore")
        return importlib.import_module("torch_geometric.metrics")


@pytest.fixture(scope="module")
def lists() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.stack([rng.permutation(ENTITIES)[:LONGEST] for _ in range(QUERIES)]).astype(np.int64)


@pytest.fixture(scope="module")
def wanted() -> sp.csr_matrix:
    rng = np.random.default_rng(4)
    dense = rng.random((QUERIES, ENTITIES)) < rng.uniform(0.02, 0.6, size=(QUERIES, 1))
    dense[:3] = False
    return sp.csr_matrix(dense.astype(np.float64))


@pytest.mark.parametrize("at", [1, 5, LONGEST])
@pytest.mark.parametrize("name", ["Recall", "NDCG", "MRR", "HitRatio", "MAP", "Precision", "F1"])
def test_metrics_are_those_of_pyg(
    pyg: ModuleType, lists: np.ndarray, wanted: sp.csr_matrix, name: str, at: int
) -> None:
    theirs = getattr(pyg, f"LinkPred{name}")(at)
    row, column = wanted.nonzero()
    theirs.update(torch.from_numpy(lists), torch.from_numpy(np.stack([row, column]).astype(np.int64)))
    relevant = np.diff(wanted.indptr)
    ours = list_metrics(hits(lists, wanted), relevant, at)[f"{name}@{at}"]
    assert ours.shape == (QUERIES,)
    # PyG's mean is over the queries that have something relevant.
    assert ours[relevant > 0].mean() == pytest.approx(float(theirs.compute()), abs=1e-6)
    assert 0.0 < ours.mean() < 1.0
    assert not ours[:3].any()


def test_metrics_of_all_lists_are_those_of_pyg(pyg: ModuleType, lists: np.ndarray, wanted: sp.csr_matrix) -> None:
    rng = np.random.default_rng(5)
    popularity = rng.integers(0, 100, ENTITIES).astype(np.float64)
    category = rng.integers(0, 4, ENTITIES)
    first = lists[:9, :5]
    pairs = torch.from_numpy(np.stack(wanted[:9].nonzero()).astype(np.int64))
    theirs = {
        "coverage": pyg.LinkPredCoverage(5, ENTITIES),
        "popularity": pyg.LinkPredAveragePopularity(5, torch.from_numpy(popularity)),
        "personalization": pyg.LinkPredPersonalization(5),
        "diversity": pyg.LinkPredDiversity(5, torch.from_numpy(category)),
    }
    for metric in theirs.values():
        metric.update(torch.from_numpy(first), pairs)
    ours = {
        "coverage": coverage(first, ENTITIES),
        "popularity": average_popularity(first, popularity).mean(),
        "personalization": personalization(first),
        "diversity": diversity(first, category).mean(),
    }
    assert ours == pytest.approx({name: float(metric.compute()) for name, metric in theirs.items()}, abs=1e-5)


def test_the_metrics_of_one_ranking_agree(lists: np.ndarray, wanted: sp.csr_matrix) -> None:
    relevant = wanted.indices[wanted.indptr[7] : wanted.indptr[8]]
    together = list_metrics(hits(lists[7:8], wanted[7]), np.array([len(relevant)]), LONGEST)
    assert together[f"Recall@{LONGEST}"][0] == pytest.approx(recall(lists[7], relevant, LONGEST))
    assert together[f"NDCG@{LONGEST}"][0] == pytest.approx(ndcg(lists[7], relevant, LONGEST))
    shorter = min(len(relevant), LONGEST) / len(relevant)
    assert together[f"MAP@{LONGEST}"][0] * shorter == pytest.approx(average_precision(lists[7], relevant))


def test_answers_that_are_missing_count_as_wrong_and_as_nothing_else() -> None:
    lists = np.array([[2, 0, -1, -1], [3, 2, 1, 0]])
    wanted = sp.csr_matrix(np.array([[1.0, 0, 0, 1.0], [0, 0, 0, 1.0]]))
    found = list_metrics(hits(lists, wanted), np.array([2, 1]), 4)
    assert found["Precision@4"].tolist() == [0.25, 0.25]
    assert found["Recall@4"].tolist() == [0.5, 1.0]
    assert found["MRR@4"].tolist() == [0.5, 1.0]
    assert average_popularity(lists, np.array([1.0, 2.0, 5.0, 10.0])).tolist() == [3.0, 4.5]
    assert coverage(lists[:1], 4) == 0.5
    assert personalization(lists[:1]) == 0.0
