"""Neural scores as ONNX files, and the whole of it from a snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from graph_store.schema import Triple
from model_store.beam_search import SearchSettings, beam_search
from model_store.errors import ScorerMismatch
from model_store.neighbour_graph import NeighbourGraph
from model_store.onnx_scorer import OnnxScorer
from tests.memory_snapshot import themes_snapshot
from training.errors import EncoderMismatch, GraphTooSmall
from training.neural_metric import export
from training.neural_metric.evaluate import UserScore
from training.neural_metric.export import export_scorer
from training.neural_metric.scorer import NeuralScorer
from training.neural_metric.settings import ScorerSettings
from training.neural_metric.train import train_neural_metric

SMALL = ScorerSettings(dimension=8, hidden=16, events=6, batch_size=32, negatives=16, steps=60, learning_rate=0.02)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are too small here for threads, which wait for each other where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def scorer() -> NeuralScorer:
    """Every parameter away from its start, so that none is left out of the comparison."""
    torch.manual_seed(0)
    made = NeuralScorer(SMALL, 20)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made.eval()


@pytest.mark.parametrize(("slots", "filled"), [(1, 0), (6, 0), (6, 1), (4, 3), (6, 6)])
def test_onnx_computes_what_torch_does(scorer: NeuralScorer, tmp_path: Path, slots: int, filled: int) -> None:
    assert export_scorer(scorer, tmp_path / "scorer.onnx") < 1e-5
    rng = np.random.default_rng(1)
    events = np.where(np.arange(slots) < slots - filled, -1, rng.integers(20, size=slots))
    mask = events >= 0
    table = scorer.entity_vectors()
    found = OnnxScorer(tmp_path / "scorer.onnx", 8)(table[events], mask, table)
    assert np.allclose(found, UserScore(scorer, events)(np.arange(20)), atol=1e-5)


def test_events_beyond_those_trained_with_count_for_nothing(scorer: NeuralScorer, tmp_path: Path) -> None:
    export_scorer(scorer, tmp_path / "scorer.onnx")
    loaded = OnnxScorer(tmp_path / "scorer.onnx", 8)
    events = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    table = scorer.entity_vectors()
    long, short = loaded(events, np.ones(9, bool), table), loaded(events[3:], np.ones(6, bool), table)
    assert np.allclose(long, short, atol=1e-5)


def test_what_stands_in_empty_slots_may_be_no_number(scorer: NeuralScorer, tmp_path: Path) -> None:
    export_scorer(scorer, tmp_path / "scorer.onnx")
    loaded, table = OnnxScorer(tmp_path / "scorer.onnx", 8), scorer.entity_vectors()
    events, nobody = np.full((3, 8), np.nan, np.float32), np.zeros(3, bool)
    expected = loaded(np.zeros((1, 8), np.float32), nobody[:1], table)
    assert np.allclose(loaded(events, nobody, table), expected, atol=1e-6)
    assert np.allclose(loaded(events[:0], nobody[:0], table), expected, atol=1e-6)
    assert loaded(events, nobody, table[:0]).shape == (0,)


def test_an_export_that_differs_is_refused(
    scorer: NeuralScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST_LOGIT", 0.01)
    with pytest.raises(EncoderMismatch, match="ONNX differs from torch"):
        export_scorer(scorer, tmp_path / "scorer.onnx")


# anyone's scorer

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
GOOD: dict[str, tuple[int, list[Any]]] = {
    "events": (FLOAT, [1, "T", 8]),
    "mask": (BOOL, [1, "T"]),
    "candidates": (FLOAT, ["N", 8]),
}


def own_scorer(path: Path, inputs: dict[str, tuple[int, list[Any]]], output: str = "scores", axes: int = 1) -> Path:
    """The sum of a candidate's coordinates, as an ONNX file with these inputs."""
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    last = "candidates" if "candidates" in inputs else next(iter(inputs))
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceSum", [last, "axis"], [output], keepdims=axes - 1)
    result = helper.make_tensor_value_info(output, FLOAT, None)
    graph = helper.make_graph([node], "own", given, [result], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_any_scorer_with_the_declared_inputs_is_searched_with(tmp_path: Path) -> None:
    loaded = OnnxScorer(own_scorer(tmp_path / "own.onnx", GOOD), 8)
    table = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    events, mask = table[:2], np.ones(2, bool)
    assert np.allclose(loaded(events, mask, table), table.sum(1), atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"events": GOOD["events"], "candidates": GOOD["candidates"]}, "no input 'mask'; it has: candidates, events"),
        ({**GOOD, "candidates": (FLOAT, ["N", 5])}, "'candidates' takes vectors of length 5, the entities' have 8"),
        ({**GOOD, "events": (FLOAT, ["T", 8])}, "'events' has the shape .* 3 axes"),
        ({**GOOD, "candidates": (FLOAT, [7, 8])}, "'candidates' has the shape .*: the first axis is fixed"),
        ({**GOOD, "mask": (FLOAT, [1, "T"])}, r"'mask' is tensor\(float\), and has to be tensor\(bool\)"),
        ({**GOOD, "context": (FLOAT, [1, 3])}, "inputs that nobody fills: context"),
    ],
)
def test_a_scorer_with_other_inputs_is_refused(
    tmp_path: Path, inputs: dict[str, tuple[int, list[Any]]], said: str
) -> None:
    with pytest.raises(ScorerMismatch, match=said):
        OnnxScorer(own_scorer(tmp_path / "own.onnx", inputs), 8)


def test_a_scorer_with_another_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScorerMismatch, match="no output 'scores'"):
        OnnxScorer(own_scorer(tmp_path / "own.onnx", GOOD, output="logits"), 8)
    with pytest.raises(ScorerMismatch, match=r"'scores' of 1 candidates is float32 of the shape \[1, 1\]"):
        OnnxScorer(own_scorer(tmp_path / "own.onnx", GOOD, axes=2), 8)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(b"hello")
    with pytest.raises(ScorerMismatch, match="cannot be loaded as ONNX"):
        OnnxScorer(tmp_path / "own.onnx", 8)


# from a snapshot


def test_a_snapshot_becomes_a_scorer_and_a_graph(tmp_path: Path) -> None:
    snapshot = themes_snapshot(people=100)
    themes = np.eye(12, dtype=np.float32)[np.arange(80) % 4]
    vectors = themes + 0.1 * np.random.default_rng(0).standard_normal((80, 12)).astype(np.float32)
    trained = train_neural_metric(snapshot, folder=tmp_path, settings=SMALL, vectors=vectors)
    assert (trained.user_type, trained.entity_type) == ("Person", "Film")
    # A film of the person's theme four times in five; a quarter of the films, 20 of 80, are of it. Chance is .27.
    assert trained.metrics["recall@20"] > 0.4
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["relation"] == ["Person", "WATCHED", "Film"]
    assert report["metrics"]["recall@20"] == trained.metrics["recall@20"]

    # What a server would do, from the files alone.
    table: NDArray[np.float32] = np.load(tmp_path / "entities.npy", allow_pickle=False)
    graph, loaded = NeighbourGraph.load(tmp_path / "graph"), OnnxScorer(tmp_path / "scorer.onnx", 8)
    events = table[[1, 5, 9]]
    found = beam_search(
        graph, lambda rows: loaded(events, np.ones(3, bool), table[rows]), k=10, settings=SearchSettings()
    )
    expected = UserScore(trained.scorer, np.array([1, 5, 9]))(np.arange(80))
    assert found.entities.tolist() == np.argsort(-expected, kind="stable")[:10].tolist()
    assert np.mean(found.entities % 4 == 1) > 0.5


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    snapshot = themes_snapshot(people=60)
    with pytest.raises(ValueError, match="WATCHED"):
        train_neural_metric(snapshot, folder=tmp_path, relation=Triple("Film", "SEQUEL_OF", "Film"))
    with pytest.raises(ValueError, match="3 vectors were given for 80 nodes of Film"):
        train_neural_metric(snapshot, folder=tmp_path, vectors=np.zeros((3, 4), np.float32))
    with pytest.raises(GraphTooSmall, match="too few users"):
        train_neural_metric(themes_snapshot(people=1), folder=tmp_path)
