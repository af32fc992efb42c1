"""Batches and users for an entity, over a socket: each item answers what its call alone answers."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from server.deadline import Deadline
from server.errors import DeadlinePassed
from server.index.exact_index import ExactIndex
from server.model.catalogue import Catalogue
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.guard import Origin, current_deadline, current_origin
from server.wire.services import RetrievalServicer
from tests.bundles import write_toy_bundle
from tests.integration.test_server import (
    SETTINGS,
    Asker,
    Refusal,
    asker,  # noqa: F401
    described,
    events,
    found,
    link,
    ref,
    refused,
    vector,
    version,  # noqa: F401
    version_and_asker,  # noqa: F401
)

SIMILAR: dict[str, dict[str, Any]] = {
    "an entity": {"entity": ref("1"), "top_k": 3},
    "another": {"entity": ref("3"), "top_k": 3},
    "with reasons": {"entity": ref("10"), "top_k": 3, "reasons": 2},
    "one that is unknown": {"entity": ref("99"), "top_k": 3},
    "more of it": {"entity": ref("1"), "top_k": 9},
    "some left out": {"entity": ref("1"), "top_k": 3, "exclude": [ref("10"), ref("2")]},
    "a vector": {"vector": vector(0, 1, 0, 0), "top_k": 3},
    "a short vector": {"vector": vector(0, 1), "top_k": 3},
    "described": {"described": described(links=[link("HAS_TAG", "t3")]), "top_k": 3, "reasons": 1},
    "nothing": {"top_k": 3},
    "nothing known of it": {"entity": ref("6"), "top_k": 3},
    "too many": {"entity": ref("1"), "top_k": 51},
    "a type that is not searched": {"entity": ref("1"), "target_type": "User", "top_k": 3},
    "a vector of another bundle": {"vector": vector(1, 0, 0, 0, bundle_version="old"), "top_k": 1},
}
FOR_USER: dict[str, dict[str, Any]] = {
    "a user": {"user": ref("u1"), "top_k": 3},
    "another": {"user": ref("u3"), "top_k": 3, "reasons": 2},
    "unknown": {"user": ref("u9"), "top_k": 3},
    "unknown, the popular": {"user": ref("u9"), "top_k": 3, "fallback": types_pb2.FALLBACK_POPULAR},
    "unknown too, some left out": {
        "user": ref("u8"), "top_k": 3, "fallback": types_pb2.FALLBACK_POPULAR, "exclude": [ref("1")],
    },
    "events": {"events": events("3"), "top_k": 3},
    "a vector": {"vector": vector(0, 1, 0, 0), "top_k": 3},
    "everything": {"user": ref("u1"), "top_k": 9, "include_engaged": True},
    "an unknown fallback": {"user": ref("u1"), "top_k": 1, "fallback": 7},
}  # fmt: skip


def timeless(response: Any) -> Any:
    response.info.ClearField("server_time")
    return response


def alone(call: Any, fields: dict[str, Any]) -> Any:
    """What the call answers by itself: the response, or the status it ends with."""
    try:
        return timeless(call(**fields))
    except grpc.RpcError as error:
        return Refusal(error).status


@pytest.mark.parametrize("kind", ["similar", "user"])
def test_an_item_answers_what_its_call_answers(asker: Asker, version: str, kind: str) -> None:  # noqa: F811
    metadata = [("x-request-id", "same")]
    if kind == "similar":
        cases, request = SIMILAR, pb.SearchSimilarEntitiesRequest
        single, batch = asker.retrieval.SearchSimilarEntities, asker.retrieval.BatchSearchSimilarEntities
        wanted = pb.BatchSearchSimilarEntitiesRequest
    else:
        cases, request = FOR_USER, pb.RetrieveEntitiesForUserRequest
        single, batch = asker.retrieval.RetrieveEntitiesForUser, asker.retrieval.BatchRetrieveEntitiesForUser
        wanted = pb.BatchRetrieveEntitiesForUserRequest
    requests = [request(**fields) for fields in cases.values()]
    answer = batch(wanted(requests=requests), timeout=10, metadata=metadata)
    assert len(answer.items) == len(requests)
    refusals = 0
    for name, each, item in zip(cases, requests, answer.items, strict=True):

        def call(each: Any = each) -> Any:
            return single(each, timeout=10, metadata=metadata)

        expected = alone(call, {})
        if item.WhichOneof("outcome") == "error":
            refusals += 1
            assert item.error == expected, name
        else:
            assert timeless(item.response) == expected, name
    assert refusals == (7 if kind == "similar" else 2)
    answered = [item.response.info for item in answer.items if item.HasField("response")]
    assert (answer.info.bundle_version, answer.info.exact) == (version, True)
    assert answer.info.candidates_scored == sum(info.candidates_scored for info in answered)
    assert answer.info.server_time.ToNanoseconds() > 0


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_that_is_empty_or_too_large_is_refused_whole(asker: Asker, count: int) -> None:  # noqa: F811
    for call, request in (
        (asker.retrieval.BatchSearchSimilarEntities, pb.BatchSearchSimilarEntitiesRequest),
        (asker.retrieval.BatchRetrieveEntitiesForUser, pb.BatchRetrieveEntitiesForUserRequest),
    ):
        refusal = refused(call, request(requests=[{"top_k": 1}] * count), timeout=10)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert (refusal.field, f"{count} requests" in refusal.status.message) == ("requests", True)


def test_a_hundred_by_id_are_one_index_call(
    asker: Asker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    search = ExactIndex.search_each

    def counted(self: ExactIndex, queries: Any, k: int, exclude: Any) -> Any:
        asked.append(len(queries))
        return search(self, queries, k, exclude)

    monkeypatch.setattr(ExactIndex, "search_each", counted)
    requests = [{"entity": ref(("1", "3")[number % 2]), "top_k": 1} for number in range(100)]
    answer = asker.retrieval.BatchSearchSimilarEntities(pb.BatchSearchSimilarEntitiesRequest(requests=requests))
    assert [found(item.response) for item in answer.items] == [["10"], ["4"]] * 50
    assert asked == [100]


@pytest.mark.parametrize("more", [{}, {"reasons": 1}], ids=["plain", "general"])
def test_a_fault_in_one_item_is_that_items_alone(
    asker: Asker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    more: dict[str, Any],
) -> None:
    row = Catalogue.row

    def fail(self: Catalogue, node_type: str, ref: Any, field: str) -> Any:
        if ref.id == "3":
            raise ZeroDivisionError("secret")
        return row(self, node_type, ref, field)

    monkeypatch.setattr(Catalogue, "row", fail)
    requests = [{"entity": ref(each), "top_k": 1, **more} for each in ("1", "3", "10")]
    with caplog.at_level(logging.ERROR, "kithkin.server"):
        answer = asker.retrieval.BatchSearchSimilarEntities(pb.BatchSearchSimilarEntitiesRequest(requests=requests))
    assert [item.WhichOneof("outcome") for item in answer.items] == ["response", "error", "response"]
    assert answer.items[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(answer.items[1])
    (record,) = caplog.records
    assert (record.fields["item"], record.exc_info is not None) == (1, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("more", [{}, {"reasons": 1}], ids=["plain", "general"])
def test_a_search_that_fails_is_told_to_each_item_of_it(
    asker: Asker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("secret")

    for search in ("search", "search_each"):
        monkeypatch.setattr(ExactIndex, search, fail)
    requests = [{"entity": ref("1"), "top_k": 1, **more}, {"entity": ref("99"), "top_k": 1, **more}]
    answer = asker.retrieval.BatchSearchSimilarEntities(pb.BatchSearchSimilarEntitiesRequest(requests=requests))
    codes = [item.error.code for item in answer.items]
    assert codes == [grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.NOT_FOUND.value[0]]


@pytest.mark.parametrize("more", [{}, {"reasons": 1}], ids=["plain", "general"])
async def test_a_batch_is_of_one_bundle_and_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr("server.calls.batches._TURN_S", 0.0)
    store = BundleStore(tmp_path)
    first, second = (ServedModel.load(store.open(write_toy_bundle(store, encoders=False))) for _ in range(2))
    state = State(settings=SETTINGS)
    state.take(first)
    current_deadline.set(Deadline())
    current_origin.set(Origin("test", "1"))
    requests = [{"entity": ref("1"), "top_k": 1, **more}] * 100
    batch = asyncio.create_task(
        RetrievalServicer(state).BatchSearchSimilarEntities(
            pb.BatchSearchSimilarEntitiesRequest(requests=requests), None
        )
    )
    turns = 0
    while not batch.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 5:
            state.take(second)
    answer = await batch
    assert {item.response.info.bundle_version for item in answer.items} == {first.version} != {second.version}
    assert answer.info.bundle_version == first.version
    assert turns > (200 if more else 100), "reading each item may be a turn of its own, answering it too"


async def test_others_have_their_turn_between_plain_requests_of_many_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.calls.batches._TURN_S", 0.0)
    monkeypatch.setattr("server.calls.batches._MANY", 1000)
    store = BundleStore(tmp_path)
    state = State(settings=SETTINGS)
    state.take(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))))
    current_deadline.set(Deadline())
    current_origin.set(Origin("test", "1"))
    turns: list[int] = []

    async def answered(kinds: int) -> None:
        requests = [{"entity": ref("1"), "top_k": 1 + number % kinds} for number in range(20)]
        batch = asyncio.create_task(
            RetrievalServicer(state).BatchSearchSimilarEntities(
                pb.BatchSearchSimilarEntitiesRequest(requests=requests), None
            )
        )
        turns.append(0)
        while not batch.done():
            await asyncio.sleep(0)
            turns[-1] += 1
        assert len((await batch).items) == 20

    await answered(1)
    await answered(20)
    assert turns[1] >= turns[0] + 19, "one after the searches of each kind"


async def test_a_deadline_that_passes_ends_the_whole_batch(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    state = State(settings=SETTINGS)
    state.take(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))))
    current_deadline.set(Deadline(0.0))
    current_origin.set(Origin("test", "1"))
    time.sleep(0.001)
    with pytest.raises(DeadlinePassed, match="before the search"):
        await RetrievalServicer(state).BatchSearchSimilarEntities(
            pb.BatchSearchSimilarEntitiesRequest(requests=[{"entity": ref("1"), "top_k": 1}]), None
        )


# ---------------------------------------------------------- users for an entity


def users(asker: Asker, **fields: Any) -> Any:  # noqa: F811
    return asker.retrieval.RetrieveUsersForEntity(pb.RetrieveUsersForEntityRequest(**fields), timeout=10)


def test_users_for_an_entity_come_by_inner_product(asker: Asker, version: str) -> None:  # noqa: F811
    # Slowdive is (1, 0): u2 scores 2, u1 1, u3 0; of u4 nothing is known.
    response = users(asker, entity=ref("1"), top_k=3, include_engaged=True)
    assert [(each.node.ref.type, each.node.ref.id) for each in response.results] == [
        ("User", "u2"), ("User", "u1"), ("User", "u3"),
    ]  # fmt: skip
    assert [each.score for each in response.results] == pytest.approx([2, 1, 0])
    assert (response.info.bundle_version, response.info.exact) == (version, True)
    assert (response.info.candidates_scored, response.info.shortfall_reason) == (3, "")
    mirrored = asker.user(user=ref("u2"), top_k=9, include_engaged=True).results
    assert {each.node.ref.id: each.score for each in mirrored}["1"] == response.results[0].score


def test_those_who_engaged_are_left_out(asker: Asker) -> None:  # noqa: F811
    response = users(asker, entity=ref("1"), top_k=3)
    assert found(response) == ["u3"], "u1 and u2 played Slowdive"
    assert "only 1 of this type" in response.info.shortfall_reason
    assert found(users(asker, entity=ref("2"), top_k=3)) == ["u1", "u3"], "u2 played Lush"
    assert found(users(asker, entity=ref("5"), top_k=3)) == ["u2", "u1", "u3"], "nobody played it"
    assert found(users(asker, entity=ref("2"), top_k=3, exclude=[ref("u1"), ref("nobody")])) == ["u3"]
    assert found(users(asker, vector=vector(0, 1, 0, 0), top_k=1)) == ["u3"]


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"top_k": 1}, "INVALID_ARGUMENT", "INVALID_FIELD", "query"),
        ({"entity": ref("1"), "top_k": 51}, "INVALID_ARGUMENT", "TOP_K_OUT_OF_RANGE", "top_k"),
        ({"entity": ref("u1", "User"), "top_k": 1}, "INVALID_ARGUMENT", "INVALID_FIELD", "entity.type"),
        ({"entity": ref("1"), "target_type": "Tag", "top_k": 1}, "INVALID_ARGUMENT", "INVALID_FIELD", "target_type"),
        ({"vector": vector(1), "top_k": 1}, "INVALID_ARGUMENT", "WRONG_DIMENSION", "vector.values"),
        (
            {"entity": ref("1"), "exclude": [ref("1", "Artist")], "top_k": 1},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "exclude[0].type",
        ),
        ({"entity": ref("99"), "top_k": 1}, "NOT_FOUND", "NODE_NOT_FOUND", ""),
        ({"entity": ref("6"), "top_k": 1}, "NOT_FOUND", "NODE_WITHOUT_VECTOR", ""),
    ],
)
def test_wrong_questions_for_users(asker: Asker, fields: Any, code: str, reason: str, field: str) -> None:  # noqa: F811
    refusal = refused(users, asker, **fields)
    assert (refusal.code.name, refusal.reason, refusal.field) == (code, reason, field)


def test_who_engaged_is_found_in_graphs_too_large_to_turn_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BundleStore(tmp_path)
    bundle = store.open(write_toy_bundle(store, encoders=False))
    whole = ServedModel.load(bundle)
    monkeypatch.setattr("server.model.neighbourhoods._MOST_COUNTED", 1)
    large = ServedModel.load(bundle)
    for artist in range(7):
        key = whole.catalogue.resolve(ref(bundle.ids("Artist")[artist]), "x")
        one, other = (each.explainer.neighbourhoods.engaged_with(key, "User") for each in (whole, large))
        np.testing.assert_array_equal(one, other)
    assert one.tolist() == []
