"""Loading a bundle to answer from it: what the encoder is given, and what does not answer is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from graph_store.settings import PublishSettings
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from model_store.csr import EdgeType
from server.calls.queries import MOST_EXCLUDED, left_out
from server.errors import InvalidField, SelfTestFailed
from server.index.exact_index import ExactIndex
from server.index.publish import build_indexes
from server.model.encoder import Link
from server.model.names import NameIndex
from server.model.served_model import ServedModel
from tests.bundles import HAS_TAG, INFLUENCED, fill, write_mean_encoder, write_toy_bundle


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "models")


def _with_encoder(store: BundleStore, width: int, *, max_neighbours: int = 50) -> str:
    with store.writer("toy") as writer:
        fill(writer)
        build_indexes(writer, PublishSettings())
        writer.manifest.spaces[0].max_neighbours = max_neighbours
        write_mean_encoder(writer.encoder_path("similar", "Artist"), width=width, unit=True)
        return writer.commit()


def test_an_encoder_reads_the_first_neighbours_of_each_edge_type(store: BundleStore) -> None:
    model = ServedModel.load(store.open(_with_encoder(store, 4, max_neighbours=1)))
    encoder = model.encoder("similar", "Artist", "")
    nothing = model.describer.empty("Artist").properties
    metal, shoegaze, opeth = Link(row=2, weight=3), Link(row=0, weight=9), Link(row=4)
    tags, artists = EdgeType(HAS_TAG), EdgeType(INFLUENCED)
    assert encoder.encode(nothing, {tags: [metal, shoegaze]}) == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert encoder.encode(nothing, {tags: [shoegaze, metal]}) == pytest.approx([1, 0, 0, 0], abs=1e-6)
    both = encoder.encode(nothing, {tags: [shoegaze], artists: [opeth]})
    angle = np.radians(80)
    raw = np.array([9 + np.cos(angle), np.sin(angle), 0, 0]) / 10
    assert both == pytest.approx(raw / np.linalg.norm(raw), abs=1e-6)


def test_no_neighbour_is_one_empty_slot(store: BundleStore) -> None:
    model = ServedModel.load(store.open(write_toy_bundle(store)))
    encoder = model.encoder("user", "User", "")
    assert encoder.encode(model.describer.empty("User").properties, {}).tolist() == [0, 0, 0, 0]
    # Links of another type's edges are not this type's.
    links = {EdgeType(HAS_TAG): [Link(row=0)]}
    assert encoder.encode(model.describer.empty("User").properties, links).tolist() == [0, 0, 0, 0]


def test_an_encoder_that_does_not_fit_the_features_is_refused(store: BundleStore) -> None:
    bundle = store.open(_with_encoder(store, 7))
    with pytest.raises(SelfTestFailed, match="encoder of Artist in the space 'similar'"):
        ServedModel.load(bundle)


def test_an_index_that_does_not_find_its_own_vectors_is_refused(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = store.open(write_toy_bundle(store))
    vectors = np.array(bundle.vectors("similar", "Artist"))

    def other_index(*_: object) -> ExactIndex:
        return ExactIndex(np.roll(-vectors, 1, axis=1))

    monkeypatch.setattr("server.model.served_model.open_index", other_index)
    with pytest.raises(SelfTestFailed, match="index of Artist in the space 'similar'"):
        ServedModel.load(bundle)


def test_a_bundle_moved_elsewhere_answers_the_same(store: BundleStore, tmp_path: Path) -> None:
    version = write_toy_bundle(store)
    shutil.copytree(store.root, tmp_path / "copy")
    shutil.rmtree(store.root)
    model = ServedModel.load(BundleStore(tmp_path / "copy").open(version))
    vector = model.vector("similar", "Artist", 0, "")
    assert vector is not None
    assert model.indexes["similar", "Artist"].search(vector[None], 2)[0].rows.tolist() == [0, 1]


def test_more_than_can_be_left_out_at_once_is_refused(store: BundleStore) -> None:
    model = ServedModel.load(store.open(write_toy_bundle(store)))
    refs = [types_pb2.NodeRef(id=str(number)) for number in range(MOST_EXCLUDED)]
    assert left_out(model, refs, "Artist") == {0, 1, 2, 3, 4, 5, 6}, "unknown ids are passed over"
    with pytest.raises(InvalidField, match=r"exclude: 10001 entities, send at most 10000"):
        left_out(model, [*refs, refs[0]], "Artist")


def test_popular_is_by_engagement_then_id(store: BundleStore) -> None:
    model = ServedModel.load(store.open(write_toy_bundle(store)))
    assert model.popular("Artist").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert model.catalogue.named("RIDE", ("Artist",)) == [("Artist", 1), ("Artist", 5)]


def test_names_are_compared_without_accents_composed_or_spaces_doubled(store: BundleStore) -> None:
    import pyarrow as pa

    names = ["Beyonc\u00e9", "Sigur  R\u00f3s", None, "ΣΊΣΥΦΟΣ", "beyonce\u0301"]
    index = NameIndex(pa.table({"id": ["a", "b", "c", "d", "e"], "name": names}))
    assert index.rows("Beyonc\u00e9", exact=True) == [0]
    assert index.rows("BEYONC\u00c9", exact=False) == [0, 4]
    assert index.rows("sigur r\u00f3s", exact=False) == [1]
    assert index.rows("c", exact=True) == [2], "without a name, the id"
    assert index.rows("", exact=False) == []
    assert (
        NameIndex(pa.table({"id": pa.array([], pa.string()), "name": pa.array([], pa.string())})).rows("x", exact=False)
        == []
    )
