"""The turns that engagements take: views of a graph that say the same as copies of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.schema import Triple
from graph_store.settings import UserSpaceSettings
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from tests.memory_snapshot import themes_snapshot
from training import edge_kernels, holdout
from training.fit_features import fit_features
from training.graph import Graph, kept_edges, transposed
from training.holdout import split_newest
from training.node_features import NodeFeatures
from training.objectives import UserLoss
from training.part_features import part_features
from training.space_model import SpaceShape
from training.supervision import Part, known_pairs, supervision_parts

WATCHED = EdgeType(Triple("Person", "WATCHED", "Film"))
PARTS = 3


@pytest.fixture(scope="module")
def graph() -> Graph:
    return split_newest(themes_snapshot(), 0.1).graph


@pytest.fixture(scope="module")
def transforms(graph: Graph) -> FeatureTransforms:
    return fit_features(graph, dimension=6, seed=0)


@pytest.fixture(scope="module")
def parts(graph: Graph) -> list[Part]:
    return supervision_parts(graph, PARTS, seed=4)


def same(left: Csr, right: Csr) -> bool:
    pairs = ((left.indptr, right.indptr), (left.indices, right.indices), (left.weight, right.weight))
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in (*pairs, (left.time, right.time)))


def test_both_ends_of_a_part_see_the_same_edges(graph: Graph, parts: list[Part]) -> None:
    for part in parts:
        forward = part.message.csr(WATCHED)
        backward = part.message.csr(EdgeType(WATCHED.triple, True))
        assert same(backward, transposed(forward, graph.num_nodes("Film")))
    others = [each for each in graph.edge_types if each.triple != WATCHED.triple]
    assert all(parts[0].message.csr(each) is graph.csr(each) for each in others)


def test_parts_differ_from_the_graph_in_their_hash(graph: Graph, parts: list[Part]) -> None:
    assert len({graph.content_hash, *(part.message.content_hash for part in parts)}) == PARTS + 1


@pytest.mark.parametrize("mode", ["in memory", "in files", "when asked for"])
def test_features_are_those_of_the_graph_without_the_part(
    mode: str, graph: Graph, transforms: FeatureTransforms, parts: list[Part], tmp_path: Path
) -> None:
    found = part_features(
        transforms,
        [part.message for part in parts],
        memory_mib=64 if mode == "in memory" else 0,
        folder=tmp_path if mode == "in files" else None,
    )
    assert {each.in_memory for each in found} == {mode == "in memory"}
    for part, features in zip(parts, found, strict=True):
        copied = Graph(
            graph.snapshot,
            replaced={each: part.message.csr(each) for each in (WATCHED, EdgeType(WATCHED.triple, True))},
            derived=False,
        )
        expected = NodeFeatures(copied, transforms, memory_mib=64)
        for node_type in transforms.blocks:
            rows = np.random.default_rng(1).integers(0, graph.num_nodes(node_type), 90)
            assert features.take(node_type, rows) == pytest.approx(expected.take(node_type, rows), abs=1e-6)
            assert features.part(node_type, 1, 3) == pytest.approx(expected.part(node_type, 1, 3), abs=1e-6)
    # A part that lacks links says something else than the whole.
    whole = NodeFeatures(graph, transforms, memory_mib=64).part("Film", 0, 80)
    assert np.abs(found[0].part("Film", 0, 80) - whole).max() > 0.01


def test_known_pairs_are_all_engagements(graph: Graph) -> None:
    known = known_pairs(graph).toarray()
    expected = np.zeros_like(known)
    csr = graph.csr(WATCHED)
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    expected[rows + graph.offsets["Person"], csr.indices + graph.offsets["Film"]] = True
    assert np.array_equal(known, expected)


def test_parts_share_the_neighbour_lists_that_they_have_in_common(graph: Graph, transforms: FeatureTransforms) -> None:
    settings = UserSpaceSettings(hidden=8, heads=2, dimension=8, layers=1)
    shape = SpaceShape.of("user", graph, transforms, settings, inner_product=True)
    loss = UserLoss(graph, transforms, shape, settings, limit=5, seed=0, steps=4)
    first, second = (batcher._sampler._adjacency for batcher in loss.batchers[:2])  # type: ignore[union-attr]
    for each in graph.edge_types:
        assert (first[each] is second[each]) == (each.triple != WATCHED.triple)
        assert first[each].time is None


def test_what_is_held_out_does_not_depend_on_how_many_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = themes_snapshot()
    whole = split_newest(snapshot, 0.25)
    monkeypatch.setattr(holdout, "_EDGES_AT_ONCE", 7)
    some = split_newest(snapshot, 0.25)
    assert np.array_equal(whole.newest[WATCHED], some.newest[WATCHED])
    assert same(whole.held_out[WATCHED], some.held_out[WATCHED])
    assert same(whole.graph.csr(WATCHED), some.graph.csr(WATCHED))


def test_runs_of_rows_hold_so_many_edges_or_one_row() -> None:
    indptr = np.array([0, 3, 3, 10, 11, 12])
    assert list(edge_kernels.row_spans([indptr], 4)) == [(0, 2), (2, 3), (3, 5)]
    assert list(edge_kernels.row_spans([indptr, indptr], 4)) == [(0, 1), (1, 2), (2, 3), (3, 5)]
    assert not list(edge_kernels.row_spans([np.zeros(1, np.int64)], 4))


def test_kept_and_turned_edges_keep_weights_and_times() -> None:
    csr = Csr(
        indptr=np.array([0, 2, 2, 4]),
        indices=np.array([1, 0, 1, 1], np.int32),
        weight=np.array([1, 2, 3, 4], np.float32),
        time=np.array([5, 6, 7, 8]),
    )
    kept = kept_edges(csr, np.array([True, False, True, True]))
    assert kept.indptr.tolist() == [0, 1, 1, 3]
    back = transposed(kept, 3)
    assert (back.indptr.tolist(), back.indices.tolist()) == ([0, 0, 3, 3], [0, 2, 2])
    assert back.weight is not None
    assert back.time is not None
    assert (back.weight.tolist(), back.time.tolist()) == ([1.0, 3.0, 4.0], [5, 7, 8])
