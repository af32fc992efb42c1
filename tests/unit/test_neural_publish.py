"""The neural scorer from kithkin.toml to a bundle: trained or somebody's own, searched with an audited beam."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_store.errors import ConfigError
from graph_store.project import Project
from graph_store.schema import Triple
from graph_store.settings import PublishSettings
from model_store.beam_search import SearchSettings
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from model_store.errors import BundleCorrupt, BundleIncomplete, ScorerMismatch
from model_store.neural_files import open_neural
from model_store.onnx_scorer import OnnxScorer
from model_store.writer import BundleWriter
from server.deadline import Deadline
from server.index.publish import build_indexes
from server.model.served_model import ServedModel
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document, themes_snapshot
from tests.neural_bundle import item_vectors, write_scorer
from training.evaluate import evaluate
from training.model import TrainedModel
from training.neural_metric.graph import build_graph
from training.neural_metric.histories import Histories
from training.neural_metric.publish import all_scores, choose_beam
from training.neural_metric.settings import GraphSettings
from training.neural_metric.start import incidence_vectors
from training.publish import write_contents
from training.train import train

WATCHED = EdgeType(Triple("Person", "WATCHED", "Film"))
SMALL = {
    "training.threads": 1,
    "training.similar.steps": 1,
    "training.user.steps": 1,
    "training.similar.hidden": 16,
    "training.user.hidden": 16,
    "training.neural.enabled": True,
    "training.neural.dimension": 8,
    "training.neural.hidden": 16,
    "training.neural.events": 6,
    "training.neural.batch_size": 32,
    "training.neural.negatives": 16,
    "training.neural.twin_steps": 30,
    "training.neural.steps": 40,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are too small here for threads, which wait for each other where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def declared(folder: Path, **settings: Any) -> Project:
    return project_of(themes_document(), folder, {**SMALL, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, MemorySnapshot, TrainedModel, Path]:
    folder = tmp_path_factory.mktemp("neural")
    snapshot, project = themes_snapshot(people=100), declared(folder)
    return project, snapshot, train(project, snapshot, folder=folder / "ck"), folder / "ck"


def published(project: Project, snapshot: MemorySnapshot, model: TrainedModel, folder: Path) -> Bundle:
    with BundleWriter(folder, "themes") as writer:
        write_contents(writer, project, snapshot, model, evaluate(project, snapshot, model))
        build_indexes(writer, PublishSettings())
        return Bundle.load(folder / writer.commit())


def test_a_bundle_answers_by_the_score_that_was_trained(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    project, snapshot, _, folder = trained
    model = TrainedModel.load(folder)
    assert model.neural == folder / "neural"
    assert model.metrics["neural"]["steps"] == 40
    bundle = published(project, snapshot, model, tmp_path)
    neural = bundle.manifest.neural
    assert (neural.events.source, neural.events.name, neural.events.target) == tuple(WATCHED.triple)
    assert (neural.dimension, neural.max_events, neural.width) == (8, 6, 8)
    assert {(each.name, each.type, tuple(each.shape)) for each in neural.inputs} == {
        ("events", "float32", ("1", "T", "8")),
        ("mask", "bool", ("1", "T")),
        ("candidates", "float32", ("N", "8")),
        ("scores", "float32", ("N",)),
    }
    assert neural.HasField("max_difference")
    assert neural.max_difference < 1e-5
    assert neural.overlap >= neural.overlap_target == 0.95
    assert (neural.audited_at, neural.audited_users) == (20, 50)
    assert 0 < neural.share_evaluated <= 1
    checked = {each.path for each in bundle.manifest.files}
    assert {
        "neural/scorer.onnx",
        "neural/entities.npy",
        "neural/graph/graph.json",
        "neural/graph/0.indptr.npy",
    } < checked

    served = ServedModel.load(bundle)
    found = served.neural("score")
    person = served.catalogue.resolve(_ref("Person", "p003"), "user")
    events = found.events_of(person, "p003", "user")
    seen = snapshot.csr(WATCHED)
    part = seen.row(person.row)
    assert seen.time is not None
    newest = seen.time[part][np.argsort(-seen.time[part], kind="stable")][:6]
    assert sorted(seen.time[part][np.isin(seen.indices[part], events)].tolist()) == sorted(newest.tolist())
    scorer = OnnxScorer(folder / "neural" / "scorer.onnx", 8)
    table = np.load(folder / "neural" / "entities.npy")
    exact = all_scores(scorer, table, events)
    answer = found.search(events, 10, exclude=np.array([events[0]]), allowed=None, deadline=Deadline())
    order = np.argsort(-exact, kind="stable")
    assert answer.rows.tolist() == order[order != events[0]][:10].tolist()


def test_without_the_section_nothing_is_trained_or_published(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    _, snapshot, model, _ = trained
    project = declared(tmp_path, **{"training.neural.enabled": False})
    bundle = published(project, snapshot, model, tmp_path / "models")
    assert not bundle.manifest.HasField("neural")
    assert open_neural(bundle) is None
    assert not (bundle.folder / "neural").exists()


def test_the_spaces_are_those_of_a_training_without_it(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    """Switching it on goes on from the spaces' checkpoints, which know nothing of it."""
    _, snapshot, _, folder = trained
    project = declared(tmp_path, **{"training.neural.enabled": False})
    alone = train(project, snapshot, folder=tmp_path / "ck")
    assert alone.neural is None
    for name in ("similar", "user"):
        starts = [
            torch.load(each / name / "checkpoint.pt", weights_only=True)["start"] for each in (folder, tmp_path / "ck")
        ]
        assert starts[0] == starts[1]


def test_anyones_scorer_is_published_in_place_of_ours(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    _, snapshot, model, _ = trained
    write_scorer(tmp_path / "own.onnx")
    project = declared(tmp_path, **{"training.neural.scorer": "own.onnx", "training.neural.beam": 40})
    bundle = published(project, snapshot, model, tmp_path / "models")
    neural = bundle.manifest.neural
    assert neural.source == "own.onnx"
    assert not neural.HasField("max_difference")
    assert neural.beam == 40
    files = open_neural(bundle)
    assert files is not None
    assert files.scorer.read_bytes() == (tmp_path / "own.onnx").read_bytes()
    found = ServedModel.load(bundle).neural("score")
    events = np.array([3, 9], np.int64)
    expected = np.maximum(files.entities @ files.entities[events].T, 0).max(axis=1)
    assert found.scores(events, np.arange(80)) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_published_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    snapshot = themes_snapshot(people=20)
    write_scorer(tmp_path / "narrow.onnx", dimension=5)
    with pytest.raises(ScorerMismatch, match="takes vectors of length 5, the entities' have 8"):
        train(declared(tmp_path, **{"training.neural.scorer": "narrow.onnx"}), snapshot, folder=tmp_path / "ck")
    with pytest.raises(ConfigError, match=r"training\.neural\.scorer: no such file"):
        train(declared(tmp_path, **{"training.neural.scorer": "none.onnx"}), snapshot, folder=tmp_path / "ck")
    given = declared(tmp_path, **{"training.neural.relation": ["Film", "HAS_GENRE", "Genre"]})
    with pytest.raises(ConfigError, match=r"training\.neural\.relation: .*no engagement relation; there are: "):
        train(given, snapshot, folder=tmp_path / "ck")
    assert not (tmp_path / "ck").exists()
    with pytest.raises(ConfigError, match="twin_steps"):
        declared(tmp_path, **{"training.neural.twin_steps": 40})


def test_a_bundle_that_lacks_its_graph_is_not_published_nor_opened(
    trained: tuple[Project, MemorySnapshot, TrainedModel, Path], tmp_path: Path
) -> None:
    project, snapshot, model, _ = trained
    with BundleWriter(tmp_path, "themes") as writer:
        write_contents(writer, project, snapshot, model, evaluate(project, snapshot, model))
        (writer.neural_folder / "graph" / "graph.json").unlink()
        with pytest.raises(BundleIncomplete, match=r"neural/graph/graph\.json"):
            writer.commit()
    bundle = published(project, snapshot, model, tmp_path)
    (bundle.folder / "neural" / "graph" / "0.indices.npy").unlink()
    with pytest.raises(BundleCorrupt, match="no similarity graph"):
        open_neural(bundle)


def test_the_narrowest_beam_that_finds_enough_is_chosen(tmp_path: Path) -> None:
    """A wider beam finds more and evaluates more; what is told is of users that did not choose it."""
    write_scorer(tmp_path / "scorer.onnx")
    table = item_vectors()
    graph = build_graph(table, GraphSettings(neighbours=6))
    scorer = OnnxScorer(tmp_path / "scorer.onnx", 8)
    rng = np.random.default_rng(0)
    events = [rng.integers(len(table), size=3) for _ in range(12)]
    search = SearchSettings(width=8)
    found = {
        target: choose_beam(graph, scorer, table, events, search, beams=(100, 200, 400, 1600), target=target)
        for target in (0.5, 0.97, 1.01)
    }
    assert found[0.5].beam == 100
    assert found[0.5].beam < found[0.97].beam <= found[1.01].beam == 1600
    assert found[0.97].overlap > 0.93
    assert found[0.5].share < found[0.97].share <= found[1.01].share
    assert found[0.5].users == 6
    one = choose_beam(graph, scorer, table, events[:1], search, beams=(100,))
    assert (one.users, one.beam) == (1, 100)


def test_vectors_start_from_who_was_engaged_with_by_the_same_users() -> None:
    """Two groups of entities, users of one each; a third group that no training user touched has nothing."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(user % 2, 20, 2))[:6] for user in range(60)] + [np.arange(20, 26)]
    known = Histories(
        indptr=np.arange(len(rows) + 1) * 6, entities=np.concatenate(rows).astype(np.int32), ordered=False
    )
    vectors = incidence_vectors(known, np.arange(60), 26, 4, seed=1)
    assert not vectors[20:].any()
    unit = vectors[:20] / np.linalg.norm(vectors[:20], axis=1, keepdims=True)
    cosine, same = unit @ unit.T, np.arange(20)[:, None] % 2 == np.arange(20) % 2
    assert cosine[same].mean() > 0.6
    assert cosine[~same].mean() < 0.1


def _ref(node_type: str, node_id: str) -> Any:
    from kithkin.v1 import types_pb2

    return types_pb2.NodeRef(type=node_type, id=node_id)
