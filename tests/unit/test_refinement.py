"""Reduced vectors brought nearer to the scores at the top of each user's list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from graph_store.progress import NoProgress
from graph_store.settings import TrainingSettings
from model_store.features import FeatureTransforms
from tests.memory_snapshot import themes_snapshot
from training.fit_features import fit_features
from training.graph import Graph
from training.inference import embed
from training.train import fit
from training.transductive import refinement
from training.transductive.factor_model import FactorModel
from training.transductive.fit import FactorTraining
from training.transductive.interactions import Interactions
from training.transductive.reduction import gram, reduce_inner_products
from training.transductive.refinement import onto, refine

Floats = NDArray[Any]


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> tuple[Floats, Floats, sp.csr_matrix]:
    """Rows of 50 users and 80 entities, 12 wide, and what the users know: the last 20 entities nobody does."""
    monkeypatch.setattr(refinement, "_TOP", 8)
    monkeypatch.setattr(refinement, "_WEIGHT", 10.0)
    rng = np.random.default_rng(0)
    users, entities = (rng.standard_normal((count, 12)).astype(np.float32) for count in (50, 80))
    known = rng.random((50, 80)) < 0.1
    known[:, 60:] = False
    known[7] = False
    return users, entities, sp.csr_matrix(known.astype(np.float32))


def reduced(users: Floats, entities: Floats, dimension: int) -> tuple[Floats, Floats]:
    for_users, for_entities = reduce_inner_products(gram(users), gram(entities), dimension)
    return np.asarray(users @ for_users), np.asarray(entities @ for_entities)


def weighted(users: Floats, entities: Floats, known: sp.csr_matrix) -> Floats:
    """The weight of every pair's squared error, dense."""
    all_scores = users @ entities.T
    all_scores[known.toarray() > 0] = -np.inf
    weights = np.ones_like(all_scores)
    np.put_along_axis(weights, np.argsort(-all_scores, axis=1)[:, :8], 1 + refinement._WEIGHT, axis=1)
    weights[known.toarray() > 0] = 0.0
    return weights


def test_a_round_solves_the_users_and_then_the_entities(
    scores: tuple[Floats, Floats, sp.csr_matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    users, entities, known = scores
    monkeypatch.setattr(refinement, "_ITERATIONS", 12)
    monkeypatch.setattr(refinement, "_LINKS_AT_ONCE", 200)
    start = reduced(users, entities, 5)
    found = refine(users, entities, start, known, rounds=1)

    wanted, weights = (users @ entities.T).astype(np.float64), weighted(users, entities, known)
    solved = [
        np.stack(
            [
                np.linalg.solve(other.T @ (weight[:, None] * other), other.T @ (weight * target))
                for weight, target in zip(weights_of, targets, strict=True)
            ]
        )
        for other, weights_of, targets in (
            (start[1].astype(np.float64), weights, wanted),
            (found[0].astype(np.float64), weights.T, wanted.T),
        )
    ]
    assert np.allclose(found[0], solved[0], atol=2e-3)
    assert np.allclose(found[1], solved[1], atol=2e-3)


def test_the_top_of_the_lists_is_kept_better(scores: tuple[Floats, Floats, sp.csr_matrix]) -> None:
    users, entities, known = scores
    start = reduced(users, entities, 5)
    found = refine(users, entities, start, known, rounds=2)
    wanted, weights = users @ entities.T, weighted(users, entities, known)

    def error(of_users: Floats, of_entities: Floats) -> float:
        return float((weights * (of_users @ of_entities.T - wanted) ** 2).sum())

    def kept(of_users: Floats, of_entities: Floats) -> float:
        lists = []
        for each in (wanted.copy(), of_users @ of_entities.T):
            each[known.toarray() > 0] = -np.inf
            lists.append(np.argsort(-each, axis=1)[:, :8])
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(*lists, strict=True)]))

    assert error(*found) < 0.7 * error(*start)
    assert kept(*found) > kept(*start)
    assert np.array_equal(found[0], refine(users, entities, start, known, rounds=2)[0])


def test_onto_gives_the_nearest_vector(scores: tuple[Floats, Floats, sp.csr_matrix]) -> None:
    users, entities, _ = scores
    near = reduced(users, entities, 5)[1]
    expected = np.linalg.lstsq(near, entities @ users.T, rcond=None)[0].T
    assert np.allclose(users @ onto(entities, near), expected, atol=1e-3)


def test_a_model_of_few_columns_publishes_refined_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "_TOP", 5)
    snapshot = themes_snapshot(films=60, people=40)
    graph, transforms = Graph(snapshot), fit_features(Graph(snapshot), dimension=8, seed=0)

    def trained(refined: int) -> FactorModel:
        own = {
            "encoder": "light_gcn", "layers": 2, "dimension": 6, "hidden": 8, "rank": 10, "steps": 4,
            "batch_size": 16, "negatives": 20, "refinement": refined,
        }  # fmt: skip
        settings = TrainingSettings(user=own, input_dimension=8, sampler_threads=0)
        training = FactorTraining(graph, transforms, settings)
        fit(training.model, training.objective, 100, settings, tmp_path / str(refined), "", False, NoProgress())
        return training.finish()

    plain, refined = trained(0), trained(1)
    assert not len(plain.refined_users)
    found = {}
    known = Interactions.of(graph).matrix.toarray() > 0
    for name, model in (("plain", plain), ("refined", refined)):
        published = published_of(model, transforms, graph)
        found[name] = published["Person"] @ published["Film"].T
    joined = refined.joined_all(graph)
    wanted = joined["Person"] @ joined["Film"].T
    wanted[known] = -np.inf
    # The first unknown film of each person: how far its score is from the one wanted.
    rows, first = np.arange(40), wanted.argmax(axis=1)
    far = {name: float(np.abs((each - wanted)[rows, first]).mean()) for name, each in found.items()}
    assert far["refined"] < far["plain"]


def published_of(model: FactorModel, transforms: FeatureTransforms, graph: Graph) -> dict[str, Floats]:
    vectors = embed(model, transforms, graph, node_types=("Person", "Film")).vectors
    cold = Interactions.of(graph).entity_degrees == 0
    assert not vectors["Film"][cold].any()
    return vectors
