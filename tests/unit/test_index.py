"""Vector indexes: every implementation finds what brute force finds, in the same order, with the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.settings import PublishSettings
from kithkin.v1 import bundle_pb2, model_service_pb2
from model_store.bundle_store import BundleStore
from server.index import publish
from server.index.exact_index import ExactIndex
from server.index.publish import _asking_types, build_indexes, open_index
from server.index.scann_index import ScannIndex, ScannParameters, scann_version
from server.index.tuning import recall, sample_queries, truth, tune
from server.index.vector_index import VectorIndex, Vectors, unit_rows

needs_scann = pytest.mark.skipif(scann_version() is None, reason="ScaNN has no wheel for this machine")


def clustered(count: int, dimension: int = 16, *, seed: int = 0, unit: bool = True) -> Vectors:
    """Vectors around 40 centres."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dimension))
    vectors = centres[generator.integers(0, 40, count)] + 0.4 * generator.normal(size=(count, dimension))
    return unit_rows(vectors.astype(np.float32)) if unit else vectors.astype(np.float32)


def brute(vectors: Vectors, query: Vectors, k: int, exclude: set[int] = frozenset()) -> list[int]:  # type: ignore[assignment]
    """The right answer, the slow and plain way."""
    scores = [(-float(np.dot(v.astype(np.float64), query.astype(np.float64))), row) for row, v in enumerate(vectors)]
    return [row for _, row in sorted(scores) if row not in exclude and vectors[row].any()][:k]


def make(kind: str, vectors: Vectors) -> VectorIndex:
    if kind == "exact":
        return ExactIndex(vectors)
    if scann_version() is None:
        pytest.skip("ScaNN has no wheel for this machine")
    # All leaves, and reorder enough: then ScaNN must agree with brute force wholly.
    return ScannIndex.build(vectors, ScannParameters(leaves=20, leaves_to_search=20, reorder=400), spherical=True)


@pytest.fixture(scope="module", params=["exact", "scann"])
def index(request: pytest.FixtureRequest) -> tuple[VectorIndex, Vectors]:
    vectors = clustered(3000).copy()
    vectors[[0, 7, 2999]] = 0
    return make(request.param, vectors), vectors


def test_finds_what_brute_force_finds_best_first(index: tuple[VectorIndex, Vectors]) -> None:
    searched, vectors = index
    queries = clustered(20, seed=5)
    for query, found in zip(queries, searched.search(queries, 10), strict=True):
        assert found.rows.tolist() == brute(vectors, query, 10)
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.scores == pytest.approx(vectors[found.rows] @ query, abs=1e-6)


def test_nodes_of_which_nothing_is_known_are_never_found(index: tuple[VectorIndex, Vectors]) -> None:
    searched, vectors = index
    assert len(searched) == 2997
    found = searched.search(clustered(1, seed=5), 5000)[0]
    assert sorted(found.rows.tolist()) == [row for row in range(3000) if vectors[row].any()]


def test_left_out_rows_are_made_up_for(index: tuple[VectorIndex, Vectors]) -> None:
    searched, _ = index
    query = clustered(1, seed=6)
    best = searched.search(query, 40)[0].rows
    found = searched.search(query, 10, [best[:30]])[0]
    assert found.rows.tolist() == best[30:].tolist()
    everything_but_one = np.delete(np.arange(3000), 5)
    assert searched.search(query, 10, [everything_but_one])[0].rows.tolist() == [5]


def test_each_query_of_a_batch_has_its_own_exclusions(index: tuple[VectorIndex, Vectors]) -> None:
    searched, _ = index
    queries = np.repeat(clustered(1, seed=6), 2, axis=0)
    best = searched.search(queries[:1], 12)[0].rows
    first, second = searched.search(queries, 10, [best[:2], best[10:]])
    assert first.rows.tolist() == best[2:].tolist()
    assert second.rows.tolist() == best[:10].tolist()


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_equal_vectors_tie_and_ties_go_by_row(kind: str) -> None:
    vectors = clustered(3000).copy()
    twins = [11, 500, 1234, 2222, 2500]
    vectors[twins] = vectors[11]
    found = make(kind, vectors).search(vectors[11:12], 5)[0]
    assert found.rows.tolist() == twins
    assert len(set(found.scores.tolist())) == 1
    # A tie at the cut: the first rows win.
    assert make(kind, vectors).search(vectors[11:12], 3)[0].rows.tolist() == twins[:3]


def test_equal_vectors_tie_where_their_scores_cancel_out() -> None:
    # Large terms that cancel: the product that chooses rounds by far more than the score is.
    random = np.random.default_rng(0)
    row = random.normal(size=64).astype(np.float32)
    query = random.normal(size=64).astype(np.float32)
    query -= row * float(query @ row / (row @ row))
    vectors = np.concatenate([np.repeat(row[None], 1001, axis=0), -query[None]])
    for sign in (1, -1):
        vectors[-1] *= sign
        for k in (1, 2, 500, 1000):
            found = ExactIndex(vectors).search(sign * query[None], k)[0]
            assert found.rows.tolist() == list(range(k))


def test_exact_says_so_and_how_much_it_scored() -> None:
    found = ExactIndex(clustered(50)).search(clustered(1, seed=3), 5)[0]
    assert found.exact
    assert found.scored == 50


def test_exact_of_nothing_finds_nothing() -> None:
    for vectors in (np.zeros((0, 4), np.float32), np.zeros((3, 4), np.float32)):
        index = ExactIndex(vectors)
        assert len(index) == 0
        assert index.search(np.ones((1, 4), np.float32), 5)[0].rows.tolist() == []


def test_inner_product_prefers_long_vectors() -> None:
    vectors = np.array([[1, 0], [3, 1], [0, 2], [-5, 0]], np.float32)
    found = ExactIndex(vectors).search(np.array([[1, 1]], np.float32), 4)[0]
    assert found.rows.tolist() == [1, 2, 0, 3]
    assert found.scores.tolist() == [4, 2, 1, -5]


@needs_scann
def test_a_search_of_few_leaves_is_widened_until_it_has_enough() -> None:
    vectors = clustered(4000)
    narrow = ScannIndex.build(vectors, ScannParameters(leaves=60, leaves_to_search=1, reorder=20), spherical=True)
    found = narrow.search(clustered(3, seed=4), 1500)
    assert [len(one.rows) for one in found] == [1500] * 3
    one = narrow.search(clustered(1, seed=4), 900)[0]
    assert len(set(one.rows.tolist())) == 900
    # ScaNN itself answers with what one leaf holds, and says nothing.
    raw, _ = narrow._searcher.search(vectors[0], final_num_neighbors=900, leaves_to_search=1)
    assert len(raw) < 900


@needs_scann
@pytest.mark.parametrize("left_out", [0, 1, 3])
@pytest.mark.parametrize("k", [5, 40])
def test_queries_with_rows_left_out_find_together_what_each_finds_alone(k: int, left_out: int) -> None:
    vectors = clustered(4000)
    index = ScannIndex.build(vectors, ScannParameters(leaves=60, leaves_to_search=6, reorder=30), spherical=True)
    own = np.arange(0, 4000, 100)
    exclude = [np.arange(row, row + left_out) for row in own]
    together = index.search(vectors[own], k, exclude)
    for row, rows, one in zip(own, exclude, together, strict=True):
        alone = index.search(vectors[row][None], k, [rows])[0]
        assert one.rows.tolist() == alone.rows.tolist()
        assert one.scored == alone.scored
        assert not set(rows) & set(one.rows.tolist())


@needs_scann
def test_scann_is_saved_and_loaded_without_the_vectors_or_a_pickle(tmp_path: Path) -> None:
    vectors = clustered(3000)
    parameters = ScannParameters(leaves=20, leaves_to_search=5, reorder=100)
    built = ScannIndex.build(vectors, parameters, spherical=True)
    built.save(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    loaded = ScannIndex.load(tmp_path / "after", vectors, parameters)
    queries = clustered(10, seed=8)
    for one, two in zip(built.search(queries, 10), loaded.search(queries, 10), strict=True):
        assert one.rows.tolist() == two.rows.tolist()
        assert not two.exact
    assert sum(path.stat().st_size for path in (tmp_path / "after").iterdir()) < vectors.nbytes
    assert not list((tmp_path / "after").glob("*pickle*"))


@needs_scann
def test_tuning_reaches_the_target_on_queries_it_has_not_seen() -> None:
    vectors = clustered(12_000, 32)
    index = ScannIndex.build(vectors, ScannParameters(leaves=110, leaves_to_search=1, reorder=10), spherical=True)
    queries = sample_queries(vectors, 400, in_index=True)
    right = truth(ExactIndex(vectors), queries)
    assert queries.own_rows is not None
    assert not any(own in rows for own, rows in zip(queries.own_rows, right, strict=True)), "a query is no answer"
    assert recall(index, queries, right) < 0.9
    tuned = tune(index, queries, right, 0.95)
    assert tuned.parameters is not None
    fresh = sample_queries(vectors, 400, in_index=True, seed=7)
    assert recall(index.with_parameters(tuned.parameters), fresh, truth(ExactIndex(vectors), fresh)) >= 0.94
    assert tuned.recall >= 0.95
    assert tuned.parameters.leaves_to_search < 110


def test_users_are_tuned_by_entities_and_entities_by_users() -> None:
    roles = {"Item": "entity", "Person": "user", "Word": "concept"}
    user = bundle_pb2.SpaceManifest(name="user", node_types=["Word", "Item", "Person"])
    assert _asking_types(user, "Person", roles) == "Item"
    assert _asking_types(user, "Item", roles) == "Person"
    similar = bundle_pb2.SpaceManifest(name="similar", node_types=["Item", "Word"])
    assert _asking_types(similar, "Item", roles) is None


def _published(
    store: BundleStore, vectors: Vectors, metric: model_service_pb2.Metric, target: float = 0.95
) -> tuple[str, bundle_pb2.IndexManifest]:
    import pyarrow as pa

    from graph_store.schema import NodeType

    ids = sorted(str(row) for row in range(len(vectors)))
    with store.writer("many") as writer:
        table = pa.table({"id": ids, "name": ids, "popularity": np.zeros(len(ids))})
        writer.write_nodes(NodeType.model_validate({"name": "Item", "role": "entity"}), table)
        writer.manifest.spaces.add(name="similar", metric=metric, dimension=vectors.shape[1], node_types=["Item"])
        writer.write_vectors("similar", "Item", vectors)
        build_indexes(writer, PublishSettings(recall_target=target))
        version = writer.commit()
    return version, store.open(version).manifest.spaces[0].indexes[0]


@needs_scann
def test_publishing_tunes_audits_and_writes_scann(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "FEW_VECTORS", 2000)
    store = BundleStore(tmp_path)
    # Not of length 1: cosine must not care.
    vectors = clustered(4000, unit=False).copy()
    vectors[5] = 0
    version, manifest = _published(store, vectors, model_service_pb2.COSINE)
    assert (manifest.kind, manifest.exact_reason) == ("scann", "")
    assert manifest.scann_version == scann_version()
    assert manifest.recall_at_10 >= manifest.recall_target == 0.95
    opened = open_index(store.open(version), "similar", manifest)
    assert opened.kind == "scann"
    found = opened.search(unit_rows(vectors[6:7]), 1)[0]
    assert found.rows.tolist() == [6]
    assert found.scores[0] == pytest.approx(1)

    def not_read(*_: object) -> None:
        raise AssertionError("files of another version are not read")

    # Another version of ScaNN: built anew from the vectors, searched as tuned.
    monkeypatch.setattr(ScannIndex, "load", not_read)
    manifest.scann_version = "0.0.1"
    rebuilt = open_index(store.open(version), "similar", manifest)
    assert isinstance(rebuilt, ScannIndex)
    assert rebuilt.parameters.leaves_to_search == manifest.leaves_to_search
    assert rebuilt.search(unit_rows(vectors[6:7]), 1)[0].rows.tolist() == [6]
    # None at all: exact search answers.
    monkeypatch.setattr(publish, "scann_version", lambda: None)
    assert open_index(store.open(version), "similar", manifest).kind == "exact"


@needs_scann
def test_what_scann_cannot_reach_is_searched_exactly_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "FEW_VECTORS", 500)
    # Inner product over vectors of wildly different lengths, quantised: perfect recall is out of reach.
    monkeypatch.setattr("server.index.tuning._REORDER", (10,))
    noise = np.random.default_rng(3).normal(size=(2000, 64)).astype(np.float32)
    _, manifest = _published(BundleStore(tmp_path), noise, model_service_pb2.INNER_PRODUCT, target=1.0)
    assert manifest.kind == "exact"
    assert manifest.exact_reason.startswith("ScaNN reaches recall 0.")
    assert manifest.recall_at_10 == 1.0


def test_few_vectors_are_searched_exactly_and_say_why(tmp_path: Path) -> None:
    _, manifest = _published(BundleStore(tmp_path), clustered(300), model_service_pb2.COSINE)
    assert manifest.kind == "exact"
    assert manifest.exact_reason == "300 vectors, fewer than 10000: exact search is as fast"
