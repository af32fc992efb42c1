"""The protocol of cold entities: what they lose, who is asked, and when a model is trained again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_store.progress import NoProgress
from graph_store.project import Project
from graph_store.schema import Triple
from model_store.csr import EdgeType
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document, themes_snapshot
from tests.unit.test_evaluation import judged, write_judgements
from training.evaluate import evaluate_cold_entities
from training.evaluation.cold import ColdSnapshot, similar_alone, trained_once
from training.evaluation.judged import load_judgements
from training.evaluation.report import OURS

WATCHED = Triple("Person", "WATCHED", "Film")
CO_WATCHED = Triple("Film", "CO_WATCHED", "Film")
GENRE = Triple("Film", "HAS_GENRE", "Genre")
COLD = np.array([1, 5, 40])


@pytest.fixture(scope="module")
def snapshot() -> MemorySnapshot:
    return themes_snapshot()


def pairs(snapshot: Any, triple: Triple, backward: bool = False) -> set[tuple[int, int]]:
    csr = snapshot.csr(EdgeType(triple, backward))
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    ends = zip(rows.tolist(), csr.indices.tolist(), strict=True)
    return {(column, row) if backward else (row, column) for row, column in ends}


def test_cold_entities_lose_their_company_and_nothing_else(snapshot: MemorySnapshot) -> None:
    view = ColdSnapshot(snapshot, "Film", COLD)
    cold = set(COLD.tolist())
    for triple, ends in ((WATCHED, (1,)), (CO_WATCHED, (0, 1))):
        before = pairs(snapshot, triple)
        expected = {pair for pair in before if not any(pair[end] in cold for end in ends)}
        assert expected < before
        assert pairs(view, triple) == pairs(view, triple, backward=True) == expected
    assert pairs(view, GENRE) == pairs(snapshot, GENRE)
    assert (view.num_nodes("Film"), view.schema, view.edge_types) == (80, snapshot.schema, snapshot.edge_types)
    assert view.ids("Film").equals(snapshot.ids("Film"))
    assert view.nodes("Film").equals(snapshot.nodes("Film"))


def test_another_view_has_another_hash(snapshot: MemorySnapshot) -> None:
    hashes = [ColdSnapshot(snapshot, "Film", rows).content_hash for rows in (COLD, COLD[:2], COLD[::-1])]
    assert hashes[0] == hashes[2] != hashes[1]
    assert len(hashes[0]) == 64
    assert snapshot.content_hash not in hashes


def project(folder: Path, **settings: Any) -> Project:
    section = judged(cold_modulo=3, cold_remainder=0, tune_modulo=4, tune_remainder=2).model_dump(exclude_none=True)
    quick = {"training.similar.hidden": 16, "training.similar.heads": 2, "training.similar.dimension": 16}
    return project_of(
        {**themes_document(), "evaluation": {"judged": [section], "bootstrap": 100}},
        folder,
        {"training.similar.steps": 3, "training.input_dimension": 16, **quick, **settings},
    )


def test_the_cold_fifth_is_asked_and_the_model_is_kept(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    declared = project(tmp_path)
    (found,) = evaluate_cold_entities(declared, snapshot, folder=tmp_path / "cold")
    queries = snapshot.ids("Film").to_pylist()[:20]
    number = [int(hashlib.sha256(each.encode()).hexdigest(), 16) for each in queries]
    assert found.queries == sum(each % 3 == 0 and each % 4 != 2 for each in number) > 0
    assert found.kind == "cold"
    assert found.name == "truth, cold entities"
    # Genres and keywords are left: far above what films without any company get by popularity.
    assert found.scores[OURS]["NDCG@5"].mean > found.scores["popularity"]["NDCG@5"].mean + 0.2
    assert found.scores["co-engagement"]["NDCG@5"].mean < found.scores["Keyword"]["NDCG@5"].mean
    (folder,) = (tmp_path / "cold").iterdir()
    model = folder / "model.json"
    written = model.stat().st_mtime_ns
    (again,) = evaluate_cold_entities(declared, snapshot, folder=tmp_path / "cold")
    assert again.to_json() == found.to_json()
    assert model.stat().st_mtime_ns == written
    other = project(tmp_path, **{"training.seed": 2})
    evaluate_cold_entities(other, snapshot, folder=tmp_path / "cold")
    assert model.stat().st_mtime_ns != written
    (tuned,) = evaluate_cold_entities(other, snapshot, folder=tmp_path / "cold", tuning=True)
    assert tuned.queries == sum(each % 3 == 0 and each % 4 == 2 for each in number)


def test_a_half_trained_model_is_trained_to_the_end(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    declared = similar_alone(project(tmp_path))
    loaded = load_judgements(declared.settings.evaluation.judged[0], tmp_path, snapshot.ids("Film"))
    view = ColdSnapshot(snapshot, "Film", loaded.candidates[loaded.cold])
    trained_once(declared, view, tmp_path / "model", progress=NoProgress())
    (tmp_path / "model" / "model.json").write_text("{")
    model = trained_once(declared, view, tmp_path / "model", progress=NoProgress())
    assert model.metrics["similar"]["steps"] == 3
    assert model.metrics.get("user", {}).get("steps", 0) == 0


def test_nothing_declared_nothing_measured(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    plain = project_of({**themes_document(), "evaluation": {"judged": []}}, tmp_path)
    assert evaluate_cold_entities(plain, snapshot, folder=tmp_path / "cold") == []
