"""What the daily job is made of: the gate, the time window, and a warm start that is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graph_store.schema import Triple
from graph_store.settings import RetrainGate
from model_store.csr import EdgeType
from tests.memory_snapshot import project_of, themes_document, themes_snapshot
from training.evaluation.metrics import Interval
from training.evaluation.report import OURS, EvaluationReport, Protocol
from training.graph import transposed
from training.promotion import decide
from training.train import train
from training.window import Window

WATCHED = Triple("Person", "WATCHED", "Film")


def report(value: float, *, name: str = "saw", metric: str = "NDCG@20") -> EvaluationReport:
    interval = Interval(mean=value, low=value, high=value)
    protocol = Protocol(
        name=name,
        kind="users",
        queries=1,
        note="",
        headline=metric,
        scores={"popularity": {metric: Interval(mean=0.9, low=0.9, high=0.9)}, OURS: {metric: interval}},
    )
    return EvaluationReport(protocols=(protocol,))


def test_a_floor_and_a_drop_are_held_and_the_reason_names_them() -> None:
    floor = RetrainGate(metric="NDCG@20", at_least=0.3)
    assert decide(floor, report(0.3), report(0.9)).promoted
    refused = decide(floor, report(0.29), None)
    assert not refused.promoted
    assert "0.2900" in refused.reason
    assert "0.3" in refused.reason
    drop = RetrainGate(metric="NDCG@20", max_drop=0.05)
    assert decide(drop, report(0.36), report(0.4)).promoted
    refused = decide(drop, report(0.34), report(0.4))
    assert (refused.promoted, refused.value, refused.active) == (False, 0.34, 0.4)
    assert decide(drop, report(0.1), None).promoted  # the first bundle has nothing to drop from
    assert decide(None, report(0.0), report(1.0)).promoted


def test_what_was_not_measured_is_not_good() -> None:
    assert not decide(RetrainGate(metric="MAP", at_least=0.0), report(0.5), None).promoted
    other = RetrainGate(metric="NDCG@20", protocol="other", at_least=0.0)
    assert not decide(other, report(0.5), None).promoted
    assert decide(other, report(0.5, name="other"), report(0.9)).promoted
    assert not decide(RetrainGate(metric="NDCG@20", at_least=0.0), report(float("nan")), None).promoted
    with pytest.raises(ValueError, match="at_least, max_drop or both"):
        RetrainGate(metric="NDCG@20")


def test_the_window_keeps_the_newest_days_from_both_ends() -> None:
    snapshot = themes_snapshot()
    forward = EdgeType(WATCHED)
    times = snapshot.csr(forward).time
    assert times is not None
    days = 4_500_000 / 86_400_000_000  # the last turns 7 to 11 of twelve, a second each
    window = Window(snapshot, days)
    kept = window.csr(forward)
    assert kept.time is not None
    assert set(kept.time.tolist()) == {1_000_000 * turn for turn in range(7, 12)}
    assert kept.num_edges == (times >= 7_000_000).sum()
    assert window.left_out == len(times) - kept.num_edges > 0
    back = window.csr(EdgeType(WATCHED, True))
    expected = transposed(kept, window.num_nodes("Film"))
    assert np.array_equal(back.indices, expected.indices)
    assert np.array_equal(back.indptr, expected.indptr)
    genre = EdgeType(Triple("Film", "HAS_GENRE", "Genre"))
    assert window.csr(genre) is snapshot.csr(genre)
    assert window.content_hash not in (snapshot.content_hash, Window(snapshot, 2 * days).content_hash)
    assert Window(snapshot, 1000).left_out == 0


def test_a_warm_start_begins_where_the_last_training_ended(tmp_path: Path) -> None:
    """The loss of the first step, before any was taken, is far lower than that of a cold start."""
    few = {
        "training.similar.layers": 1,
        "training.similar.hidden": 16,
        "training.similar.dimension": 16,
        "training.user.hidden": 16,
        "training.user.dimension": 16,
        "training.input_dimension": 16,
        "training.threads": 1,
    }

    def trained(name: str, steps: int, warm: Path | None) -> dict[str, dict[str, float]]:
        settings = {**few, "training.similar.steps": steps, "training.user.steps": steps}
        project = project_of(themes_document(), tmp_path, settings)
        return train(project, snapshot, folder=tmp_path / name, warm=warm).metrics

    snapshot = themes_snapshot()
    trained("last", 40, None)
    cold = trained("cold", 1, None)
    warm = trained("warm", 1, tmp_path / "last")
    for space in ("similar", "user"):
        assert warm[space]["loss"] < 0.9 * cold[space]["loss"]
        assert warm[space]["warm_tensors"] > 10
        assert "warm_tensors" not in cold[space]
    start = trained("start", 0, tmp_path / "last")
    assert start["user"]["warm_tensors"] == warm["user"]["warm_tensors"]
    first = torch.load(tmp_path / "start" / "user" / "weights.pt", weights_only=True)
    last = torch.load(tmp_path / "last" / "user" / "weights.pt", weights_only=True)
    assert all(torch.equal(value, last[name]) for name, value in first.items())
