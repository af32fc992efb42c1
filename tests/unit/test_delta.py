"""The delta: its file, what it comes to, and a bundle with it against the same worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from model_store.csr import EdgeType
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.errors import NodeNotFound
from server.fresh.bundle import FreshBundle
from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaReader, DeltaWriter, Record
from server.fresh.index import FreshIndex
from server.fresh.model import with_delta
from server.index.rescoring import scores_of
from server.index.selection import Selection
from server.index.vector_index import VectorIndex
from server.model.served_model import ServedModel
from tests.bundles import ANGLES, HAS_TAG, INFLUENCED, PLAYED, write_toy_bundle
from tests.integration.test_server import SETTINGS

TAGS, HOLDERS = EdgeType(HAS_TAG), EdgeType(HAS_TAG, True)


def artist(node_id: str, name: str, angle: float | None, tags: dict[str, float]) -> pa.Table:
    """A record's row: an artist with a vector at an angle of the plane, and tags."""
    vector = None if angle is None else [np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0.0, 0.0]
    return pa.table(
        {
            "id": [node_id],
            "name": [name],
            "popularity": [0.0],
            "property:name": [name],
            "year": pa.array([2026], pa.int64()),
            "vector/similar": pa.array([vector], pa.list_(pa.float32())),
            f"links/{TAGS.key}": pa.array([list(tags)], pa.list_(pa.string())),
            f"weights/{TAGS.key}": pa.array([list(tags.values())], pa.list_(pa.float32())),
        }
    )


def upsert(node_type: str, nodes: pa.Table) -> Record:
    return Record(kind="upsert", node_type=node_type, nodes=nodes)


def delete(node_type: str, *ids: str) -> Record:
    return Record(kind="delete", node_type=node_type, nodes=pa.table({"id": pa.array(ids, pa.string())}))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    store = BundleStore(tmp_path_factory.mktemp("bundles"))
    return ServedModel.load(store.open(write_toy_bundle(store)))


@pytest.fixture
def delta() -> Delta:
    """A new artist between Slowdive and Ride by id, a new tag, Slayer turned to shoegaze, Lush gone."""
    return Delta().plus(
        [
            upsert("Artist", artist("11", "Nova", 5.0, {"t1": 3.0, "t0": 1.0})),
            upsert("Artist", artist("3", "Slayer", 20.0, {"t1": 9.0})),
            upsert("Tag", pa.table({"id": ["t0"], "name": ["noise"], "popularity": [0.0]})),
            delete("Artist", "2", "nobody"),
        ]
    )


def similar(model: ServedModel, artist_id: str, **more: object) -> pb.SearchSimilarEntitiesResponse:
    request = pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(type="Artist", id=artist_id), top_k=10, **more)
    return Retrieval(model, SETTINGS).search_similar_entities(request, Deadline())


def test_of_each_node_the_last_word_stands() -> None:
    first = Delta().plus([upsert("Artist", artist("a", "A", 1, {})), upsert("Artist", artist("b", "B", 2, {}))])
    second = first.plus([upsert("Artist", artist("a", "Again", None, {})), delete("Artist", "b", "c")])
    third = second.plus([upsert("Artist", artist("b", "Back", 3, {})), delete("Artist", "a")])

    def told(delta: Delta) -> tuple[dict[str, str], set[str]]:
        nodes = delta.types["Artist"].nodes
        names = dict(zip(nodes.column("id").to_pylist(), nodes.column("name").to_pylist(), strict=True))
        return names, set(delta.types["Artist"].deleted)

    assert told(first) == ({"a": "A", "b": "B"}, set())
    assert told(second) == ({"a": "Again"}, {"b", "c"})
    assert told(third) == ({"b": "Back"}, {"a", "c"})
    assert told(first.plus([delete("Artist", "a", "b")]).plus([upsert("Artist", artist("z", "Z", 1, {}))]))[0] == {
        "z": "Z"
    }


def test_a_reader_takes_whole_records_only(tmp_path: Path) -> None:
    path = tmp_path / "deltas" / "x.delta"
    reader = DeltaReader(path)
    assert reader.poll() == (False, [])
    writer = DeltaWriter(path)
    writer.add(upsert("Artist", artist("a", "A", 1.0, {"t1": 2.0})))
    assert (reader.poll(), reader.lag(100.0)) == ((False, []), None), "it is there once it is whole"
    writer.looked(80.0)
    assert reader.lag(100.0) == 20.0
    whole = path.read_bytes()
    anew, (record,) = reader.poll()
    assert (anew, record.kind, record.node_type) == (False, "upsert", "Artist")
    assert record.nodes.equals(artist("a", "A", 1.0, {"t1": 2.0}))
    writer.looked(90.0)
    assert reader.lag(100.0) == 10.0
    writer.add(delete("Artist", "a"))
    assert reader.lag(100.0) == 10.0, "a record alone does not say that all was seen"
    longer = path.read_bytes()
    for end in range(len(whole), len(longer)):
        path.write_bytes(longer[:end])
        assert reader.poll() == (False, []), end
    path.write_bytes(longer[:-1] + bytes([longer[-1] ^ 1]))
    assert reader.poll() == (False, []), "a damaged record is none"
    path.write_bytes(longer)
    assert [each.kind for each in reader.poll()[1]] == ["delete"]
    again = DeltaWriter(path)
    again.add(delete("Tag", "t"))
    assert reader.poll() == (False, [])
    again.looked(95.0)
    anew, records = reader.poll()
    assert (anew, [each.node_type for each in records]) == (True, ["Tag"])
    assert [each.name for each in path.parent.iterdir()] == ["x.delta"]


def test_rows_are_those_of_the_ids_in_order(base: ServedModel, delta: Delta) -> None:
    bundle = FreshBundle(base.bundle, delta)
    ids = list(bundle.ids("Artist"))
    assert ids == ["1", "10", "11", "3", "4", "5", "6"]
    assert [bundle.row("Artist", each) for each in ids] == list(range(7))
    assert bundle.row("Artist", "2") is None
    assert bundle.node_types["Artist"].count == 7
    assert base.bundle.node_types["Artist"].count == 7, "the published bundle stays as it is"
    assert [bundle.name("Artist", row) for row in (0, 2, 3)] == ["Slowdive", "Nova", "Slayer"]
    assert bundle.property("Artist", "year").to_pylist() == [1991, 1990, 2026, 2026, 1995, None, None]
    tags, artists = list(bundle.ids("Tag")), ids

    def lists(edge_type: EdgeType, owners: list[str], others: list[str]) -> dict[str, list[tuple[str, float]]]:
        csr = bundle.neighbours(edge_type)
        assert csr.weight is not None
        return {
            owner: [
                (others[each], float(weight))
                for each, weight in zip(csr.indices[csr.row(row)], csr.weight[csr.row(row)], strict=True)
            ]
            for row, owner in enumerate(owners)
        }

    forward = lists(TAGS, artists, tags)
    assert (forward["11"], forward["3"]) == ([("t1", 3.0), ("t0", 1.0)], [("t1", 9.0)])
    assert forward["1"] == [("t1", 10.0), ("t2", 5.0)]
    assert [each for each, _ in lists(HOLDERS, tags, artists)["t1"]] == ["1", "10"], "Lush is gone"
    # Slayer's record told nothing of its influences: it has none any more.
    assert bundle.neighbours(EdgeType(INFLUENCED)).num_edges == 0


def test_search_finds_what_is_fresh_and_not_what_is_gone(base: ServedModel, delta: Delta) -> None:
    model = with_delta(base, delta)
    found = similar(model, "1", reasons=2)
    assert [each.node.ref.id for each in found.results] == ["11", "10", "5", "3", "4"]
    angles = {**ANGLES, "11": 5.0, "3": 20.0}
    for each in found.results:
        assert each.score == pytest.approx(np.cos(np.radians(angles[each.node.ref.id])), abs=1e-6)
    assert found.info.exact
    assert [node.ref.id for node in found.results[0].reasons[0].path] == ["1", "t1", "11"]
    own = similar(model, "11")
    assert [each.node.ref.id for each in own.results] == ["1", "10", "5", "3", "4"]
    for gone in ("2", "nobody"):
        with pytest.raises(NodeNotFound):
            similar(model, gone)
    assert [each.node.ref.id for each in similar(base, "1").results] == ["10", "5", "2", "4", "3"]


def test_users_are_shown_what_is_left(base: ServedModel, delta: Delta) -> None:
    request = pb.RetrieveEntitiesForUserRequest(
        user=types_pb2.NodeRef(type="User", id="u2"), top_k=10, include_engaged=True
    )
    before = Retrieval(base, SETTINGS).retrieve_entities_for_user(request, Deadline())
    after = Retrieval(with_delta(base, delta), SETTINGS).retrieve_entities_for_user(request, Deadline())
    left = [(each.node.ref.id, each.score) for each in before.results if each.node.ref.id != "2"]
    assert [(each.node.ref.id, each.score) for each in after.results] == left


def test_the_online_encoder_reads_links_by_the_new_rows(base: ServedModel, delta: Delta) -> None:
    def described(model: ServedModel) -> list[tuple[str, float]]:
        request = pb.SearchSimilarEntitiesRequest(top_k=3)
        request.described.type = "Artist"
        request.described.links.add(relation="INFLUENCED_BY", node=types_pb2.NodeRef(type="Artist", id="4"))
        found = Retrieval(model, SETTINGS).search_similar_entities(request, Deadline())
        return [(each.node.ref.id, each.score) for each in found.results]

    gone = Delta().plus([delete("Artist", "1", "10", "2")])
    before, after = described(base), described(with_delta(base, gone))
    assert after[0][0] == before[0][0]
    assert after[0][1] == pytest.approx(before[0][1], abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_any_delta_finds_what_brute_force_finds(base: ServedModel, seed: int) -> None:
    random = np.random.default_rng(seed)
    known = [*ANGLES, "6"]
    fresh = [f"{number}" for number in random.choice(90, 8, replace=False) + 10 if f"{number}" not in known]
    records = [upsert("Artist", artist(each, each, float(random.uniform(0, 90)), {"t1": 1.0})) for each in fresh]
    changed = random.choice(known[:6], 2, replace=False).tolist()
    records += [upsert("Artist", artist(each, each, float(random.uniform(0, 90)), {})) for each in changed]
    gone = random.choice([*known, *fresh], 4, replace=False).tolist()
    model = with_delta(base, Delta().plus([*records, delete("Artist", *gone)]))
    ids = list(model.bundle.ids("Artist"))
    assert ids == sorted({*known, *fresh} - set(gone))
    vectors = np.asarray(model.bundle.vectors("similar", "Artist"))
    index = model.index("similar", "Artist", "")
    assert isinstance(index, FreshIndex)
    query = vectors[int(np.flatnonzero(vectors.any(axis=1))[0])]
    exclude = random.choice(len(ids), 2, replace=False)
    allowed = Selection.of(random.choice(len(ids), max(len(ids) - 3, 1), replace=False), len(ids))
    for left_out, selection in ((exclude, None), (np.empty(0, np.int64), allowed), (exclude, allowed)):
        (found,) = index.search(query[None], 4, [left_out], [selection])
        rows = np.setdiff1d(np.arange(len(ids)) if selection is None else selection.rows, left_out)
        rows = rows[vectors[rows].any(axis=1)]
        scores = scores_of(vectors[rows], query)
        best = np.lexsort((rows, -scores))[:4]
        assert found.rows.tolist() == rows[best].tolist()
        assert found.scores.tolist() == pytest.approx(scores[best].tolist(), abs=1e-6)


def test_a_type_without_changes_keeps_its_index(base: ServedModel, delta: Delta) -> None:
    model = with_delta(base, Delta(types={"Tag": delta.types["Tag"]}))
    indexes: dict[tuple[str, str], VectorIndex] = model.indexes
    assert indexes == base.indexes
    assert model.bundle.neighbours(EdgeType(PLAYED)) is base.bundle.neighbours(EdgeType(PLAYED))
