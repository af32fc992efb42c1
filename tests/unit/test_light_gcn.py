"""LightGCN and matrix factorisation: propagation, spectral part, reduction, training, and what is published of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from graph_store.progress import NoProgress
from graph_store.settings import TrainingSettings
from model_store.csr import EdgeType
from model_store.features import FeatureTransforms
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document, themes_snapshot
from training.encoders.light_gcn import Propagation
from training.fit_features import fit_features
from training.graph import Graph
from training.inference import embed
from training.model import TrainedModel
from training.onnx_export import export_encoder
from training.train import fit, train
from training.transductive.factor_model import FactorModel
from training.transductive.fit import FactorTraining
from training.transductive.interactions import Interactions
from training.transductive.reduction import gram, reduce_inner_products
from training.transductive.spectral import fit_spectral

Themes = tuple[MemorySnapshot, FeatureTransforms]


@pytest.fixture(scope="module")
def themes() -> Themes:
    snapshot = themes_snapshot(films=60, people=40)
    return snapshot, fit_features(Graph(snapshot), dimension=8, seed=0)


def settings(**own: Any) -> TrainingSettings:
    user = {
        "encoder": "light_gcn", "layers": 2, "dimension": 20, "hidden": 8, "rank": 10, "steps": 12, "batch_size": 16,
        "negatives": 20, "learning_rate": 0.02, "temperature": 0.15, "fan_out": 50, **own,
    }  # fmt: skip
    return TrainingSettings(user=user, input_dimension=8, sampler_threads=0)


def trained(themes: Themes, folder: Path, **own: Any) -> FactorModel:
    snapshot, transforms = themes
    chosen = settings(**own)
    training = FactorTraining(Graph(snapshot), transforms, chosen)
    fit(training.model, training.objective, 100, chosen, folder, "start", False, NoProgress())
    return training.finish()


@pytest.fixture(scope="module")
def light_gcn(themes: Themes, tmp_path_factory: pytest.TempPathFactory) -> FactorModel:
    """One training for all tests that do not change the model."""
    return trained(themes, tmp_path_factory.mktemp("light_gcn"))


def dense(graph: Graph) -> np.ndarray:
    return np.asarray(Interactions.of(graph).matrix.todense())


def test_interactions_count_each_pair_once(themes: Themes) -> None:
    graph = Graph(themes[0])
    csr = graph.csr(next(each for each in graph.edge_types if each.triple.name == "WATCHED" and not each.reversed))
    found = Interactions.of(graph)
    expected = np.zeros((40, 60), np.float32)
    expected[np.repeat(np.arange(40), np.diff(csr.indptr)), csr.indices] = 1
    assert np.array_equal(found.matrix.todense(), expected)
    assert found.counts == {"Person": 40, "Film": 60}
    assert found.user_degrees.sum() == found.entity_degrees.sum() == expected.sum()


def test_propagation_is_the_mean_over_layers_of_the_normalised_adjacency(themes: Themes) -> None:
    matrix = dense(Graph(themes[0]))
    adjacency = np.block([[np.zeros((40, 40)), matrix], [matrix.T, np.zeros((60, 60))]])
    degrees = np.maximum(adjacency.sum(1), 1)
    normal = adjacency / np.sqrt(degrees[:, None] * degrees)
    states = np.random.default_rng(0).standard_normal((100, 5)).astype(np.float32)
    expected = (states + normal @ states + normal @ normal @ states) / 3

    learned = torch.tensor(states, requires_grad=True)
    found = Propagation(Interactions.of(Graph(themes[0])), 2)(learned)
    assert np.allclose(found.detach(), expected, atol=1e-6)
    upstream = np.random.default_rng(1).standard_normal((100, 5)).astype(np.float32)
    found.backward(torch.from_numpy(upstream))  # type: ignore[no-untyped-call]
    # The operator is symmetric: its derivative is the operator.
    assert learned.grad is not None
    expected = (upstream + normal @ upstream + normal @ normal @ upstream) / 3
    assert np.allclose(learned.grad, expected, atol=1e-6)


def test_no_propagation_is_matrix_factorisation(themes: Themes) -> None:
    learned = torch.randn(100, 3)
    assert Propagation(Interactions.of(Graph(themes[0])), 0)(learned) is learned


def test_spectral_messages_add_up_to_the_singular_vectors(themes: Themes) -> None:
    interactions = Interactions.of(Graph(themes[0]))
    matrix = dense(Graph(themes[0]))
    rows, columns = np.maximum(matrix.sum(1), 1), np.maximum(matrix.sum(0), 1)
    left, strength, right = np.linalg.svd(matrix / rows[:, None] ** 0.3 / columns**0.45, full_matrices=False)
    found = fit_spectral(interactions, rank=6, user_power=0.3, entity_power=0.45, seed=0)
    assert np.allclose(found.strength, strength[:6] / strength[0], atol=1e-4)
    users = matrix @ found.of_entities(0.75)
    entities = matrix.T @ found.of_users()
    expected = rows[:, None] ** 0.3 * (left[:, :6] * (strength[:6] / strength[0]) ** 0.75) @ right[:6] * columns**0.45
    assert np.allclose(users @ entities.T, expected, atol=1e-4)


@pytest.mark.parametrize("dimension", [4, 9, 12])
def test_reduction_is_the_truncated_svd_of_the_scores(dimension: int) -> None:
    rng = np.random.default_rng(0)
    users, entities = (
        (rng.standard_normal((n, 9)) * 10.0 ** rng.integers(-2, 3, 9)).astype(np.float32) for n in (30, 40)
    )
    for_users, for_entities = reduce_inner_products(gram(users), gram(entities), dimension)
    scores = users.astype(np.float64) @ entities.T
    left, strength, right = np.linalg.svd(scores, full_matrices=False)
    strength[min(dimension, 9) :] = 0
    found = (users @ for_users) @ (entities @ for_entities).T
    assert for_users.shape == for_entities.shape == (9, dimension)
    assert np.abs(found - (left * strength) @ right).max() < 1e-3 * np.abs(scores).max()


@pytest.mark.parametrize("own", [{}, {"signals": 0.0}, {"encoder": "matrix_factorisation"}])
def test_vectors_keep_the_score_and_rank_the_theme_first(
    themes: Themes, light_gcn: FactorModel, tmp_path: Path, own: dict[str, Any]
) -> None:
    graph = Graph(themes[0])
    model = trained(themes, tmp_path, **own) if own else light_gcn
    found = embed(model, themes[1], graph, node_types=("Person", "Film")).vectors
    assert found["Person"].shape == (40, 20)
    joined = model.joined_all(graph)
    assert np.allclose(found["Person"] @ found["Film"].T, joined["Person"] @ joined["Film"].T, atol=1e-2)
    scores = found["Person"] @ found["Film"].T
    scores[dense(graph) > 0] = -np.inf
    # Person j is of theme j % 4, and so is film i.
    right = np.argsort(-scores, axis=1)[:, :3] % 4 == (np.arange(40) % 4)[:, None]
    assert right.mean() > 0.8


def test_training_lowers_the_loss_and_follows_from_the_seed(
    themes: Themes, light_gcn: FactorModel, tmp_path: Path
) -> None:
    training = FactorTraining(Graph(themes[0]), themes[1], settings())
    asked = training.objective.draw(3)
    assert asked is not None
    before = float(training.objective.loss(training.model, asked).detach())
    first, second = light_gcn, trained(themes, tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert float(training.objective.loss(first, asked).detach()) < before - 0.1


def test_what_a_user_knows_is_no_negative(themes: Themes) -> None:
    training = FactorTraining(Graph(themes[0]), themes[1], settings())
    asked = training.objective.draw(0)
    assert asked is not None
    matrix = dense(Graph(themes[0]))
    hit = matrix[asked.users][:, asked.negatives] > 0
    assert np.array_equal(np.argwhere(hit), np.stack(asked.known, axis=1)[np.lexsort(asked.known[::-1])])
    assert hit.any()


def test_the_online_encoder_gives_a_new_user_the_vector_of_one_with_the_same_links(
    themes: Themes, light_gcn: FactorModel, tmp_path: Path
) -> None:
    graph, transforms = Graph(themes[0]), themes[1]
    model = copy.deepcopy(light_gcn)
    with torch.no_grad():
        # What training learned of a node itself is not known of a new one.
        model.learned_users.zero_()
        model.learned_entities.zero_()
    embedding = embed(model, transforms, graph, node_types=("Person", "Film"))
    for node_type, other in (("Person", "Film"), ("Film", "Person")):
        path = tmp_path / f"{node_type}.onnx"
        assert export_encoder(model, node_type, path) < 1e-5
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        kind = next(n for n, each in enumerate(model.shape.edge_types) if each.node_type == node_type)
        neighbours = graph.csr(model.shape.edge_types[kind]).indices[
            : graph.csr(model.shape.edge_types[kind]).indptr[1]
        ]
        slots = len(neighbours) + 2
        states = np.ones((1, slots, model.state_widths[0]), np.float32)
        states[0, : len(neighbours)] = embedding.states[0][other][neighbours]
        kinds = np.full((1, slots), kind, np.int64)
        kinds[0, -1] = 1 - kind  # an edge of another kind, and an empty slot: neither is read
        mask = np.ones((1, slots), bool)
        mask[0, -2] = False
        feed = {
            "features": np.zeros((1, model.shape.widths[node_type]), np.float32),
            "edge_type": kinds, "weight": np.ones((1, slots), np.float32), "mask": mask, "states_0": states,
        }  # fmt: skip
        wanted = {each.name for each in session.get_inputs()}
        vector = session.run(["vector"], {name: value for name, value in feed.items() if name in wanted})[0][0]
        expected = embedding.vectors[node_type][0]
        assert np.abs(vector - expected).max() < 1e-4 * np.abs(expected).max()


def test_who_never_engaged_has_no_vector(themes: Themes, light_gcn: FactorModel) -> None:
    found = embed(light_gcn, themes[1], Graph(themes[0]), node_types=("Film",)).vectors["Film"]
    cold = Interactions.of(Graph(themes[0])).entity_degrees == 0
    assert cold.any()
    assert np.array_equal(cold, ~found.any(axis=1))


def test_train_resumes_and_loads(tmp_path: Path) -> None:
    project = project_of(
        themes_document(),
        tmp_path,
        {
            "training.similar.steps": 1,
            "training.similar.batch_size": 8,
            "training.similar.hidden": 8,
            "training.similar.dimension": 8,
            "training.input_dimension": 8,
            "training.sampler_threads": 0,
            **{
                f"training.user.{key}": value
                for key, value in settings(steps=2).user.model_dump(exclude_unset=True).items()
            },
        },
    )
    model = train(project, themes_snapshot(films=24, people=16), folder=tmp_path / "model")
    assert isinstance(model.spaces["user"], FactorModel)
    again = TrainedModel.load(tmp_path / "model").spaces["user"]
    assert isinstance(again, FactorModel)
    for name, tensor in model.spaces["user"].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_it_is_for_users_alone() -> None:
    with pytest.raises(ValidationError, match="for the space user alone"):
        TrainingSettings(similar={"encoder": "light_gcn"})


def test_edge_types_are_the_engagements(themes: Themes) -> None:
    shape = FactorTraining(Graph(themes[0]), themes[1], settings()).model.shape
    assert {each.triple.name for each in shape.edge_types} == {"WATCHED"}
    assert all(isinstance(each, EdgeType) for each in shape.edge_types)
