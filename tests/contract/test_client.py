"""One behaviour for every client: each test runs over gRPC and in this process, blocking and with asyncio.

All four answer from the toy bundle of `tests/bundles.py`, whose right answers can be worked out by hand.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kithkin
from graph_store.settings import ServingSettings
from kithkin import AsyncClient, Client, Context, Event, F, Ref, ResponseInfo, Vector
from model_store.bundle_store import BundleStore
from model_store.errors import BundleCorrupt, BundleNotFound
from server.wire.local import serve_in_thread
from tests.both_clients import Awaited
from tests.bundles import write_toy_bundle

SETTINGS = {"max_top_k": 50, "max_message_bytes": 100_000}
KINDS = ("sync over gRPC", "async over gRPC", "sync in process", "async in process")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    store.activate(write_toy_bundle(store))
    return store


@pytest.fixture(scope="module")
def version(store: BundleStore) -> str:
    active = store.active()
    assert active is not None
    return active


@pytest.fixture(scope="module")
def clients(store: BundleStore, version: str) -> Iterator[dict[str, Any]]:
    """A client of each kind."""
    with (
        serve_in_thread(store.open(), ServingSettings.model_validate(SETTINGS)) as port,
        asyncio.Runner() as runner,
        Client(f"127.0.0.1:{port}", timeout=30) as remote,
        # Of a folder of bundles the active one is taken; a bundle's own folder is one too.
        Client.local(store.root, timeout=30, settings=SETTINGS) as local,
    ):
        remote_async = Awaited(runner, AsyncClient(f"127.0.0.1:{port}", timeout=30))
        local_async = Awaited(runner, AsyncClient.local(store.root / version, timeout=30, settings=SETTINGS))
        yield dict(zip(KINDS, (remote, remote_async, local, local_async), strict=True))
        remote_async.close()
        local_async.close()


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def test_similar(client: Any, version: str) -> None:
    results = client.similar("1", top_k=3, reasons=1)
    assert results.ids == ["10", "5", "2"], "by angle: 10, 12 and 15 degrees"
    np.testing.assert_allclose(results.to_numpy(), np.cos(np.radians([10, 12, 15])), atol=1e-6)
    assert (results[0].ref, results[0].name, results[0].properties["year"]) == (Ref("Artist", "10"), "Ride", 1990)
    (reason,) = results[0].reasons
    assert (reason.path[0].id, reason.path[-1].id, bool(reason.text)) == ("1", "10", True)
    assert (results.info.bundle_version, results.info.exact, results.info.fallback) == (version, True, None)
    assert results.info.server_time > timedelta()


def test_filters(client: Any) -> None:
    def found(written: kithkin.Filter, **more: Any) -> list[str]:
        ids: list[str] = client.similar("1", filter=written, **more).ids
        return ids

    assert found(F.year >= 1991) == ["2", "4"]
    assert found(~(F.year >= 1991)) == ["10", "5", "3"], "of number 5 no year is known"
    assert found(F.year.present() & (F.year < 1991)) == ["10", "3"]
    assert found(F.year.one_of([1986, 1992])) == ["2", "3"]
    assert found(F.linked("HAS_TAG", "t2", ("Tag", "t3"))) == ["2", "4", "3"]
    assert found((F.year == 1990) | F.linked("HAS_TAG", "t4")) == ["10", "4"]
    assert found(F.any_of()) == []
    results = client.similar("1", filter=F.year.between(1990, 1992), top_k=2)
    assert (results.ids, results.info.filter_passed) == (["10", "2"], 3)
    assert client.similar("1").info.filter_passed is None
    assert client.recommend("u3", filter=F.year > 1990).ids == ["1", "2"], "3 and 4 it played"
    with pytest.raises(kithkin.InvalidArgument) as raised:
        client.similar("1", filter=F.all_of(F.secret == "x"))
    assert raised.value.reason == "NOT_DECLARED"
    assert [violation.field for violation in raised.value.violations] == ["filter.all_of.filters[0].equals.property"]


def test_min_score_and_diversity(client: Any) -> None:
    assert client.similar("1", min_score=0.97).ids == ["10", "5"]
    # The second is as unlike the first as can be: Slayer, at 90 degrees.
    assert client.similar("1", top_k=2, diversity=1).ids == ["10", "3"]


def test_described_vectors_and_events(client: Any, version: str) -> None:
    vector = Vector([1.0, 0.0, 0.0, 0.0], "similar", version)
    assert client.similar(vector=vector, top_k=2).ids == ["1", "10"]
    assert client.similar(vector=np.array([0, 1, 0, 0], np.float32), top_k=1).ids == ["3"]
    assert client.similar(described={"links": {"HAS_TAG": ["t3"]}}, top_k=1).ids == ["3"]
    assert client.recommend(events=["3", Event("4", weight=2)], top_k=1).ids == ["10"], "3 and 4 are left out"
    assert client.recommend("u9", fallback="popular", top_k=2).info.fallback == "popular"
    assert client.users_for("1", include_engaged=True).ids == ["u2", "u1", "u3"]


def test_batches(client: Any, version: str) -> None:
    batch = client.similar_batch(["1", {"entity": "3", "top_k": 1}, "99"], top_k=2)
    assert [item.ids for item in batch[:2]] == [["10", "5"], ["4"]]
    assert {place: error.reason for place, error in batch.errors.items()} == {2: "NODE_NOT_FOUND"}
    assert batch.info.bundle_version == version
    many = client.recommend_batch(["u1", "u3"] * 130, top_k=1)
    assert [item.ids for item in many] == [["2"], ["10"]] * 130
    assert many.info.other_bundles == ()
    with pytest.raises(kithkin.NotFound, match="'99'"):
        client.similar_batch(["1"] * 150 + ["99"], errors="raise")


def test_score_pairs(client: Any) -> None:
    scores = client.score_pairs([("u2", "1"), ("u2", "3"), ("u2", "99")], source_type="User", target_type="Artist")
    np.testing.assert_allclose(scores.to_numpy(), [2.0, 0.1, np.nan], atol=1e-6)
    assert scores.errors[2].reason == "NODE_NOT_FOUND"
    assert client.score_pairs([("1", "10")]).all() == pytest.approx([np.cos(np.radians(10))])
    with pytest.raises(kithkin.FailedPrecondition) as raised:
        client.score_pairs([("u1", "1")], source_type="User", score="neural", errors="raise")
    assert raised.value.reason == "NO_SCORER"


def test_vectors(client: Any, version: str) -> None:
    matrix = client.embed(["1", {"links": {"HAS_TAG": ["t3"]}}, ("Tag", "t1")]).to_numpy()
    assert (matrix.dtype, matrix.shape) == (np.float32, (3, 4))
    np.testing.assert_allclose(matrix, [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], atol=1e-6)
    vectors = client.embed_users(["u2", ["1", "10"]])
    np.testing.assert_allclose(vectors.to_numpy(), [[2, 0.1, 0, 0], [0.95, 0.05, 0, 0]], atol=1e-6)
    assert {(vector.space, vector.bundle_version) for vector in vectors} == {("user", version)}
    assert client.embed(["1", "3"] * 120).to_numpy().shape == (240, 4)


def test_listings(client: Any, version: str) -> None:
    assert [node.id for node in client.list_entities(page_size=2)] == ["1", "10", "2", "3", "4", "5", "6"]
    assert [node.name for node in client.list_entities(name_contains="RIDE")] == ["Ride", "ride"]
    assert [node.id for node in client.list_entities("Artist", filter=F.year < 1991)] == ["10", "3"]
    assert [node.id for node in client.list_entities("Tag")] == ["t1", "t2", "t3", "t4"]
    page = client.list_entities_page(page_size=3)
    assert (len(page), page.info.bundle_version) == (3, version)
    following = client.list_entities_page(page_size=3, page_token=page.next_page_token)
    assert [node.id for node in following] == ["3", "4", "5"]
    with pytest.raises(kithkin.InvalidArgument) as raised:
        client.list_entities_page("Tag", page_token=page.next_page_token)
    assert raised.value.reason == "BAD_PAGE_TOKEN"


def test_nodes_and_explanations(client: Any) -> None:
    assert client.get("1").name == "Slowdive"
    assert [node.id for node in client.find("Ride")] == ["10"]
    explanation = client.explain("1", "10")
    assert explanation.score == pytest.approx(np.cos(np.radians(10)))
    assert sum(reason.contribution for reason in explanation) == pytest.approx(1)


def test_bundles_by_version(client: Any, version: str) -> None:
    assert client.similar("1", top_k=1, bundle_version=version).ids == ["10"]
    assert client.embed(["1"], bundle_version=version)[0].bundle_version == version
    for ask in (client.similar, client.recommend, client.users_for):
        with pytest.raises(kithkin.FailedPrecondition) as raised:
            ask("1", bundle_version="20200101T000000.000000Z")
        assert raised.value.reason == "BUNDLE_NOT_LOADED"


def test_status_and_health(client: Any, version: str) -> None:
    status = client.status()
    assert (status.bundle.version, status.bundle.nodes) == (version, {"Artist": 7, "Tag": 4, "User": 4})
    assert {space.name: space.metric for space in status.bundle.spaces} == {
        "similar": "cosine", "user": "inner_product",
    }  # fmt: skip
    for service in ("", "kithkin.v1.RetrievalService", "kithkin.v1.ModelService"):
        assert client.health(service) == "SERVING"
    with pytest.raises(kithkin.NotFound):
        client.health("kithkin.v1.NoService")
    with pytest.raises(kithkin.FailedPrecondition) as raised:
        client.bundles()
    assert raised.value.reason == "BUNDLES_NOT_MANAGED"


def test_messages_that_are_too_large(client: Any) -> None:
    with pytest.raises(kithkin.ResourceExhausted) as raised:
        client.similar("1", exclude=range(30_000))
    assert (raised.value.reason, raised.value.code) == ("MESSAGE_TOO_LARGE", "RESOURCE_EXHAUSTED")


def test_deadlines(client: Any) -> None:
    with pytest.raises(kithkin.DeadlineExceeded):
        client.similar_batch([{"entity": "1", "reasons": 10}] * 100, top_k=50, timeout=0.0005)


def test_request_ids(client: Any) -> None:
    assert client.similar("1", request_id="mine").info.request_id == "mine"
    with pytest.raises(kithkin.NotFound) as raised:
        client.get("99", request_id="mine")
    assert (raised.value.request_id, raised.value.details["request_id"]) == ("mine", "mine")


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "similar": lambda c: c.similar("1", reasons=3),
    "a concept": lambda c: c.similar(("Tag", "t1"), target_type="Artist"),
    "diverse": lambda c: c.similar("1", diversity=0.5, min_score=0.1),
    "described": lambda c: c.similar(described={"properties": {"year": 1991}, "links": {"HAS_TAG": {"t1": 3}}}),
    "filtered": lambda c: c.similar("1", filter=F.linked("HAS_TAG", "t1") & ~(F.year == 1990)),
    "a filter on nothing": lambda c: c.similar("1", filter=F.colour == "red"),
    "a filter on no such node": lambda c: c.similar("1", filter=F.linked("HAS_TAG", "t99")),
    "a filter of another type": lambda c: c.similar("1", filter=F.year == "1990"),
    "recommend": lambda c: c.recommend("u1", reasons=2),
    "with a context": lambda c: c.recommend("u1", context=Context(entity="3", concepts=[("Tag", "t1")])),
    "with a context that is not there": lambda c: c.recommend("u1", context="99"),
    "neural": lambda c: c.recommend("u1", score="neural"),
    "events": lambda c: c.recommend(events=["1", "2"]),
    "nothing known": lambda c: c.recommend("u4"),
    "users": lambda c: c.users_for("2"),
    "too many": lambda c: c.similar("1", top_k=51),
    "unknown": lambda c: c.similar("99"),
    "an unknown type": lambda c: c.similar("1", type="Film"),
    "a short vector": lambda c: c.similar(vector=[1.0]),
    "no vector": lambda c: c.similar("6"),
    "a vector of another bundle": lambda c: c.similar(vector=Vector([1, 0, 0, 0], "similar", "old")),
    "a batch": lambda c: c.similar_batch(["1", "99", {"vector": [1.0]}, "6", {"entity": "3", "reasons": 2}]),
    "a batch of users": lambda c: c.recommend_batch(["u1", "u9", {"user": "u9", "fallback": "popular"}]),
    "pairs": lambda c: c.score_pairs([("1", "10"), ("1", "99"), ("6", "1"), (("User", "u1"), "2")]),
    "pairs with a context": lambda c: c.score_pairs([(("User", "u1"), "2")], context="3"),
    "neural pairs": lambda c: c.score_pairs([(("User", "u1"), "2")], score="neural"),
    "vectors": lambda c: c.embed(["1", "2", {"links": {"HAS_TAG": ["t1"]}}]),
    "vectors of another space": lambda c: c.embed(["1"], space="user"),
    "vectors of no space": lambda c: c.embed(["1"], space="colour"),
    "vectors of users": lambda c: c.embed_users(["u1", ["1"], "u3"]),
    "vectors of a user without": lambda c: c.embed_users(["u1", "u4"]),
    "explain": lambda c: c.explain("1", "10"),
    "explain for a user": lambda c: c.explain(("User", "u1"), ("Artist", "2")),
    "explain itself": lambda c: c.explain("1", "1"),
    "get": lambda c: c.get("10"),
    "find": lambda c: c.find("RIDE"),
    "find nothing": lambda c: c.find("Nobody"),
    "a page": lambda c: c.list_entities_page(page_size=2, filter=F.year.present()),
    "a listing": lambda c: list(c.list_entities(page_size=3)),
    "a listing of no type": lambda c: list(c.list_entities("Film")),
    "a bad token": lambda c: c.list_entities_page(page_token="what"),
    "no such bundle": lambda c: c.similar("1", bundle_version="old"),
    "bundles": lambda c: c.bundles(),
    "activate": lambda c: c.activate("old"),
    "rollback": lambda c: c.rollback(),
    "health": lambda c: c.health(),
}


def comparable(value: Any) -> Any:
    """An answer without what two runs may differ in: the server's time. Errors by all that they tell."""
    if isinstance(value, kithkin.KithkinError):
        return type(value), vars(value)
    if isinstance(value, ResponseInfo):
        return replace(value, server_time=timedelta())
    if hasattr(value, "items") and hasattr(value, "info"):
        return type(value), [comparable(item) for item in value.items], comparable(value.info)
    if isinstance(value, kithkin.Explanation):
        return replace(value, info=comparable(value.info))
    return value


def outcome(client: Any, ask: Callable[[Any], Any]) -> Any:
    try:
        return comparable(ask(client))
    except kithkin.KithkinError as error:
        return comparable(error)


class SameIds:
    """A client all of whose calls have the same request id."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: method(*args, request_id="same", **kwargs)


@pytest.mark.parametrize("question", QUESTIONS)
def test_all_clients_answer_the_same(clients: dict[str, Any], question: str) -> None:
    outcomes = {kind: outcome(SameIds(client), QUESTIONS[question]) for kind, client in clients.items()}
    first = outcomes[KINDS[0]]
    assert "UNIMPLEMENTED" not in str(first)
    for kind, other in outcomes.items():
        assert other == first, kind


def test_the_questions_meet_every_call() -> None:
    asked: set[str] = set()

    class Noted:
        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return lambda *args, **kwargs: ()

    for ask in QUESTIONS.values():
        ask(Noted())
    public = {name for name in vars(Client) if not name.startswith("_")} - {"close", "local", "status"}
    assert asked == public


# ------------------------------------------------------------ in process only


def test_a_local_client_that_is_closed(store: BundleStore) -> None:
    client = Client.local(store.root)
    assert repr(client) == f"<kithkin.Client this process, bundle {store.root}>"
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get("1")


async def test_an_async_local_client(store: BundleStore) -> None:
    async with AsyncClient.local(store.root) as client:
        answers = await asyncio.gather(*(client.similar("1", top_k=1) for _ in range(20)))
        assert {answer.ids[0] for answer in answers} == {"10"}
        task = asyncio.ensure_future(client.similar_batch(["1"] * 1000))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.get("1")).name == "Slowdive"


def test_a_bundle_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no active bundle"):
        Client.local(tmp_path)
    store = BundleStore(tmp_path)
    version = write_toy_bundle(store)
    next((tmp_path / version / "nodes").glob("*.arrow")).write_bytes(b"")
    with pytest.raises(BundleCorrupt, match="has 0 bytes"):
        Client.local(tmp_path / version)


def test_a_bundle_in_use_is_not_removed(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    used, active = write_toy_bundle(store, encoders=False), write_toy_bundle(store, encoders=False)
    store.activate(active)
    with Client.local(tmp_path / used) as client:
        assert not store.remove(used)
        assert client.get("1").name == "Slowdive"
    assert store.remove(used)


def test_settings_that_do_not_fit(store: BundleStore) -> None:
    with pytest.raises(ValueError, match="settings: max_topk: "):
        Client.local(store.root, settings={"max_topk": 3})


def test_a_local_client_leaves_no_thread(store: BundleStore) -> None:
    import threading

    before = set(threading.enumerate())
    with Client.local(store.root) as client:
        assert client.health() == "SERVING"
        assert set(threading.enumerate()) - before != set()
    gc.collect()
    assert set(threading.enumerate()) - before == set()
