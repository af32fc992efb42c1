"""A bundle written without a node, against the toy bundle's known lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graph_store.settings import PublishSettings, ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import EdgeType
from model_store.removal import write_without
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.index.publish import build_indexes
from server.model.served_model import ServedModel
from tests.bundles import HAS_TAG, PLAYED, write_toy_bundle


def without(store: BundleStore, node_type: str, node_id: str) -> tuple[Bundle, Bundle]:
    before = store.open(write_toy_bundle(store))
    row = before.row(node_type, node_id)
    assert row is not None
    with store.writer("toy") as writer:
        write_without(writer, before, node_type, [row])
        build_indexes(writer, PublishSettings())
        version = writer.commit()
    return before, store.open(version)


def lists(bundle: Bundle, edge_type: EdgeType) -> dict[str, dict[str, float]]:
    """Ids of the neighbours with their weights, by the node's id."""
    csr = bundle.neighbours(edge_type)
    rows, columns = bundle.ids(edge_type.node_type), bundle.ids(edge_type.neighbour_type)
    weight = np.ones(len(csr.indices)) if csr.weight is None else csr.weight
    return {
        rows[row]: {columns[csr.indices[at]]: float(weight[at]) for at in range(csr.indptr[row], csr.indptr[row + 1])}
        for row in range(csr.num_rows)
    }


def test_a_user_is_gone_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    before, after = without(store, "User", "u2")
    assert [after.ids("User")[row] for row in range(3)] == ["u1", "u3", "u4"]
    assert after.row("User", "u2") is None
    assert after.node_types["User"].count == 3
    kept = {user: heard for user, heard in lists(before, EdgeType(PLAYED)).items() if user != "u2"}
    assert lists(after, EdgeType(PLAYED)) == kept
    back = {
        artist: {user: weight for user, weight in heard.items() if user != "u2"}
        for artist, heard in lists(before, EdgeType(PLAYED, True)).items()
    }
    assert lists(after, EdgeType(PLAYED, True)) == back
    assert lists(after, EdgeType(HAS_TAG)) == lists(before, EdgeType(HAS_TAG))
    assert {each.name: each.edges for each in after.manifest.relations}["PLAYED"] == 4
    np.testing.assert_array_equal(after.vectors("user", "User"), np.delete(before.vectors("user", "User"), 1, axis=0))
    np.testing.assert_array_equal(after.vectors("user", "Artist"), before.vectors("user", "Artist"))
    assert after.states("user", 0, "User").shape == (3, 4)
    assert not any(b"u2" in path.read_bytes() for path in after.folder.rglob("*") if path.is_file())
    assert after.version > before.version


def test_it_answers(tmp_path: Path) -> None:
    _, after = without(BundleStore(tmp_path), "User", "u2")
    retrieval = Retrieval(ServedModel.load(after), ServingSettings())
    request = pb.RetrieveEntitiesForUserRequest(user=types_pb2.NodeRef(type="User", id="u3"), top_k=1)
    (best,) = retrieval.retrieve_entities_for_user(request, Deadline()).results
    assert best.node.ref.id not in ("3", "4"), "what u3 played is left out"
    back = pb.RetrieveUsersForEntityRequest(entity=types_pb2.NodeRef(type="Artist", id="2"), top_k=5)
    assert [each.node.ref.id for each in retrieval.retrieve_users_for_entity(back, Deadline()).results] == ["u1", "u3"]


def test_an_entity_is_gone_from_the_lists_of_others(tmp_path: Path) -> None:
    before, after = without(BundleStore(tmp_path), "Artist", "10")
    expected = {
        user: {artist: weight for artist, weight in heard.items() if artist != "10"}
        for user, heard in lists(before, EdgeType(PLAYED)).items()
    }
    assert lists(after, EdgeType(PLAYED)) == expected
    assert after.name("Artist", after.row("Artist", "2") or 0) == "Lush"
