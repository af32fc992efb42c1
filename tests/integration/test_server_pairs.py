"""ScorePairs and EmbedUsers over a real socket: the scores of searches, and vectors of users told by events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle
from tests.integration.test_server import Asker, ref, refused


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    with serve_in_thread(store.open(write_toy_bundle(store, albums=True)), ServingSettings()) as port:
        asker = Asker(port)
        with asker.channel:
            yield asker


def artist(node_id: str) -> types_pb2.NodeRef:
    return ref(node_id, "Artist")


def user(node_id: str) -> types_pb2.NodeRef:
    return ref(node_id, "User")


def score(asker: Asker, *pairs: tuple[types_pb2.NodeRef, types_pb2.NodeRef]) -> pb.ScorePairsResponse:
    request = pb.ScorePairsRequest(pairs=[pb.NodePair(source=one, target=two) for one, two in pairs])
    return asker.retrieval.ScorePairs(request, timeout=10)


def reason(status: Any) -> tuple[str, str]:
    """Reason and field of an item's error."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        if detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    field = bad.field_violations[0].field if bad.field_violations else info.metadata["field"]
    return info.reason, field


# --------------------------------------------------------------------- pairs


def test_a_pair_of_entities_scores_its_cosine(asker: Asker) -> None:
    answer = score(asker, (artist("1"), artist("10")), (artist("3"), artist("1")), (artist("1"), artist("1")))
    assert [item.score for item in answer.items] == pytest.approx([np.cos(np.radians(10)), 0.0, 1.0], abs=1e-6)
    assert answer.info.exact
    assert answer.info.candidates_scored == 3


def test_a_concept_and_another_entity_type_are_scored_where_the_space_holds_them(asker: Asker) -> None:
    answer = score(
        asker, (artist("1"), ref("t1", "Tag")), (ref("t3", "Tag"), artist("4")), (artist("1"), ref("a1", "Album"))
    )
    assert [item.score for item in answer.items] == pytest.approx([1.0, np.cos(np.radians(10)), 1.0], abs=1e-6)


def test_a_pair_with_a_user_scores_its_inner_product_either_way(asker: Asker) -> None:
    answer = score(asker, (user("u2"), artist("10")), (artist("10"), user("u2")))
    assert [item.score for item in answer.items] == pytest.approx([2 * 0.9 + 0.1 * 0.1] * 2, abs=1e-6)


def test_scores_are_those_that_searches_answer(asker: Asker) -> None:
    similar = asker.similar(entity=artist("2"), top_k=10)
    for_user = asker.user(user=user("u2"), target_type="Artist", top_k=10, include_engaged=True)
    pairs = [(artist("2"), result.node.ref) for result in similar.results]
    pairs += [(user("u2"), result.node.ref) for result in for_user.results]
    found = [item.score for item in score(asker, *pairs).items]
    assert found == [result.score for result in [*similar.results, *for_user.results]]
    assert len(found) > 9


def test_a_pair_without_a_score_has_its_error_and_the_others_theirs(asker: Asker) -> None:
    answer = score(
        asker,
        (artist("1"), artist("10")),
        (artist("nobody"), artist("10")),
        (artist("1"), artist("6")),
        (user("u1"), user("u2")),
        (user("u4"), artist("1")),
        (user("u1"), ref("t1", "Tag")),
        (artist("1"), types_pb2.NodeRef()),
        (ref("1"), artist("10")),
        (ref("1", "Nothing"), artist("10")),
        (artist("3"), artist("4")),
    )
    outcomes = [item.WhichOneof("outcome") for item in answer.items]
    assert outcomes == ["score", *["error"] * 8, "score"]
    assert [reason(item.error) for item in answer.items[1:9]] == [
        ("NODE_NOT_FOUND", "pairs[1].source"),
        ("NODE_WITHOUT_VECTOR", "pairs[2].target"),
        ("INVALID_FIELD", "pairs[3]"),
        ("NODE_WITHOUT_VECTOR", "pairs[4].source"),
        ("NO_SUCH_SPACE", "pairs[5].target"),
        ("INVALID_FIELD", "pairs[6].target.id"),
        ("TYPE_NEEDED", "pairs[7].source.type"),
        ("NOT_DECLARED", "pairs[8].source.type"),
    ]
    assert answer.info.candidates_scored == 2


@pytest.mark.parametrize("count", [0, 1001])
def test_one_to_a_thousand_pairs(asker: Asker, count: int) -> None:
    refusal = refused(score, asker, *[(artist("1"), artist("2"))] * count)
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "pairs")
    assert len(score(asker, *[(artist("1"), artist("2"))] * 1000).items) == 1000


# --------------------------------------------------------------------- users


def embed(asker: Asker, *items: pb.EmbedUserItem) -> pb.EmbedUsersResponse:
    return asker.retrieval.EmbedUsers(pb.EmbedUsersRequest(items=items), timeout=10)


def event(node_id: str, weight: float = 0.0, at: int | None = None) -> types_pb2.Event:
    time = None if at is None else Timestamp(seconds=at)
    return types_pb2.Event(entity=artist(node_id), weight=weight, time=time)


def told(*events: types_pb2.Event) -> pb.EmbedUserItem:
    return pb.EmbedUserItem(events=types_pb2.EventList(events=events))


def test_users_are_embedded_by_id_and_by_events(asker: Asker) -> None:
    answer = embed(asker, pb.EmbedUserItem(user=user("u2")), told(event("1", 3.0), event("3")), told(event("10")))
    assert [list(vector.values) for vector in answer.vectors] == [
        pytest.approx([2.0, 0.1, 0.0, 0.0]),
        pytest.approx([0.75, 0.25, 0.0, 0.0]),
        pytest.approx([0.9, 0.1, 0.0, 0.0]),
    ]
    assert {(vector.space, vector.bundle_version) for vector in answer.vectors} == {
        ("user", answer.info.bundle_version)
    }
    # What comes out goes in again.
    again = asker.user(vector=answer.vectors[0], target_type="Artist", top_k=3)
    assert [result.node.ref.id for result in again.results] == ["1", "10", "2"]


def test_what_cannot_be_embedded_is_named_by_its_path(asker: Asker) -> None:
    fine = pb.EmbedUserItem(user=user("u1"))
    for wrong, code, field in (
        (pb.EmbedUserItem(), "INVALID_FIELD", "items[1]"),
        (pb.EmbedUserItem(user=artist("1")), "INVALID_FIELD", "items[1].user.type"),
        (told(), "INVALID_FIELD", "items[1].events.events"),
        (told(event("1", -1.0)), "INVALID_FIELD", "items[1].events.events[0].weight"),
        (told(event("1", at=10**13)), "INVALID_FIELD", "items[1].events.events[0].time"),
    ):
        refusal = refused(embed, asker, fine, wrong)
        assert (refusal.reason, refusal.field) == (code, field)
    refusal = refused(embed, asker, fine, pb.EmbedUserItem(user=user("u4")))
    assert (refusal.reason, refusal.info.metadata["field"]) == ("NODE_WITHOUT_VECTOR", "items[1].user")
    for count in (0, 101):
        assert refused(embed, asker, *[fine] * count).field == "items"


# -------------------------------------------------------- which events count


class Encoding:
    """Vectors of users whose encoder reads two events."""

    def __init__(self, folder: Path, *, timed: bool) -> None:
        self._store = BundleStore(folder)
        from graph_store.settings import PublishSettings
        from server.index.publish import build_indexes
        from tests.bundles import PLAYED, fill

        with self._store.writer("toy") as writer:
            fill(writer)
            build_indexes(writer, PublishSettings())
            for relation in writer.manifest.relations:
                relation.timed = timed and relation.name == PLAYED.name
            for space in writer.manifest.spaces:
                space.max_neighbours = 2
            self.version = writer.commit()

    def bundle(self) -> Any:
        return self._store.open(self.version)


@pytest.fixture(scope="module", params=["timed", "weighed"])
def two_events(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Asker]]:
    encoding = Encoding(tmp_path_factory.mktemp("two"), timed=request.param == "timed")
    with serve_in_thread(encoding.bundle(), ServingSettings()) as port:
        asker = Asker(port)
        with asker.channel:
            yield request.param, asker


def read(two_events: tuple[str, Asker], *events: types_pb2.Event) -> set[str]:
    """Which two of the artists 1 (1, 0), 3 (0, 1) and 2 (0.8, 0) were read, with the weights 1, 2 and 4."""
    vector = tuple(round(value, 4) for value in embed(two_events[1], told(*events)).vectors[0].values[:2])
    return {
        (round(1 / 3, 4), round(2 / 3, 4)): {"1", "3"},
        (round(4.2 / 5, 4), 0.0): {"1", "2"},
        (round(3.2 / 6, 4), round(2 / 6, 4)): {"3", "2"},
    }[vector]


def test_the_newest_events_are_read_where_the_relation_has_time_else_the_heaviest(
    two_events: tuple[str, Asker],
) -> None:
    timed = two_events[0] == "timed"
    # By their places alone: the last told are the newest.
    assert read(two_events, event("2", 4.0), event("3", 2.0), event("1", 1.0)) == ({"1", "3"} if timed else {"2", "3"})
    # By their times, wherever they stand in the list.
    assert read(two_events, event("1", 1.0, 900), event("2", 4.0, 100), event("3", 2.0, 500)) == (
        {"1", "3"} if timed else {"2", "3"}
    )
    # Of one time the heaviest.
    assert read(two_events, event("2", 4.0, 5), event("3", 2.0, 5), event("1", 1.0, 5)) == {"2", "3"}
    # One without a time is older than any that has one.
    assert read(two_events, event("1", 1.0, 1), event("3", 2.0, 2), event("2", 4.0)) == (
        {"1", "3"} if timed else {"2", "3"}
    )


def test_what_a_user_did_is_left_out_however_little_of_it_is_read(two_events: tuple[str, Asker]) -> None:
    events = types_pb2.EventList(events=[event("1"), event("2"), event("3"), event("4")])
    answer = two_events[1].user(events=events, top_k=10)
    assert {result.node.ref.id for result in answer.results} == {"10", "5"}
