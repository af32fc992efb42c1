"""Every call of both clients against a server over a real socket: what is sent, and what its answer becomes."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

import kithkin
from kithkin import AsyncClient, Client, Described, Event, Link, Ref
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from tests.both_clients import Awaited
from tests.fake_server import Failure, FakeServer, bad_request, error_info

INFO = """info { bundle_version: "b7" exact: true candidates_scored: 12 server_time { nanos: 2000000 } }"""
SIMILAR = text_format.Parse(
    """
    results {
      node {
        ref { type: "Movie" id: "3114" } name: "Toy Story 2"
        properties { key: "year" value { int_value: 1999 } }
        properties { key: "genres" value { strings_value { values: "Animation" values: "Comedy" } } }
        properties { key: "title" value { string_value: "Toy Story 2" } }
        properties { key: "rating" value { float_value: 3.5 } }
        properties { key: "colour" value { bool_value: true } }
        properties { key: "released" value { time_value { seconds: 943056000 } } }
        properties { key: "budget" value { } }
        properties { key: "image" value { vector_value { values: [0.5, 1] } } }
      }
      score: 0.75
      reasons {
        path { ref { type: "Movie" id: "1" } name: "Toy Story" }
        path { ref { type: "Genre" id: "Animation" } name: "Animation" }
        path { ref { type: "Movie" id: "3114" } name: "Toy Story 2" }
        relations: "HAS_GENRE" relations: "HAS_GENRE" contribution: 0.625 text: "both are Animation"
      }
    }
    results { node { ref { type: "Movie" id: "2355" } } score: 0.5 }
    """
    + INFO,
    retrieval.SearchSimilarEntitiesResponse(),
)
USER = text_format.Parse(
    """
    results { node { ref { type: "Movie" id: "318" } name: "Shawshank" } score: 2.5 }
    info { bundle_version: "b7" fallback: FALLBACK_POPULAR truncated: true shortfall_reason: "only 1 left" }
    """,
    retrieval.RetrieveEntitiesForUserResponse(),
)
EMBED = text_format.Parse(
    """
    vectors { values: [0.6, 0.8] space: "similar" bundle_version: "b7" }
    vectors { values: [1, 0] space: "similar" bundle_version: "b7" }
    """
    + INFO,
    retrieval.EmbedEntitiesResponse(),
)
EXPLAIN = text_format.Parse(
    """
    source { ref { type: "Movie" id: "1" } name: "Toy Story" }
    target { ref { type: "Movie" id: "3114" } name: "Toy Story 2" }
    score: 0.75
    reasons { relations: "CO_RATED" contribution: 1 text: "often rated together" }
    """
    + INFO,
    retrieval.ExplainSimilarityResponse(),
)
NODES = text_format.Parse(
    """
    nodes { ref { type: "Artist" id: "154" } name: "Radiohead" }
    nodes { ref { type: "Artist" id: "9" } name: "radiohead" }
    """
    + INFO,
    retrieval.GetEntityResponse(),
)
NODE = text_format.Parse('nodes { ref { type: "Artist" id: "154" } name: "Radiohead" }', retrieval.GetEntityResponse())
STATUS = text_format.Parse(
    """
    server_version: "0.1.0" worker_pid: 42 uptime { seconds: 90 } refused_bundle: "checksum of nodes/Movie.arrow"
    bundle {
      version: "b7" published_at { seconds: 1000000000 } snapshot_hash: "abc"
      nodes { key: "User" value: 610 } nodes { key: "Movie" value: 9742 }
      spaces {
        name: "user" metric: INNER_PRODUCT dimension: 64
        indexes { node_type: "Movie" vectors: 9742 kind: "exact" exact_reason: "small"
          recall_at_10: 1 recall_target: 0.95 }
      }
    }
    """,
    model.GetStatusResponse(),
)


BATCH_ITEMS = """
    items { response { results { node { ref { type: "Movie" id: "3114" } } score: 0.75 } info { exact: true } } }
    items { error { code: 5 message: "no Movie has the id '9'" } }
    info { bundle_version: "b7" exact: true candidates_scored: 12 }
    """
SIMILAR_BATCH = text_format.Parse(BATCH_ITEMS, retrieval.BatchSearchSimilarEntitiesResponse())
SIMILAR_BATCH.items[1].error.details.add().Pack(error_info("NODE_NOT_FOUND", field="entity"))
SIMILAR_BATCH.items[1].error.details.add().Pack(
    error_details_pb2.ResourceInfo(resource_type="Movie", resource_name="9")
)
USER_BATCH = text_format.Parse(BATCH_ITEMS, retrieval.BatchRetrieveEntitiesForUserResponse())
USERS = text_format.Parse(
    'results { node { ref { type: "User" id: "u2" } } score: 2 } info { bundle_version: "b7" }',
    retrieval.RetrieveUsersForEntityResponse(),
)
BUNDLES = text_format.Parse(
    """
    bundles { version: "b8" published_at { seconds: 1000000001 } problem: "manifest.json: is missing" }
    bundles { version: "b7" snapshot_hash: "abc" active: true serving: true nodes { key: "Movie" value: 9742 } }
    next_page_token: "YjY="
    """,
    model.ListBundlesResponse(),
)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


@pytest.fixture(scope="module")
def clients(server: FakeServer) -> Iterator[dict[str, Any]]:
    with asyncio.Runner() as runner, Client(server.target) as blocking:
        client = Awaited(runner, AsyncClient(server.target))
        yield {"sync": blocking, "async": client}
        client.close()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def sent(server: FakeServer, method: str) -> Message:
    return server.received[method][-1].request


def test_similar_by_id(server: FakeServer, client: Any) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    results = client.similar("1", type="Movie", top_k=2, exclude=["7", ("Movie", "8")], reasons=3)
    assert sent(server, "SearchSimilarEntities") == text_format.Parse(
        """
        entity { type: "Movie" id: "1" } top_k: 2 reasons: 3
        exclude { type: "Movie" id: "7" } exclude { type: "Movie" id: "8" }
        """,
        retrieval.SearchSimilarEntitiesRequest(),
    )
    assert results.ids == ["3114", "2355"]
    best = results[0]
    assert (best.ref, best.type, best.id, best.name, best.score) == (
        Ref("Movie", "3114"), "Movie", "3114", "Toy Story 2", 0.75,
    )  # fmt: skip
    assert dict(best.properties) == {
        "budget": None,
        "colour": True,
        "genres": ("Animation", "Comedy"),
        "image": (0.5, 1.0),
        "rating": 3.5,
        "released": datetime(1999, 11, 20, tzinfo=UTC),
        "title": "Toy Story 2",
        "year": 1999,
    }
    (reason,) = best.reasons
    assert [node.id for node in reason.path] == ["1", "Animation", "3114"]
    assert (reason.relations, reason.contribution, reason.text) == (
        ("HAS_GENRE", "HAS_GENRE"), 0.625, "both are Animation",
    )  # fmt: skip
    # No name came for the second: its id stands in.
    assert (results[1].name, results[1].reasons) == ("2355", ())
    info = results.info
    assert (info.bundle_version, info.exact, info.candidates_scored) == ("b7", True, 12)
    assert (info.fallback, info.truncated, info.server_time) == (None, False, timedelta(milliseconds=2))


def test_similar_takes_what_answers_gave(server: FakeServer, client: Any) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    results = client.similar(1)
    assert sent(server, "SearchSimilarEntities").entity.id == "1"  # type: ignore[attr-defined]
    for entity in (results[0], results[0].node, results[0].ref, ("Movie", "3114"), ("Movie", np.int64(3114))):
        client.similar(entity)
        assert sent(server, "SearchSimilarEntities") == text_format.Parse(
            'entity { type: "Movie" id: "3114" } top_k: 10', retrieval.SearchSimilarEntitiesRequest()
        )


@pytest.mark.parametrize(
    "described",
    [
        {
            "properties": {"year": 1999, "score": 0.5, "tags": ["a", "b"], "name": "x", "new": True, "gone": None},
            "links": {"HAS_TAG": {("Tag", "51"): 2.5}, "HAS_GENRE": ["Drama"]},
        },
        Described(
            properties={
                "year": np.int32(1999),
                "score": np.float64(0.5),
                "tags": ("a", "b"),
                "name": "x",
                "new": np.True_,
                "gone": None,
            },
            links=[Link("HAS_TAG", Ref("Tag", "51"), 2.5), Link("HAS_GENRE", "Drama")],
        ),
    ],
)
def test_similar_by_description(server: FakeServer, client: Any, described: Any) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    client.similar(described=described, type="Artist", target_type="Movie")
    assert sent(server, "SearchSimilarEntities") == text_format.Parse(
        """
        described {
          type: "Artist"
          properties { key: "year" value { int_value: 1999 } }
          properties { key: "score" value { float_value: 0.5 } }
          properties { key: "tags" value { strings_value { values: "a" values: "b" } } }
          properties { key: "name" value { string_value: "x" } }
          properties { key: "new" value { bool_value: true } }
          properties { key: "gone" value { } }
          links { relation: "HAS_TAG" node { type: "Tag" id: "51" } weight: 2.5 }
          links { relation: "HAS_GENRE" node { id: "Drama" } }
        }
        target_type: "Movie" top_k: 10
        """,
        retrieval.SearchSimilarEntitiesRequest(),
    )


def test_times_are_sent_in_utc(server: FakeServer, client: Any) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    zone = datetime.fromisoformat("2001-09-09T03:46:40+02:00")
    array = np.datetime64("2001-09-09T00:00:00", "ns")
    times = {"day": date(2001, 9, 9), "naive": datetime(2001, 9, 9), "zone": zone, "array": array}
    client.similar(described={"properties": times})
    properties = sent(server, "SearchSimilarEntities").described.properties  # type: ignore[attr-defined]
    assert {name: value.time_value.seconds for name, value in properties.items()} == {
        "day": 999993600, "naive": 999993600, "zone": 1000000000, "array": 999993600,
    }  # fmt: skip


@pytest.mark.parametrize("vector", [[0.5, 1], np.array([0.5, 1]), kithkin.Vector([0.5, 1])])
def test_vectors_as_properties(server: FakeServer, client: Any, vector: Any) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    client.similar(described={"properties": {"image": vector}})
    assert sent(server, "SearchSimilarEntities") == text_format.Parse(
        'described { properties { key: "image" value { vector_value { values: [0.5, 1] } } } } top_k: 10',
        retrieval.SearchSimilarEntitiesRequest(),
    )


def test_embed_then_search_with_the_vector(server: FakeServer, client: Any) -> None:
    server.will("EmbedEntities", EMBED)
    server.will("SearchSimilarEntities", SIMILAR)
    vectors = client.embed(["1", {"properties": {"year": 1999}}], type="Movie")
    assert sent(server, "EmbedEntities") == text_format.Parse(
        """
        space: "similar" items { entity { type: "Movie" id: "1" } }
        items { described { type: "Movie" properties { key: "year" value { int_value: 1999 } } } }
        """,
        retrieval.EmbedEntitiesRequest(),
    )
    assert np.asarray(vectors).dtype == np.float32
    np.testing.assert_array_equal(np.asarray(vectors), np.array([[0.6, 0.8], [1, 0]], dtype=np.float32))
    client.similar(vector=vectors[0], target_type="Movie")
    assert sent(server, "SearchSimilarEntities") == text_format.Parse(
        'vector { values: [0.6, 0.8] space: "similar" bundle_version: "b7" } target_type: "Movie" top_k: 10',
        retrieval.SearchSimilarEntitiesRequest(),
    )


def test_recommend_for_a_user(server: FakeServer, client: Any) -> None:
    server.will("RetrieveEntitiesForUser", USER)
    results = client.recommend(
        "42", top_k=5, target_type="Movie", exclude=["1"], include_engaged=True, fallback="popular", reasons=1
    )
    assert sent(server, "RetrieveEntitiesForUser") == text_format.Parse(
        """
        user { id: "42" } top_k: 5 target_type: "Movie" exclude { type: "Movie" id: "1" } include_engaged: true
        fallback: FALLBACK_POPULAR reasons: 1
        """,
        retrieval.RetrieveEntitiesForUserRequest(),
    )
    assert [(item.name, item.score) for item in results] == [("Shawshank", 2.5)]
    assert (results.info.fallback, results.info.truncated, results.info.shortfall_reason) == (
        "popular", True, "only 1 left",
    )  # fmt: skip


def test_recommend_by_events_and_by_vector(server: FakeServer, client: Any) -> None:
    server.will("RetrieveEntitiesForUser", USER)
    moment = datetime.fromtimestamp(1_000_000_000, UTC)
    client.recommend(events=["1", Event(("Show", "2"), weight=4.5, time=moment)], type="Movie")
    assert sent(server, "RetrieveEntitiesForUser") == text_format.Parse(
        """
        top_k: 10
        events {
          events { entity { type: "Movie" id: "1" } }
          events { entity { type: "Show" id: "2" } weight: 4.5 time { seconds: 1000000000 } }
        }
        """,
        retrieval.RetrieveEntitiesForUserRequest(),
    )
    for vector in ([0.5, -1], (0.5, -1.0), np.array([0.5, -1]), np.array([0.5, -1], dtype=np.float32)):
        client.recommend(vector=vector)
        assert sent(server, "RetrieveEntitiesForUser") == text_format.Parse(
            "vector { values: [0.5, -1] } top_k: 10", retrieval.RetrieveEntitiesForUserRequest()
        )


def test_explain(server: FakeServer, client: Any) -> None:
    server.will("ExplainSimilarity", EXPLAIN, retrieval.ExplainSimilarityResponse())
    explanation = client.explain("1", "3114", type="Movie", max_reasons=7)
    assert sent(server, "ExplainSimilarity") == text_format.Parse(
        'source { type: "Movie" id: "1" } target { type: "Movie" id: "3114" } max_reasons: 7',
        retrieval.ExplainSimilarityRequest(),
    )
    assert (explanation.source.name, explanation.target.name, explanation.score) == ("Toy Story", "Toy Story 2", 0.75)
    assert [reason.text for reason in explanation] == ["often rated together"]
    # No score is not a score of 0.
    assert client.explain("1", "3114").score is None


def test_get_and_find(server: FakeServer, client: Any) -> None:
    server.will("GetEntity", NODE, NODES)
    assert client.get("154", type="Artist") == kithkin.Node(Ref("Artist", "154"), "Radiohead")
    assert sent(server, "GetEntity") == text_format.Parse(
        'ref { type: "Artist" id: "154" }', retrieval.GetEntityRequest()
    )
    assert [node.id for node in client.find("Radiohead", type="Artist")] == ["154", "9"]
    assert sent(server, "GetEntity") == text_format.Parse(
        'name { name: "Radiohead" type: "Artist" }', retrieval.GetEntityRequest()
    )


def test_similar_batch(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", SIMILAR_BATCH)
    batch = client.similar_batch(["1", {"entity": "9", "top_k": 3}], type="Movie", top_k=2, exclude=["7"])
    assert sent(server, "BatchSearchSimilarEntities") == text_format.Parse(
        """
        requests { entity { type: "Movie" id: "1" } top_k: 2 exclude { type: "Movie" id: "7" } }
        requests { entity { type: "Movie" id: "9" } top_k: 3 exclude { type: "Movie" id: "7" } }
        """,
        retrieval.BatchSearchSimilarEntitiesRequest(),
    )
    assert (len(batch), batch[0].ids, batch[0].info.exact) == (2, ["3114"], True)
    error = batch[1]
    assert isinstance(error, kithkin.NotFound)
    assert (error.code, error.reason, error.details) == ("NOT_FOUND", "NODE_NOT_FOUND", {"field": "entity"})
    assert (error.resource_type, error.resource_name) == ("Movie", "9")
    assert (error.message, error.request_id) == ("no Movie has the id '9'", batch.info.request_id)
    assert batch.errors == {1: error}
    with pytest.raises(kithkin.NotFound) as raised:
        batch.all()
    assert raised.value is error
    assert (batch.info.bundle_version, batch.info.candidates_scored) == ("b7", 12)
    whole = kithkin.Batch(batch.items[:1], batch.info)
    assert [results.ids for results in whole.all()] == [["3114"]]


def test_similar_batch_takes_every_kind_of_query(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", type(SIMILAR_BATCH)(items=[SIMILAR_BATCH.items[0]] * 5))
    items = [
        kithkin.Vector([0.5, 1], "similar", "b7"),
        Described(type="Movie", properties={"year": 1999}),
        {"vector": [1.0], "reasons": 2},
        {"described": {"properties": {"year": 1998}}, "type": "Movie"},
        Ref("Movie", "1"),
    ]
    client.similar_batch(iter(items))
    requests = sent(server, "BatchSearchSimilarEntities").requests  # type: ignore[attr-defined]
    assert [each.WhichOneof("query") for each in requests] == ["vector", "described", "vector", "described", "entity"]
    assert (requests[0].vector.bundle_version, requests[2].reasons, requests[3].described.type) == ("b7", 2, "Movie")


@pytest.mark.parametrize(
    ("items", "error", "match"),
    [
        ([], ValueError, "items is empty"),
        ("12", TypeError, "must be a list"),
        (["1", {"entity": "1", "top_k": 0}], ValueError, r"items\[1\]: top_k must be at least 1"),
        ([{"entity": "1", "vector": [1.0]}], TypeError, r"items\[0\]: .* exactly one"),
        ([{"entity": "1", "timeout": 3}], TypeError, r"items\[0\]: .*timeout"),
    ],
)
def test_a_wrong_batch_is_refused_before_it_is_sent(
    client: Any, items: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        client.similar_batch(items)


def test_an_item_without_an_outcome_cannot_be_read(server: FakeServer, client: Any) -> None:
    server.will(
        "BatchSearchSimilarEntities", text_format.Parse("items { }", retrieval.BatchSearchSimilarEntitiesResponse())
    )
    with pytest.raises(kithkin.Internal, match="neither"):
        client.similar_batch(["1"])


def test_recommend_batch(server: FakeServer, client: Any) -> None:
    server.will("BatchRetrieveEntitiesForUser", USER_BATCH)
    batch = client.recommend_batch(["u1", {"events": ["1", "7"], "fallback": None}], top_k=2, fallback="popular")
    assert sent(server, "BatchRetrieveEntitiesForUser") == text_format.Parse(
        """
        requests { user { id: "u1" } top_k: 2 fallback: FALLBACK_POPULAR }
        requests { events { events { entity { id: "1" } } events { entity { id: "7" } } } top_k: 2 }
        """,
        retrieval.BatchRetrieveEntitiesForUserRequest(),
    )
    assert (batch[0].ids, type(batch[1])) == (["3114"], kithkin.NotFound)


def test_users_for(server: FakeServer, client: Any) -> None:
    server.will("RetrieveUsersForEntity", USERS)
    results = client.users_for("1", type="Movie", top_k=5, target_type="User", exclude=["u9"], include_engaged=True)
    assert sent(server, "RetrieveUsersForEntity") == text_format.Parse(
        """
        entity { type: "Movie" id: "1" } top_k: 5 target_type: "User" include_engaged: true
        exclude { type: "User" id: "u9" }
        """,
        retrieval.RetrieveUsersForEntityRequest(),
    )
    assert [(item.ref, item.score) for item in results] == [(Ref("User", "u2"), 2.0)]
    client.users_for(vector=[1.0, 0.0])
    assert sent(server, "RetrieveUsersForEntity") == text_format.Parse(
        "vector { values: [1, 0] } top_k: 10", retrieval.RetrieveUsersForEntityRequest()
    )
    with pytest.raises(TypeError, match="exactly one"):
        client.users_for()


def test_bundles(server: FakeServer, client: Any) -> None:
    server.will("ListBundles", BUNDLES)
    page = client.bundles(page_size=2, page_token="YjY=")
    assert sent(server, "ListBundles") == model.ListBundlesRequest(page_size=2, page_token="YjY=")
    assert ([each.version for each in page], page.next_page_token) == (["b8", "b7"], "YjY=")
    assert (page[0].problem, page[0].published_at) == (
        "manifest.json: is missing", datetime.fromtimestamp(1_000_000_001, UTC),
    )  # fmt: skip
    assert page[1] == kithkin.BundleSummary("b7", None, "abc", {"Movie": 9742}, True, True, "")


def test_activate_and_rollback(server: FakeServer, client: Any) -> None:
    server.will("ActivateBundle", model.ActivateBundleResponse(version="b8", previous_version="b7"))
    server.will("RollbackBundle", model.RollbackBundleResponse(version="b7", previous_version="b8"))
    assert client.activate("b8", timeout=60) == kithkin.Activation("b8", "b7")
    assert sent(server, "ActivateBundle") == model.ActivateBundleRequest(version="b8")
    assert client.rollback() == kithkin.Activation("b7", "b8")
    with pytest.raises(ValueError, match="version is empty"):
        client.activate("")


def test_a_rollback_is_never_tried_again(server: FakeServer, client: Any) -> None:
    # Its answer may be lost after it was done; a second one would go further back.
    unavailable = Failure(code=grpc.StatusCode.UNAVAILABLE)
    server.will("RollbackBundle", unavailable, model.RollbackBundleResponse(version="b6"))
    with pytest.raises(kithkin.Unavailable):
        client.rollback()
    assert len(server.received["RollbackBundle"]) == 1
    server.will("ActivateBundle", unavailable, model.ActivateBundleResponse(version="b8"))
    assert client.activate("b8").version == "b8"


def test_status(server: FakeServer, client: Any) -> None:
    server.will("GetStatus", STATUS, model.GetStatusResponse(server_version="0.1.0"))
    status = client.status()
    assert (status.server_version, status.worker_pid, status.uptime) == ("0.1.0", 42, timedelta(seconds=90))
    assert status.refused_bundle == "checksum of nodes/Movie.arrow"
    assert (status.bundle.version, status.bundle.snapshot_hash) == ("b7", "abc")
    assert status.bundle.published_at == datetime.fromtimestamp(1_000_000_000, UTC)
    assert list(status.bundle.nodes.items()) == [("Movie", 9742), ("User", 610)]
    (space,) = status.bundle.spaces
    assert (space.name, space.metric, space.dimension) == ("user", "inner_product", 64)
    assert space.indexes == (kithkin.IndexStatus("Movie", 9742, "exact", "small", 1.0, 0.95),)
    assert client.status().bundle is None


@pytest.mark.parametrize("state", ["SERVING", "NOT_SERVING"])
def test_health(server: FakeServer, client: Any, state: str) -> None:
    server.will("Check", health_pb2.HealthCheckResponse(status=state))
    assert client.health("kithkin.v1.RetrievalService") == state
    assert sent(server, "Check").service == "kithkin.v1.RetrievalService"  # type: ignore[attr-defined]


def test_a_deadline_and_a_request_id_always_go_along(server: FakeServer, client: Any) -> None:
    server.will("GetStatus", STATUS)
    client.status()
    client.status(timeout=30, request_id="from-me")
    first, second = server.received["GetStatus"]
    # On the wire gRPC rounds a timeout up, by 1 % or so.
    assert 4 < first.time_remaining < 5.5
    assert 29 < second.time_remaining < 31
    assert len(first.metadata["x-request-id"]) == 32
    assert second.metadata["x-request-id"] == "from-me"
    server.will("SearchSimilarEntities", SIMILAR)
    assert client.similar("1", request_id="from-me").info.request_id == "from-me"


def test_headers_and_key(server: FakeServer) -> None:
    server.will("GetStatus", STATUS)
    with Client(server.target, api_key="s3cret", metadata={"x-team": "films"}) as client:
        client.status()
    metadata = server.received["GetStatus"][0].metadata
    assert (metadata["authorization"], metadata["x-team"]) == ("Bearer s3cret", "films")


SCENARIOS: list[tuple[str, str, Any, tuple[Any, ...], dict[str, Any]]] = [
    ("SearchSimilarEntities", "similar", SIMILAR, ("1",), {"reasons": 2}),
    ("SearchSimilarEntities", "similar", SIMILAR, (), {"vector": [1.0, 2.0]}),
    ("RetrieveEntitiesForUser", "recommend", USER, ("42",), {}),
    ("BatchSearchSimilarEntities", "similar_batch", type(SIMILAR_BATCH)(items=SIMILAR_BATCH.items[:1]), (["1"],), {}),
    ("BatchRetrieveEntitiesForUser", "recommend_batch", type(USER_BATCH)(items=USER_BATCH.items[:1]), (["u1"],), {}),
    ("RetrieveUsersForEntity", "users_for", USERS, ("1",), {}),
    ("ListBundles", "bundles", BUNDLES, (), {}),
    ("ActivateBundle", "activate", model.ActivateBundleResponse(version="b8"), ("b8",), {}),
    ("RollbackBundle", "rollback", model.RollbackBundleResponse(version="b8"), (), {}),
    ("EmbedEntities", "embed", EMBED, (["1", "2"],), {}),
    ("ExplainSimilarity", "explain", EXPLAIN, ("1", "2"), {}),
    ("GetEntity", "get", NODE, ("154",), {}),
    ("GetEntity", "get", NODES, ("154",), {}),
    ("GetEntity", "find", NODES, ("Radiohead",), {}),
    ("GetStatus", "status", STATUS, (), {}),
    ("Check", "health", health_pb2.HealthCheckResponse(status="SERVING"), (), {}),
    ("SearchSimilarEntities", "similar", SIMILAR, ("1",), {"top_k": 0}),
    ("SearchSimilarEntities", "similar", SIMILAR, (), {}),
    (
        "SearchSimilarEntities",
        "similar",
        Failure(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            details=(error_info("TOP_K_OUT_OF_RANGE", limit="1000"), bad_request([("top_k", "at most 1000")])),
        ),
        ("1",),
        {"top_k": 5000},
    ),
    ("GetStatus", "status", Failure(code=grpc.StatusCode.UNKNOWN), (), {}),
]


@pytest.mark.parametrize(("rpc", "method", "reply", "args", "kwargs"), SCENARIOS)
def test_both_clients_send_and_answer_the_same(
    server: FakeServer, clients: dict[str, Any], rpc: str, method: str, reply: Any, args: Any, kwargs: Any
) -> None:
    outcomes = []
    for client in clients.values():
        server.will(rpc, reply)
        try:
            outcome: Any = getattr(client, method)(*args, request_id="same", **kwargs)
        except kithkin.KithkinError as error:
            outcome = type(error), vars(error)
        except (TypeError, ValueError) as error:
            outcome = type(error), str(error)
        requests = [(call.request, call.metadata["x-request-id"]) for call in server.received[rpc]]
        outcomes.append((outcome, repr(outcome), requests))
    assert outcomes[0] == outcomes[1]


def test_both_clients_have_the_same_methods_and_signatures() -> None:
    def public(client: type) -> dict[str, str]:
        methods = {
            name: member
            for name, member in vars(client).items()
            if not name.startswith("_") and name not in ("close", "local")
        }
        return {name: f"{inspect.signature(member)}\n{inspect.getdoc(member)}" for name, member in methods.items()}

    asynchronous = {name: shown.replace("AsyncIterator", "Iterator") for name, shown in public(AsyncClient).items()}
    assert public(Client) == asynchronous
    assert sorted(public(Client)) == [
        "activate", "bundles", "embed", "embed_users", "explain", "find", "get", "health", "list_entities",
        "list_entities_page", "recommend", "recommend_batch", "rollback", "score_pairs", "similar", "similar_batch",
        "status", "users_for",
    ]  # fmt: skip
    assert str(inspect.signature(Client.status)) == (
        "(self, *, timeout: 'float | None' = None, request_id: 'str | None' = None) -> 'Status'"
    )
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_results_travel_between_processes(server: FakeServer, clients: dict[str, Any]) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    server.will("EmbedEntities", EMBED)
    for answer in (clients["sync"].similar("1"), clients["sync"].embed(["1", "2"])):
        assert pickle.loads(pickle.dumps(answer)) == answer


def test_threads_share_a_client(server: FakeServer, clients: dict[str, Any]) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: clients["sync"].similar(i).ids, range(64)))
    assert answers == [["3114", "2355"]] * 64
    requests = server.received["SearchSimilarEntities"]
    assert sorted(int(call.request.entity.id) for call in requests) == list(range(64))  # type: ignore[attr-defined]


async def test_tasks_share_an_async_client(server: FakeServer) -> None:
    server.will("SearchSimilarEntities", SIMILAR)
    async with AsyncClient(server.target) as client:
        answers = await asyncio.gather(*(client.similar(i) for i in range(64)))
    assert [answer.ids for answer in answers] == [["3114", "2355"]] * 64


async def test_a_closed_async_client_says_so(server: FakeServer) -> None:
    client = AsyncClient(server.target)
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.status()
    assert repr(client) == f"<kithkin.AsyncClient {server.target} closed>"


def test_a_closed_client_says_so(server: FakeServer) -> None:
    with Client(server.target) as client:
        assert repr(client) == f"<kithkin.Client {server.target}>"
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.status()


def test_an_async_client_belongs_to_one_loop(server: FakeServer) -> None:
    server.will("GetStatus", STATUS)
    client = AsyncClient(server.target)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(client.status()).worker_pid == 42
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(client.status())
        first.run(client.close())


def test_a_forked_child_is_told_to_make_its_own(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(server.target) as client:
        monkeypatch.setattr("os.getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="fork"):
            client.status()


def test_the_readme_session_runs_as_printed(server: FakeServer) -> None:
    def scored(id: str, name: str, score: float, why: str = "") -> retrieval.SearchSimilarEntitiesResponse:
        response = retrieval.SearchSimilarEntitiesResponse(info={"bundle_version": "20260401T020000Z"})
        response.results.add(
            node={"ref": {"type": "Movie", "id": id}, "name": name}, score=score, reasons=[{"text": why}] if why else []
        )
        return response

    def similar(request: Message, context: grpc.ServicerContext) -> Message:
        assert isinstance(request, retrieval.SearchSimilarEntitiesRequest)
        if request.entity.id == "99999999":
            return server.fail(
                context,
                Failure(
                    code=grpc.StatusCode.NOT_FOUND,
                    message="entity: no Movie has the id '99999999'. Look it up by name with GetEntity; nodes newer "
                    "than the bundle come with the next one.",
                    details=(error_info("NODE_NOT_FOUND"),),
                    trailers=(("x-request-id", "6f1c"),),
                ),
            )
        response = scored("3114", "Toy Story 2", 0.8125, "both are Animation")
        response.MergeFrom(scored("2355", "Bug's Life, A", 0.75, "often rated together"))
        return response

    server.will("SearchSimilarEntities", similar)
    server.will(
        "RetrieveEntitiesForUser", retrieval.RetrieveEntitiesForUserResponse(results=scored("318", "", 1).results)
    )
    server.will("GetEntity", NODE)
    server.will("EmbedEntities", retrieval.EmbedEntitiesResponse(vectors=[{"values": [0.0] * 64}] * 2))
    server.will("ExplainSimilarity", retrieval.ExplainSimilarityResponse(score=0.8125))
    text = (Path(__file__).parents[2] / "client/README.md").read_text().replace("localhost:50051", server.target)
    session = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, "client/README.md", None, 0)
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(session, out=printed.append, clear_globs=False)
    session.globs["client"].close()
    assert result.attempted >= 9
    assert result.failed == 0, "".join(printed)
