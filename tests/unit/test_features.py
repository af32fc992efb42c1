"""Feature transforms: values, what is missing, what is new, and the same answer after saving."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from model_store.errors import BundleCorrupt
from model_store.features import (
    FeatureTransforms,
    LinkBlock,
    NumberBlock,
    TokenBlock,
    VectorBlock,
    link_weight,
    numbers,
    tokens,
)
from tests.memory_snapshot import THEMES, MemorySnapshot, themes_snapshot
from training.fit_features import fit_features
from training.graph import Graph

TAGGED = EdgeType(Triple("Film", "HAS_TAG", "Tag"))


def column(values: list[object], kind: pa.DataType) -> pa.Table:
    return pa.table({"value": pa.array(values, kind)})


def test_number_is_a_hat_between_its_knots_with_standardised_value_and_missing_flag() -> None:
    block = NumberBlock(column="value", knots=(0.0, 10.0, 20.0), mean=10.0, deviation=5.0)
    found = block.apply(4, column([5.0, 20.0, None, 99.0], pa.float64()), {})
    half = np.sqrt(0.5)
    assert found == pytest.approx(
        np.array([[half, half, 0, -0.25, 0], [0, 0, 1, 0.5, 0], [0, 0, 0, 0, 1], [0, 0, 1, 1.0, 0]])
    )


def test_number_of_one_knot_is_known_or_not() -> None:
    block = NumberBlock(column="value", knots=(3.0,), mean=3.0, deviation=1.0)
    assert block.apply(2, column([3.0, None], pa.float64()), {}).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_dates_and_times_are_days() -> None:
    day = datetime.date(1970, 1, 11)
    assert numbers(pa.chunked_array([pa.array([day, None], pa.date32())]))[0] == 10.0
    moment = datetime.datetime(1970, 1, 11, 12, tzinfo=datetime.UTC)
    found = numbers(pa.chunked_array([pa.array([moment, None], pa.timestamp("us", tz="UTC"))]))
    assert found[0] == 10.5
    assert np.isnan(found[1])


def test_tokens_of_text_are_folded_words_and_trigrams() -> None:
    assert tokens("Ｓtar WARS", True) == [
        "star",
        "wars",
        "#<st",
        "#sta",
        "#tar",
        "#ar>",
        "#<wa",
        "#war",
        "#ars",
        "#rs>",
    ]
    assert tokens(["a", None, "b"], False) == ["a", "b"]
    assert tokens(None, True) == []


def test_values_never_seen_add_nothing() -> None:
    import zlib

    bucket = zlib.crc32(b"blue") % 1024
    block = TokenBlock(
        column="value", text=False, buckets=1024, columns=np.array([bucket]), factors=np.ones((1, 1), np.float32)
    )
    found = block.apply(3, column(["blue", "green", None], pa.string()), {})
    assert found.tolist() == [[1, 0], [0, 1], [0, 1]]


def test_vector_is_centred_and_of_length_one() -> None:
    block = VectorBlock(column="value", mean=np.array([1.0, 1.0], np.float32))
    rows: list[object] = [[4.0, 5.0], None, [1.0, 2.0, 3.0]]
    found = block.apply(3, column(rows, pa.list_(pa.float32())), {})
    assert found == pytest.approx(np.array([[0.6, 0.8, 0], [0, 0, 1], [0, 0, 1]]))


def test_links_add_up_factors_by_log_weight_and_count_unknown_neighbours_only() -> None:
    factors = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    block = LinkBlock(
        neighbour_type="Tag", role="semantic", edge_types=(TAGGED,), medians=(1.0,), bounds=(0.0, 0.0), factors=factors
    )
    csr = Csr(
        indptr=np.array([0, 2, 2, 3]),
        indices=np.array([0, 1, 7], np.int32),
        weight=np.array([1.0, 7.0, 1.0], np.float32),
    )
    found = block.apply(3, pa.table({"id": ["a", "b", "c"]}), {TAGGED: csr})
    # ln(2) and ln(8): one to three.
    expected = np.array([1.0, 3.0]) / np.sqrt(10.0)
    assert found[0] == pytest.approx([*expected, 0, np.log1p(2) / 10])
    assert found[1] == pytest.approx([0, 0, 1, 0])
    assert found[2] == pytest.approx([0, 0, 0, np.log1p(1) / 10])
    assert block.apply(3, pa.table({"id": ["a", "b", "c"]}), {})[:, 2].tolist() == [1, 1, 1]


def test_link_weight_keeps_to_its_bounds_and_survives_bad_numbers() -> None:
    csr = Csr(
        indptr=np.array([0, 4]),
        indices=np.arange(4, dtype=np.int32),
        weight=np.array([2.0, 1e9, -5.0, np.nan], np.float32),
    )
    assert link_weight(csr, 2.0, (0.5, 1.5)) == pytest.approx([1.0, 1.5, 0.5, 1.0])
    assert link_weight(csr, 0.0) == pytest.approx([1, 1, 1, 1])


def test_links_of_another_number_of_nodes_are_refused() -> None:
    block = LinkBlock(
        neighbour_type="Tag",
        role="semantic",
        edge_types=(TAGGED,),
        medians=(0.0,),
        bounds=(0.0, 0.0),
        factors=np.ones((1, 1), np.float32),
    )
    with pytest.raises(ValueError, match="2 rows of links for 3 nodes"):
        block.apply(3, pa.table({}), {TAGGED: Csr(indptr=np.zeros(3, np.int64), indices=np.zeros(0, np.int32))})


def test_many_edges_are_added_up_in_chunks_as_at_once() -> None:
    rng = np.random.default_rng(0)
    degree = rng.integers(0, 40, size=30_000)
    indptr = np.concatenate([[0], np.cumsum(degree)])
    indices = rng.integers(0, 50, size=indptr[-1]).astype(np.int32)
    factors = rng.standard_normal((50, 3)).astype(np.float32)
    block = LinkBlock(
        neighbour_type="Tag", role="semantic", edge_types=(TAGGED,), medians=(0.0,), bounds=(0.0, 0.0), factors=factors
    )
    found = block.apply(30_000, pa.table({}), {TAGGED: Csr(indptr=indptr, indices=indices)})
    for node in (0, 1, 14_999, 15_000, 29_999):
        total = factors[indices[indptr[node] : indptr[node + 1]]].sum(axis=0)
        expected = total / np.linalg.norm(total) if degree[node] else np.zeros(3)
        assert found[node, :3] == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def themes() -> tuple[MemorySnapshot, FeatureTransforms]:
    snapshot = themes_snapshot()
    return snapshot, fit_features(Graph(snapshot), dimension=16, seed=3)


def block_of(transforms: FeatureTransforms, node_type: str, name: str, features: np.ndarray) -> np.ndarray:
    begin = 0
    for block in transforms.blocks[node_type]:
        if block.name == name:
            return features[:, begin : begin + block.direction]
        begin += block.width
    raise AssertionError(f"no block {name}")


@pytest.mark.parametrize("name", ["links:engagement:Person", "links:semantic:Keyword", "links:semantic:Genre"])
def test_link_blocks_of_one_theme_lie_together(themes: tuple[MemorySnapshot, FeatureTransforms], name: str) -> None:
    snapshot, transforms = themes
    graph = Graph(snapshot)
    features = transforms.apply("Film", graph.properties("Film"), graph.links("Film"))
    block = block_of(transforms, "Film", name, features)[:-4]
    cosines = block @ block.T
    theme = np.arange(len(block)) % THEMES
    known = np.linalg.norm(block, axis=1) > 0
    same = (theme[:, None] == theme[None, :]) & known[:, None] & known[None, :] & ~np.eye(len(block), dtype=bool)
    other = (theme[:, None] != theme[None, :]) & known[:, None] & known[None, :]
    assert cosines[same].mean() > cosines[other].mean() + 0.3


def test_users_and_entities_share_one_space(themes: tuple[MemorySnapshot, FeatureTransforms]) -> None:
    snapshot, transforms = themes
    graph = Graph(snapshot)
    films = block_of(
        transforms,
        "Film",
        "links:engagement:Person",
        transforms.apply("Film", graph.properties("Film"), graph.links("Film")),
    )
    people = block_of(
        transforms,
        "Person",
        "links:engagement:Film",
        transforms.apply("Person", graph.properties("Person"), graph.links("Person")),
    )
    best = (people @ films[:-4].T).argmax(axis=1)
    assert (best % THEMES == np.arange(len(people)) % THEMES).mean() > 0.8


def test_one_node_gets_the_features_it_has_among_all(themes: tuple[MemorySnapshot, FeatureTransforms]) -> None:
    snapshot, transforms = themes
    graph = Graph(snapshot)
    features = transforms.apply("Film", graph.properties("Film"), graph.links("Film"))
    assert features.shape == (80, transforms.width("Film"))
    assert features.dtype == np.float32
    for node in (0, 17, 79):
        links = {}
        for edge_type, csr in graph.links("Film").items():
            row = csr.row(node)
            links[edge_type] = Csr(
                indptr=np.array([0, row.stop - row.start]),
                indices=csr.indices[row],
                weight=None if csr.weight is None else csr.weight[row],
            )
        alone = transforms.apply("Film", graph.properties("Film").slice(node, 1), links)
        assert alone[0] == pytest.approx(features[node], abs=1e-6)


def test_a_described_node_without_anything_is_all_flags(themes: tuple[MemorySnapshot, FeatureTransforms]) -> None:
    _, transforms = themes
    features = transforms.apply("Film", pa.table({"id": ["new"]}), {})
    begin = 0
    for block in transforms.blocks["Film"]:
        assert not features[0, begin : begin + block.direction].any()
        assert 1.0 in features[0, begin + block.direction : begin + block.width]
        begin += block.width


def test_saved_transforms_give_the_same_features(
    themes: tuple[MemorySnapshot, FeatureTransforms], tmp_path: Path
) -> None:
    snapshot, transforms = themes
    graph = Graph(snapshot)
    transforms.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npy"}
    loaded = FeatureTransforms.load(tmp_path)
    for name in ("Film", "Genre", "Keyword", "Person"):
        expected = transforms.apply(name, graph.properties(name), graph.links(name))
        assert np.array_equal(loaded.apply(name, graph.properties(name), graph.links(name)), expected)


def test_damaged_transforms_are_refused(themes: tuple[MemorySnapshot, FeatureTransforms], tmp_path: Path) -> None:
    themes[1].save(tmp_path)
    next(tmp_path.glob("*.npy")).unlink()
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        FeatureTransforms.load(tmp_path)


def test_the_same_seed_fits_the_same_blocks(themes: tuple[MemorySnapshot, FeatureTransforms]) -> None:
    snapshot, transforms = themes
    graph = Graph(snapshot)
    again = fit_features(graph, dimension=16, seed=3)
    expected = transforms.apply("Film", graph.properties("Film"), graph.links("Film"))
    assert np.array_equal(again.apply("Film", graph.properties("Film"), graph.links("Film")), expected)
