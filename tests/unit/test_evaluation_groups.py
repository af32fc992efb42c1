"""Halves, tenths and relations: who falls where, and that the figures of groups add up to those of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.schema import RelationRole, Triple
from model_store.csr import EdgeType
from tests.memory_snapshot import MemorySnapshot, themes_snapshot
from tests.unit.test_evaluation import judged, theme_vectors, write_judgements
from training.evaluation.groups import by_relation, by_tenths, unpopular_half
from training.evaluation.judged import evaluate_judged
from training.evaluation.report import OURS, Protocol
from training.graph import Graph


@pytest.fixture(scope="module")
def snapshot() -> MemorySnapshot:
    return themes_snapshot()


def test_the_median_is_unpopular() -> None:
    assert unpopular_half(np.array([1.0, 3.0, 3.0, 3.0, 9.0])).tolist() == [True, True, True, True, False]
    assert unpopular_half(np.zeros(0)).tolist() == []


def test_tenths_keep_equals_together_and_lose_nobody() -> None:
    assert [name for name, _ in by_tenths(np.arange(20.0))] == [f"{low} to {low + 1}" for low in range(0, 20, 2)]
    popularity = np.array([0.0] * 35 + [1.0] * 20 + list(range(2, 47)))
    groups = by_tenths(popularity)
    assert [name for name, _ in groups[:2]] == ["0", "1"]
    assert groups[-1][0].endswith("to 46")
    assert np.sum([inside for _, inside in groups], axis=0).tolist() == [1] * 100
    assert by_tenths(np.full(10, 4.0)) == []
    assert by_tenths(np.zeros(0)) == []


def test_relations_part_the_queries(snapshot: MemorySnapshot) -> None:
    groups = dict(by_relation(Graph(snapshot), "Film", np.arange(80)))
    # Every film has keywords, and derived co-engagement is no fact about a film: neither parts the films.
    assert set(groups) == {
        f"{how} {name}" for how in ("with", "without") for name in ("WATCHED", "HAS_GENRE", "SEQUEL_OF")
    }
    assert groups["without HAS_GENRE"].tolist() == [number % 3 == 0 for number in range(80)]
    assert groups["without WATCHED"][-4:].all()
    sequels = snapshot.csr(EdgeType(Triple("Film", "SEQUEL_OF", "Film")))
    either = {*np.flatnonzero(np.diff(sequels.indptr)).tolist(), *sequels.indices.tolist()}
    assert set(np.flatnonzero(groups["with SEQUEL_OF"]).tolist()) == either
    watched = snapshot.schema.relations_of_role(RelationRole.ENGAGEMENT)[0]
    assert not any("WATCHED" in name for name, _ in by_relation(Graph(snapshot), "Film", np.arange(80), but=watched))


def test_groups_of_a_protocol_average_to_the_whole(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    write_judgements(tmp_path, snapshot)
    noise = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)
    found = evaluate_judged(judged(), tmp_path, Graph(snapshot), noise, resamplings=100)
    for by, parts in (("popularity", 1), ("relation", 2)):
        groups = [group for group in found.groups if group.by == by]
        assert len(groups) > 1
        relations = len(groups) // 2 if parts == 2 else 1
        assert sum(group.queries for group in groups) == found.queries * relations
        for name in (OURS, "Keyword"):
            total = sum(group.queries * group.scores[name].mean for group in groups) / (found.queries * relations)
            assert total == pytest.approx(found.scores[name]["NDCG@5"].mean)
    again = Protocol.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert again.groups[0].name == found.groups[0].name


def test_where_the_halves_lie_does_not_depend_on_the_queries_for_tuning(
    snapshot: MemorySnapshot, tmp_path: Path
) -> None:
    write_judgements(tmp_path, snapshot)
    graph = Graph(snapshot)
    popularity = np.diff(snapshot.csr(EdgeType(Triple("Person", "WATCHED", "Film"), True)).indptr)[:20]
    settings = judged(tune_modulo=3, tune_remainder=1)
    both = [
        evaluate_judged(settings, tmp_path, graph, theme_vectors(), resamplings=100, baselines=False, tuning=tuning)
        for tuning in (False, True)
    ]
    inside = {group.name: 0 for found in both for group in found.groups if group.by == "popularity"}
    for found in both:
        for group in found.groups:
            if group.by == "popularity":
                inside[group.name] += group.queries
    assert sum(inside.values()) == 20
    assert sum(count for name, count in inside.items() if float(name.split()[-1]) <= np.median(popularity)) == int(
        (popularity <= np.median(popularity)).sum()
    )
