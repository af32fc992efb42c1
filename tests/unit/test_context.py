"""The second stage of features: twins of link blocks over vectors in one space, and the signals made of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.settings import TrainingSettings
from model_store.features import FeatureTransforms, LinkBlock, link_weight
from tests.memory_snapshot import MemorySnapshot, themes_snapshot
from training.context import Stages, fit_context, is_context
from training.fit_features import fit_features
from training.graph import Graph
from training.node_features import NodeFeatures
from training.objectives import PairTasks, similar_tasks

SIGNALS, DIMENSION, WEIGHT = 8, 6, 0.5


@pytest.fixture(scope="module")
def snapshot() -> MemorySnapshot:
    return themes_snapshot(films=40, people=30)


@pytest.fixture(scope="module")
def first(snapshot: MemorySnapshot) -> FeatureTransforms:
    return fit_features(Graph(snapshot), dimension=8, seed=0)


def tasks_of(snapshot: MemorySnapshot) -> PairTasks:
    own = TrainingSettings().similar
    return similar_tasks(Graph(snapshot), balance=own.balance, concept_share=own.concept_share)


def fitted(snapshot: MemorySnapshot, first: FeatureTransforms, dimension: int = DIMENSION) -> Stages:
    return fit_context(
        first,
        Graph(snapshot),
        tasks_of(snapshot),
        signal_width=SIGNALS,
        dimension=dimension,
        weight=WEIGHT,
        seed=0,
        memory_mib=64,
    )


def test_each_link_block_has_a_twin_and_the_first_stage_stays(
    snapshot: MemorySnapshot, first: FeatureTransforms
) -> None:
    both = fitted(snapshot, first).transforms
    for name, blocks in first.blocks.items():
        assert both.blocks[name][: len(blocks)] == blocks
        twins = both.blocks[name][len(blocks) :]
        assert [each.edge_types for each in twins if isinstance(each, LinkBlock)] == [
            each.edge_types for each in blocks if isinstance(each, LinkBlock)
        ]
        assert all(map(is_context, twins))
        assert not any(map(is_context, blocks))


def test_a_twin_adds_up_the_vectors_of_the_neighbours(snapshot: MemorySnapshot, first: FeatureTransforms) -> None:
    graph = Graph(snapshot)
    both = fitted(snapshot, first).transforms
    features = NodeFeatures(graph, both, memory_mib=64).part("Film", 0, 40)
    begin = sum(block.width for block in first.blocks["Film"])
    checked = 0
    for block in both.blocks["Film"][len(first.blocks["Film"]) :]:
        assert isinstance(block, LinkBlock)
        expected = np.zeros((40, DIMENSION))
        for edge_type, median in zip(block.edge_types, block.medians, strict=True):
            csr = graph.csr(edge_type)
            weight = link_weight(csr, median, block.bounds)
            for film in range(40):
                for edge in range(csr.indptr[film], csr.indptr[film + 1]):
                    expected[film] += weight[edge] * block.factors[csr.indices[edge]]
        length = np.linalg.norm(expected, axis=1, keepdims=True)
        expected = np.where(length > 1e-9, expected / np.maximum(length, 1e-9), 0.0)
        np.testing.assert_allclose(features[:, begin : begin + DIMENSION], expected, atol=1e-5)
        checked += int((length > 0).sum())
        begin += block.width
    assert checked > 40


def test_vectors_of_all_types_are_in_one_space(snapshot: MemorySnapshot, first: FeatureTransforms) -> None:
    """An entity's vector is its signals; a concept's the mean direction of its entities'."""
    graph = Graph(snapshot)
    stages = fitted(snapshot, first)
    before = fitted(snapshot, first, dimension=0)
    own = NodeFeatures(graph, first, memory_mib=64).part("Film", 0, 40)
    # Signals of the first stage alone, in the first dimensions of the same space.
    films = own @ before.signals["Film"][:, :DIMENSION]
    films /= np.maximum(np.linalg.norm(films, axis=1, keepdims=True), 1e-12)
    for block in stages.transforms.blocks["Film"]:
        if not (is_context(block) and isinstance(block, LinkBlock) and block.neighbour_type == "Genre"):
            continue
        edge_type = next(each for each in graph.links("Genre") if each.neighbour_type == "Film")
        csr = graph.csr(edge_type)
        for genre in range(csr.num_rows):
            total = films[csr.indices[csr.indptr[genre] : csr.indptr[genre + 1]]].sum(axis=0)
            expected = total / max(float(np.linalg.norm(total)), 1e-12)
            np.testing.assert_allclose(block.factors[genre], expected, atol=1e-3)
        return
    raise AssertionError("films have genres")


def test_signals_are_the_own_blocks_and_a_share_of_the_context(
    snapshot: MemorySnapshot, first: FeatureTransforms
) -> None:
    graph = Graph(snapshot)
    stages, before = fitted(snapshot, first), fitted(snapshot, first, dimension=0)
    features = NodeFeatures(graph, stages.transforms, memory_mib=64).part("Film", 0, 40)
    width = first.width("Film") - 1
    context = stages.signals["Film"][width:-1]
    np.testing.assert_allclose(stages.signals["Film"][:width], before.signals["Film"][:-1], atol=1e-4)
    assert np.abs(features[:, width:-1] @ context).max() > 0.1
    np.testing.assert_array_equal(context[:, DIMENSION:], 0.0)
    assert WEIGHT >= context.max() > 0


def test_without_a_dimension_nothing_is_added(snapshot: MemorySnapshot, first: FeatureTransforms) -> None:
    stages = fitted(snapshot, first, dimension=0)
    assert stages.transforms is first
    assert stages.signals["Film"].shape == (first.width("Film"), SIGNALS)


def test_both_stages_are_saved(snapshot: MemorySnapshot, first: FeatureTransforms, tmp_path: Path) -> None:
    both = fitted(snapshot, first).transforms
    both.save(tmp_path)
    graph = Graph(snapshot)
    again = NodeFeatures(graph, FeatureTransforms.load(tmp_path), memory_mib=64).part("Film", 0, 40)
    np.testing.assert_array_equal(again, NodeFeatures(graph, both, memory_mib=64).part("Film", 0, 40))
