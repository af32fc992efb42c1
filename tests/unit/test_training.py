"""Training: what it learns, that it can be cut short and repeated, and graphs with hardly anything in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from graph_store.project import Project
from graph_store.schema import Triple
from graph_store.settings import SpaceSettings
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from model_store.writer import BundleWriter
from tests.memory_snapshot import THEMES, MemorySnapshot, project_of, themes_document, themes_snapshot
from training.checkpoint import load_checkpoint
from training.errors import CheckpointError, GraphTooSmall
from training.evaluate import EvaluationReport, evaluate
from training.graph import Graph, kept_edges
from training.holdout import split_newest
from training.inference import embed
from training.model import TrainedModel
from training.objectives import similar_tasks
from training.publish import write_contents
from training.supervision import supervision_parts
from training.train import resolved_steps, train

WATCHED = EdgeType(Triple("Person", "WATCHED", "Film"))
SMALL = {
    # Batches this small take longest waiting for a second thread.
    "training.threads": 1,
    "training.input_dimension": 8,
    "training.similar.dimension": 16,
    "training.similar.hidden": 16,
    "training.similar.batch_size": 128,
    "training.similar.steps": 24,
    "training.user.dimension": 16,
    "training.user.hidden": 16,
    "training.user.batch_size": 128,
    "training.user.steps": 40,
    "training.checkpoint_every": 7,
}


def project(folder: Path, document: dict[str, Any] | None = None, **settings: Any) -> Project:
    return project_of(document or themes_document(), folder, {**SMALL, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, MemorySnapshot, TrainedModel, Path]:
    folder = tmp_path_factory.mktemp("trained")
    snapshot, declared = themes_snapshot(), project(folder)
    return declared, snapshot, train(declared, snapshot, folder=folder / "checkpoints"), folder / "checkpoints"


def film_vectors(snapshot: MemorySnapshot, model: TrainedModel) -> np.ndarray:
    found = embed(model.spaces["similar"], model.transforms, Graph(snapshot), node_types=("Film",))
    return found.vectors["Film"]


def test_films_lie_near_films_of_their_theme_cold_ones_too(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path],
) -> None:
    _, snapshot, model, _ = trained
    vectors = film_vectors(snapshot, model)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-5)
    cosines = vectors @ vectors.T - 2 * np.eye(len(vectors))
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    right = nearest % THEMES == (np.arange(len(vectors)) % THEMES)[:, None]
    assert right.mean() > 0.9
    assert right[-4:].mean() > 0.8  # nobody watched these


def test_concepts_lie_near_the_films_they_describe(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path],
) -> None:
    _, snapshot, model, _ = trained
    found = embed(model.spaces["similar"], model.transforms, Graph(snapshot), node_types=("Film", "Genre")).vectors
    best = (found["Genre"] @ found["Film"].T).argmax(axis=1)
    assert (best % THEMES).tolist() == list(range(THEMES))


def test_users_are_shown_films_of_their_theme(trained: tuple[Project, MemorySnapshot, TrainedModel, Path]) -> None:
    _, snapshot, model, _ = trained
    found = embed(model.spaces["user"], model.transforms, Graph(snapshot), node_types=("Person", "Film")).vectors
    shown = np.argsort(-(found["Person"] @ found["Film"].T), axis=1)[:, :10]
    right = shown % THEMES == (np.arange(len(shown)) % THEMES)[:, None]
    assert right.mean() > 0.7


def test_the_same_seed_trains_the_same_vectors(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    declared, snapshot, model, _ = trained
    again = train(declared, snapshot, folder=tmp_path)
    assert np.array_equal(film_vectors(snapshot, again), film_vectors(snapshot, model))
    other = train(project(tmp_path, **{"training.seed": 2}), snapshot, folder=tmp_path / "other")
    assert not np.allclose(film_vectors(snapshot, other), film_vectors(snapshot, model), atol=1e-3)


class Killed(Exception):
    pass


class KillsAt:
    """Progress that ends the work at a step of one space."""

    def __init__(self, description: str, step: int) -> None:
        self.description, self.step, self.done = description, step, 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Any]:
        outer = self

        class Task:
            def advance(self, steps: int = 1, **fields: object) -> None:
                if description == outer.description:
                    outer.done += steps
                    if outer.done >= outer.step:
                        raise Killed

        yield Task()


@pytest.mark.parametrize("space", ["similar", "user"])
def test_a_training_cut_short_goes_on_to_the_same_result(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path, space: str
) -> None:
    declared, snapshot, model, _ = trained
    with pytest.raises(Killed):
        train(declared, snapshot, folder=tmp_path, progress=KillsAt(f"train {space}", 17))
    state = torch.load(tmp_path / space / "checkpoint.pt", weights_only=True)
    assert state["step"] == 14
    with pytest.raises(CheckpointError, match="no trained model"):
        TrainedModel.load(tmp_path)
    counted = KillsAt(f"train {space}", 10**9)
    resumed = train(declared, snapshot, folder=tmp_path, progress=counted)
    assert counted.done == model.metrics[space]["steps"]  # 14 told at once, then the others
    for name, found in resumed.spaces[space].state_dict().items():
        assert torch.equal(found, model.spaces[space].state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    snapshot = themes_snapshot(films=24, people=12)
    settings = {"training.similar.steps": 8, "training.user.steps": 0}
    train(project(tmp_path, **settings), snapshot, folder=tmp_path)
    told = KillsAt("train similar", 10**9)
    train(
        project(tmp_path, **settings, **{"training.similar.learning_rate": 0.5}),
        snapshot,
        folder=tmp_path,
        progress=told,
    )
    state = torch.load(tmp_path / "similar" / "checkpoint.pt", weights_only=True)
    assert '"learning_rate":0.5' in state["settings"]


def test_a_loaded_model_is_the_saved_one(trained: tuple[Project, MemorySnapshot, TrainedModel, Path]) -> None:
    declared, snapshot, model, folder = trained
    loaded = TrainedModel.load(folder)
    assert np.array_equal(film_vectors(snapshot, loaded), film_vectors(snapshot, model))
    assert loaded.configuration == declared.settings.training.model_dump(mode="json")
    assert loaded.summary() == model.summary()


def test_held_out_engagements_are_the_newest_and_carry_no_message() -> None:
    snapshot = themes_snapshot()
    split = split_newest(snapshot, 0.25)
    train_csr, held = split.graph.csr(WATCHED), split.held_out[WATCHED]
    whole = snapshot.csr(WATCHED)
    assert train_csr.num_edges + held.num_edges == whole.num_edges
    for person in range(snapshot.num_nodes("Person")):
        kept, out = train_csr.time[train_csr.row(person)], held.time[held.row(person)]
        assert len(out) == max(int((len(kept) + len(out)) * 0.25), 1)
        assert out.min() >= kept.max()
    backward = split.graph.csr(EdgeType(WATCHED.triple, True))
    assert backward.num_edges == train_csr.num_edges
    assert all(split.graph.schema.relation(each.triple).derive is None for each in split.graph.edge_types)


def test_a_pair_that_another_relation_keeps_is_not_held_out(tmp_path: Path) -> None:
    liked = {"triple": ["Person", "LIKED", "Film"], "role": "engagement"}
    schema = project_of(
        {
            "name": "two",
            "nodes": {"Film": {"role": "entity"}, "Person": {"role": "user"}},
            "relations": [{"triple": ["Person", "WATCHED", "Film"], "role": "engagement"}, liked],
        },
        tmp_path,
    ).schema
    films = [f"f{number}" for number in range(4)]
    snapshot = MemorySnapshot(
        schema,
        {"Film": [{"id": film} for film in films], "Person": [{"id": "p"}]},
        {
            Triple("Person", "WATCHED", "Film"): [("p", film) for film in films],
            # Two only: all are kept for training.
            Triple("Person", "LIKED", "Film"): [("p", "f0"), ("p", "f1")],
        },
    )
    held = split_newest(snapshot, 0.75).held_out[WATCHED].indices.tolist()
    out = set(range(4)) - set(split_newest(snapshot, 0.75).graph.csr(WATCHED).indices.tolist())
    assert len(out) == 3
    assert out & {0, 1}
    assert set(held) == out - {0, 1}


def test_without_steps_there_is_no_loss_to_report(tmp_path: Path) -> None:
    chosen = project(tmp_path, **{"training.similar.steps": 0, "training.user.steps": 0})
    trained = train(chosen, themes_snapshot(), folder=tmp_path)
    assert [each["steps"] for each in trained.metrics.values()] == [0.0, 0.0]
    assert all(np.isfinite(value) for each in trained.metrics.values() for value in each.values())


def test_a_checkpoint_that_is_not_one_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    model = torch.nn.Linear(1, 1)
    model.register_buffer("medians", torch.zeros(1))
    step, loss = load_checkpoint(tmp_path, model, torch.optim.AdamW(model.parameters()), start="a")  # type: ignore[arg-type]
    assert step == 0
    assert np.isnan(loss)


def test_engagements_count_where_co_engagement_has_no_edges() -> None:
    snapshot = themes_snapshot()
    empty = {
        each: kept_edges(snapshot.csr(each), np.zeros(snapshot.csr(each).num_edges, bool))
        for each in snapshot.edge_types
        if each.triple.name == "CO_WATCHED"
    }
    tasks = similar_tasks(Graph(snapshot, replaced=empty), balance=0.0, concept_share=0.0)
    assert "Film sharing Person" in [source.name for source in tasks.sources]


def test_supervision_parts_ask_for_every_pair_once_and_never_send_it() -> None:
    graph = split_newest(themes_snapshot(), 0.1).graph
    parts = supervision_parts(graph, 3, seed=4)
    films = graph.offsets["Film"]
    people = graph.offsets["Person"]
    asked = [set(zip((part.users - people).tolist(), (part.entities - films).tolist(), strict=True)) for part in parts]
    assert sum(len(each) for each in asked) == graph.csr(WATCHED).num_edges == len(set().union(*asked))
    for part, pairs in zip(parts, asked, strict=True):
        csr = part.message.csr(WATCHED)
        rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        sent = set(zip(rows.tolist(), csr.indices.tolist(), strict=True))
        assert not sent & pairs
        assert len(sent) + len(pairs) == graph.csr(WATCHED).num_edges


def test_positive_pairs_come_from_every_relation_in_balance() -> None:
    graph = Graph(themes_snapshot())
    tasks = similar_tasks(graph, balance=0.0, concept_share=0.25)
    assert [source.name for source in tasks.sources] == [
        "(Film)-[CO_WATCHED]->(Film)",
        "Film sharing Genre",
        "Film sharing Keyword",
        "Film linked with Film",
        "Film with Genre",
        "Film with Keyword",
    ]
    assert tasks.shares == pytest.approx([0.1875] * 4 + [0.125] * 2)
    rng = np.random.default_rng(0)
    first = graph.offsets["Film"]
    for source in tasks.sources:
        left, right = source.draw(500, rng)
        assert ((left >= first) & (left < first + 80)).all()
        if source.name == "Film sharing Genre":
            assert ((left - right) % THEMES == 0).all()
        if source.name == "Film with Genre":
            assert (right - graph.offsets["Genre"]).tolist() == ((left - first) % THEMES).tolist()
    left, right = tasks.draw(400, rng, concepts=False)
    assert (left != right).all()
    assert 200 < len(left) <= 304
    proportional = similar_tasks(graph, balance=1.0, concept_share=0.0)
    edges = np.array([source.edges for source in proportional.sources[:4]])
    assert proportional.shares[:4] == pytest.approx(edges / edges.sum())


def test_steps_follow_from_the_graph_unless_set() -> None:
    assert resolved_steps("similar", SpaceSettings(steps=7), 10**9) == 7
    counts = [resolved_steps("similar", SpaceSettings(), edges) for edges in (10, 20_000, 10**9)]
    assert counts == [30, 6 * 20_000 // 1024, 200]


FILM_ONLY = {"nodes": {"Film": {"role": "entity", "properties": {"year": {"type": "int", "feature": "number"}}}}}


@pytest.mark.parametrize("films", [1, 2, 5])
def test_a_catalogue_of_properties_alone_has_vectors(films: int, tmp_path: Path) -> None:
    declared = project(tmp_path, FILM_ONLY)
    nodes = {"Film": [{"id": str(number), "year": 2000 + number} for number in range(films)]}
    snapshot = MemorySnapshot(declared.schema, nodes, {})
    model = train(declared, snapshot, folder=tmp_path / "ck")
    assert set(model.spaces) == {"similar"}
    assert any("left out, there are no engagements" in note for note in model.notes)
    vectors = film_vectors(snapshot, model)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(films), abs=1e-5)


def test_a_graph_without_entities_is_refused(tmp_path: Path) -> None:
    declared = project(tmp_path)
    with pytest.raises(GraphTooSmall, match="no entities"):
        train(declared, MemorySnapshot(declared.schema, {}, {}), folder=tmp_path)


def test_entities_without_any_link_or_property_do_not_fail(tmp_path: Path) -> None:
    declared = project(tmp_path, {"nodes": {"Film": {"role": "entity"}, "Tag": {"role": "concept"}}})
    snapshot = MemorySnapshot(declared.schema, {"Film": [{"id": "a"}, {"id": "b"}]}, {})
    vectors = film_vectors(snapshot, train(declared, snapshot, folder=tmp_path / "ck"))
    assert not vectors.any()


def test_one_user_and_two_films_train_both_spaces(tmp_path: Path) -> None:
    declared = project(tmp_path, **{"training.similar.steps": 3, "training.user.steps": 8})
    films = [{"id": "a", "title": "One", "year": None}, {"id": "b", "title": None, "year": 1}]
    snapshot = MemorySnapshot(
        declared.schema,
        {"Film": films, "Person": [{"id": "p"}]},
        {WATCHED.triple: [("p", "a", 3.0, 1), ("p", "b", 4.0, 2)]},
    )
    model = train(declared, snapshot, folder=tmp_path / "ck")
    found = embed(model.spaces["user"], model.transforms, Graph(snapshot), node_types=("Person", "Film")).vectors
    assert all(np.isfinite(each).all() for each in found.values())


def test_a_bundle_holds_what_was_trained(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    declared, snapshot, model, _ = trained
    evaluation = evaluate(declared, snapshot, model)
    with BundleWriter(tmp_path, "themes") as writer:
        write_contents(writer, declared, snapshot, model, evaluation)
        version = writer.commit()
    bundle = Bundle.load(tmp_path / version)
    assert np.array_equal(bundle.vectors("similar", "Film"), film_vectors(snapshot, model))
    assert bundle.manifest.snapshot_hash == snapshot.content_hash
    similar, user = bundle.spaces["similar"], bundle.spaces["user"]
    assert list(similar.node_types) == ["Film", "Genre", "Keyword"]
    assert [encoder.node_type for encoder in similar.encoders] == ["Film", "Genre", "Keyword"]
    assert list(user.node_types) == ["Person", "Film"]
    assert [encoder.node_type for encoder in user.encoders] == ["Person", "Film"]
    assert similar.max_neighbours == declared.settings.training.similar.fan_out
    assert all(encoder.max_difference < 1e-5 for encoder in (*similar.encoders, *user.encoders))
    watched = snapshot.csr(EdgeType(WATCHED.triple, True))
    assert bundle.popularity("Film").tolist() == np.diff(watched.indptr).tolist()
    assert (similar.layers, user.layers) == (0, 1)
    assert bundle.states("user", 0, "Person").shape == (60, 16)
    published = EvaluationReport.from_json(evaluation.to_json())
    assert published.protocols[0].scores["kithkin"]["NDCG@20"].mean == pytest.approx(
        evaluation.protocols[0].scores["kithkin"]["NDCG@20"].mean, abs=1e-6
    )
    features = bundle.features().apply("Film", pa.table({"id": ["new"], "title": ["theme 2 story"]}), {})
    assert features.shape == (1, similar.encoders[0].feature_width)
