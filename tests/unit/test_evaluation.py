"""Metrics by hand, baselines against their definitions, and the protocols' promises."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graph_store.schema import Triple
from graph_store.settings import JudgedEvaluation
from model_store.csr import EdgeType
from tests.memory_snapshot import THEMES, MemorySnapshot, project_of, themes_document, themes_snapshot
from training.errors import JudgementsError
from training.evaluate import evaluate_similar
from training.evaluation.baselines import similarity_baselines
from training.evaluation.judged import evaluate_judged, load_judgements
from training.evaluation.metrics import average_precision, bootstrap, ndcg, paired_bootstrap, ranking, recall
from training.evaluation.report import OURS, EvaluationReport
from training.evaluation.users import _binary, _Ease, _ease_fits, evaluate_users
from training.graph import Graph
from training.holdout import split_newest

WATCHED = EdgeType(Triple("Person", "WATCHED", "Film"))
HEADLINE = "NDCG@5"


def test_ranking_breaks_ties_by_position_and_leaves_out_what_must_not_be_ranked() -> None:
    assert ranking(np.array([0.5, -np.inf, 2.0, 0.5])).tolist() == [2, 0, 3]
    assert ranking(np.array([1.0, 1.0, 1.0]), 2).tolist() == [0, 1]


def test_metrics_of_one_query_by_hand() -> None:
    order, relevant = np.array([4, 1, 3, 0, 2]), np.array([1, 0, 9])
    # Hits at ranks 2 and 4; the third relevant one is not ranked.
    assert average_precision(order, relevant) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert recall(order, relevant, 2) == pytest.approx(1 / 3)
    ideal = 1 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(order, relevant, 5) == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    # The ideal of a short list is short.
    assert ndcg(np.array([1, 0]), relevant, 2) == pytest.approx(1.0)


def test_bootstrap_holds_the_mean_and_a_paired_gain_is_narrower() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random(400)
    ours = theirs + 0.05
    alone = bootstrap(ours, 500)
    assert alone.low < alone.mean < alone.high
    assert alone.mean == pytest.approx(ours.mean())
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * ours.std() / 20, rel=0.15)
    gain = paired_bootstrap(ours, theirs, 500)
    assert (gain.low, gain.high) == pytest.approx((0.05, 0.05))
    assert str(bootstrap(np.zeros(0), 100)) == "-"


@pytest.fixture(scope="module")
def snapshot() -> MemorySnapshot:
    return themes_snapshot()


def write_judgements(folder: Path, snapshot: MemorySnapshot, queries: int = 20) -> None:
    ids = snapshot.ids("Film").to_pylist()
    lines = ["query,similar"]
    for number in range(queries):
        lines += [f"{ids[number]},{ids[other]}" for other in range(number % THEMES, 80, THEMES) if other != number]
    lines.append("nobody,f0001")
    with gzip.open(folder / "judged.csv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def judged(**fields: Any) -> JudgedEvaluation:
    given = {"name": "truth", "node": "Film", "file": "judged.csv.gz", "query": "query", "similar": "similar"}
    return JudgedEvaluation(**{**given, "ndcg_at": 5, "recall_at": 19, **fields})


def theme_vectors(films: int = 80) -> np.ndarray:
    return np.eye(THEMES, dtype=np.float32)[np.arange(films) % THEMES]


def test_perfect_vectors_score_one_and_beat_the_baselines(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    found = evaluate_judged(judged(), tmp_path, Graph(snapshot), theme_vectors(), resamplings=100)
    assert found.queries == 20
    ours = found.scores[OURS]
    assert {name: ours[name].mean for name in ("MAP", "Recall@19", HEADLINE)} == pytest.approx(
        {"MAP": 1.0, "Recall@19": 1.0, HEADLINE: 1.0}
    )
    assert found.best_baseline in found.scores
    assert found.gain is not None
    assert found.gain.mean == pytest.approx(1.0 - found.scores[found.best_baseline][HEADLINE].mean)
    assert found.scores["popularity"][HEADLINE].mean < found.scores["Keyword"][HEADLINE].mean
    table = found.table()
    assert table.columns[0] == "scorer"
    assert table.rows[-1][0] == OURS


def test_scrambled_vectors_score_low(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    noise = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)
    found = evaluate_judged(judged(), tmp_path, Graph(snapshot), noise, resamplings=100, baselines=False)
    assert found.scores[OURS][HEADLINE].mean < 0.45
    assert found.gain is None


def test_queries_for_tuning_are_never_reported(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    settings = judged(tune_modulo=5, tune_remainder=1)
    queries = snapshot.ids("Film").to_pylist()[:20]
    tuning = [each for each in queries if int(hashlib.sha256(each.encode()).hexdigest(), 16) % 5 == 1]
    assert 0 < len(tuning) < 20
    loaded = load_judgements(settings, tmp_path, snapshot.ids("Film"))
    names = [snapshot.ids("Film")[int(loaded.candidates[place])].as_py() for place in loaded.queries[loaded.tuning]]
    assert names == tuning
    graph = Graph(snapshot)
    reported = evaluate_judged(settings, tmp_path, graph, theme_vectors(), resamplings=100, baselines=False)
    tuned = evaluate_judged(settings, tmp_path, graph, theme_vectors(), resamplings=100, baselines=False, tuning=True)
    assert (reported.queries, tuned.queries) == (20 - len(tuning), len(tuning))


def test_vectors_are_matched_by_id(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    section = {**judged().model_dump(exclude_none=True)}
    project = project_of({**themes_document(), "evaluation": {"judged": [section], "bootstrap": 100}}, tmp_path)
    order = np.random.default_rng(0).permutation(80)
    ids = pa.array([snapshot.ids("Film")[int(row)].as_py() for row in order])
    (found,) = evaluate_similar(project, snapshot, {"Film": (ids, theme_vectors()[order])})
    assert found.scores[OURS]["MAP"].mean == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file": "none.csv"}, "cannot be read"),
        ({"similar": "other"}, "cannot be read"),
        ({"node": "Person"}, "no judged pair is in the graph"),
    ],
)
def test_judgements_that_cannot_be_used_are_named(
    snapshot: MemorySnapshot, tmp_path: Path, fields: dict[str, str], message: str
) -> None:
    write_judgements(tmp_path, snapshot)
    settings = judged(**fields)
    with pytest.raises(JudgementsError, match=message):
        load_judgements(settings, tmp_path, snapshot.ids(settings.node))


def test_baselines_are_the_cosines_they_say(snapshot: MemorySnapshot) -> None:
    graph = Graph(snapshot)
    queries, candidates = np.array([0, 5]), np.arange(80)
    found = dict(similarity_baselines(graph, "Film", queries, candidates))
    signals = ["co-engagement", "Keyword", "links"]
    assert set(signals) < set(found)
    csr = snapshot.csr(EdgeType(WATCHED.triple, True))
    watchers = [set(csr.indices[csr.row(film)].tolist()) for film in range(80)]
    expected = len(watchers[0] & watchers[4]) / np.sqrt(len(watchers[0]) * len(watchers[4]))
    assert found["co-engagement"][0, 4] == pytest.approx(expected)
    assert found["popularity"][1].tolist() == [len(each) for each in watchers]
    total = sum(found[name] for name in signals)
    assert found["sum of 3"] == pytest.approx(total)
    assert found["co-engagement + Keyword"] == pytest.approx(found["co-engagement"] + found["Keyword"])


def ease(matrix: np.ndarray, regularisation: float) -> np.ndarray:
    """Steck 2019, equation 8, as it stands."""
    inverse = np.linalg.inv(matrix.T @ matrix + regularisation * np.eye(matrix.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(matrix @ weights)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_ease_is_its_closed_form_whichever_side_is_smaller(shape: tuple[int, int]) -> None:
    dense = (np.random.default_rng(1).random(shape) < 0.3).astype(np.float64)
    indptr = np.concatenate([[0], np.cumsum(dense.sum(axis=1).astype(int))])
    seen = _binary(indptr, np.nonzero(dense)[1].astype(np.int32), shape[1])
    expected = ease(dense, 250.0)
    found = _Ease(seen)(np.arange(shape[0]))
    unseen = dense == 0
    assert found[unseen] == pytest.approx(expected[unseen], abs=1e-12)


def test_ease_is_left_out_where_its_dense_matrix_would_not_fit() -> None:
    assert _ease_fits(1_892, 17_632)
    assert _ease_fits(1_000_000, 12_000)
    assert not _ease_fits(20_000, 20_000)
    assert not _ease_fits(10_000, 1_000_000)


def test_users_protocol_ranks_only_what_was_not_engaged_with(snapshot: MemorySnapshot) -> None:
    split = split_newest(snapshot, 0.2)
    relation = snapshot.schema.relation(WATCHED.triple)
    held = split.held_out[WATCHED]
    users = np.zeros((60, 80), np.float32)
    users[np.repeat(np.arange(60), np.diff(held.indptr)), held.indices] = 1.0
    # An oracle, that also scores what was engaged with before above all: those must not be ranked.
    train = split.graph.csr(WATCHED)
    users[np.repeat(np.arange(60), np.diff(train.indptr)), train.indices] = 2.0
    found = evaluate_users(split, relation, users, np.eye(80, dtype=np.float32), at=5, max_users=50, resamplings=100)
    assert found is not None
    assert found.queries == 50
    assert found.scores[OURS]["Recall@5"].mean == pytest.approx(1.0)
    assert found.scores[OURS]["NDCG@5"].mean == pytest.approx(1.0)
    assert set(found.scores) == {"popularity", "item-kNN cosine", "EASE", OURS}
    assert found.scores["popularity"]["NDCG@5"].mean < found.scores["item-kNN cosine"]["NDCG@5"].mean


def test_no_held_out_engagements_no_table(snapshot: MemorySnapshot) -> None:
    split = split_newest(snapshot, 0.0)
    relation = snapshot.schema.relation(WATCHED.triple)
    vectors = np.zeros((60, 2), np.float32), np.zeros((80, 2), np.float32)
    assert evaluate_users(split, relation, *vectors, at=5, max_users=50, resamplings=100) is None


def test_a_report_survives_json(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    found = evaluate_judged(judged(), tmp_path, Graph(snapshot), theme_vectors(), resamplings=100)
    report = EvaluationReport(protocols=(found,), notes=("something",))
    again = EvaluationReport.from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert again.tables() == report.tables()
