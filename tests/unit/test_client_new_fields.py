"""Filters, scores, contexts, bundles, pairs, listings: what both clients send of them, and what the answers become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

import kithkin
from kithkin import Context, Event, F, Ref
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from tests.both_clients import both
from tests.fake_server import FakeServer, error_info

INFO = 'info { bundle_version: "b7" exact: true candidates_scored: 12 }'


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


@pytest.fixture(scope="module")
def clients(server: FakeServer) -> Iterator[dict[str, Any]]:
    with both(server.target) as clients:
        yield clients


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def sent(server: FakeServer, method: str) -> Any:
    return server.received[method][-1].request


def test_similar_with_everything(server: FakeServer, client: Any) -> None:
    answer = 'info { filter_passed: 0 shortfall_reason: "only 0 of this type pass" bundle_version: "b6" }'
    server.will("SearchSimilarEntities", text_format.Parse(answer, retrieval.SearchSimilarEntitiesResponse()))
    results = client.similar(
        "1", filter=(F.year >= 1990) & F.linked("HAS_GENRE", "noir"), min_score=0.5, diversity=0.25, bundle_version="b6"
    )
    assert sent(server, "SearchSimilarEntities") == text_format.Parse(
        """
        entity { id: "1" } top_k: 10 min_score: 0.5 diversity: 0.25 bundle_version: "b6"
        filter { all_of {
          filters { range { property: "year" min { int_value: 1990 } } }
          filters { linked { relation: "HAS_GENRE" nodes { id: "noir" } } }
        } }
        """,
        retrieval.SearchSimilarEntitiesRequest(),
    )
    assert (results.info.filter_passed, results.info.bundle_version, results.info.network_calls) == (0, "b6", 0)
    # A limit of 0 is a limit; no limit is none.
    client.similar("1", min_score=0)
    assert sent(server, "SearchSimilarEntities").HasField("min_score")
    client.similar("1")
    assert sent(server, "SearchSimilarEntities") == retrieval.SearchSimilarEntitiesRequest(entity={"id": "1"}, top_k=10)


def test_recommend_with_everything(server: FakeServer, client: Any) -> None:
    answer = "info { truncated: true network_calls: 7 filter_passed: 40 }"
    server.will("RetrieveEntitiesForUser", text_format.Parse(answer, retrieval.RetrieveEntitiesForUserResponse()))
    results = client.recommend(
        "u1",
        context=Context(entity=("Film", "7"), concepts=[("Genre", "noir")]),
        score="neural",
        filter=~F.seen.present(),
        min_score=np.float32(-1.5),
        diversity=1,
        bundle_version="b6",
    )
    assert sent(server, "RetrieveEntitiesForUser") == text_format.Parse(
        """
        user { id: "u1" } top_k: 10 score: NEURAL min_score: -1.5 diversity: 1 bundle_version: "b6"
        context { entity { type: "Film" id: "7" } concepts { type: "Genre" id: "noir" } }
        filter { negated { present: "seen" } }
        """,
        retrieval.RetrieveEntitiesForUserRequest(),
    )
    assert (results.info.truncated, results.info.network_calls, results.info.filter_passed) == (True, 7, 40)
    assert repr(results).startswith("Results(0 from bundle ?, ended at the deadline)")
    client.recommend("u1", context="7", target_type="Film")
    assert sent(server, "RetrieveEntitiesForUser").context == text_format.Parse(
        'entity { type: "Film" id: "7" }', sent(server, "RetrieveEntitiesForUser").context.__class__()
    )


def test_users_for_with_a_filter(server: FakeServer, client: Any) -> None:
    server.will("RetrieveUsersForEntity", retrieval.RetrieveUsersForEntityResponse())
    client.users_for("1", filter=F.country == "de", min_score=2, bundle_version="b6")
    assert sent(server, "RetrieveUsersForEntity") == text_format.Parse(
        """
        entity { id: "1" } top_k: 10 min_score: 2 bundle_version: "b6"
        filter { equals { property: "country" value { string_value: "de" } } }
        """,
        retrieval.RetrieveUsersForEntityRequest(),
    )


def test_batches_carry_the_fields_to_every_item(server: FakeServer, client: Any) -> None:
    items = 2 * "items { response { } }"
    server.will("BatchSearchSimilarEntities", text_format.Parse(items, retrieval.BatchSearchSimilarEntitiesResponse()))
    client.similar_batch(
        ["1", {"entity": "2", "min_score": 0.75, "filter": None}], filter=F.a.present(), min_score=0.5, diversity=0.5
    )
    assert sent(server, "BatchSearchSimilarEntities") == text_format.Parse(
        """
        requests { entity { id: "1" } top_k: 10 filter { present: "a" } min_score: 0.5 diversity: 0.5 }
        requests { entity { id: "2" } top_k: 10 min_score: 0.75 diversity: 0.5 }
        """,
        retrieval.BatchSearchSimilarEntitiesRequest(),
    )
    server.will(
        "BatchRetrieveEntitiesForUser", text_format.Parse(items, retrieval.BatchRetrieveEntitiesForUserResponse())
    )
    client.recommend_batch(["u1", {"user": "u2", "context": "9"}], context="7", score="neural", bundle_version="b6")
    assert sent(server, "BatchRetrieveEntitiesForUser") == text_format.Parse(
        """
        requests { user { id: "u1" } top_k: 10 context { entity { id: "7" } } score: NEURAL bundle_version: "b6" }
        requests { user { id: "u2" } top_k: 10 context { entity { id: "9" } } score: NEURAL bundle_version: "b6" }
        """,
        retrieval.BatchRetrieveEntitiesForUserRequest(),
    )


def test_score_pairs(server: FakeServer, client: Any) -> None:
    answer = text_format.Parse(
        'items { score: 0.5 } items { error { code: 5 message: "no Film has the id" } } items { score: 0 }' + INFO,
        retrieval.ScorePairsResponse(),
    )
    answer.items[1].error.details.add().Pack(error_info("NODE_NOT_FOUND"))
    server.will("ScorePairs", answer)
    pairs = [("u1", "7"), (Ref("User", "u1"), 8), (("User", "u2"), ("Film", "9"))]
    scores = client.score_pairs(
        pairs, source_type="User", target_type="Film", score="neural", context="7", bundle_version="b6"
    )
    assert sent(server, "ScorePairs") == text_format.Parse(
        """
        pairs { source { type: "User" id: "u1" } target { type: "Film" id: "7" } }
        pairs { source { type: "User" id: "u1" } target { type: "Film" id: "8" } }
        pairs { source { type: "User" id: "u2" } target { type: "Film" id: "9" } }
        score: NEURAL context { entity { id: "7" } } bundle_version: "b6"
        """,
        retrieval.ScorePairsRequest(),
    )
    assert (scores[0], scores[2], len(scores)) == (0.5, 0.0, 3)
    assert isinstance(scores[1], kithkin.NotFound)
    assert (list(scores.errors), scores[1].reason) == ([1], "NODE_NOT_FOUND")
    np.testing.assert_array_equal(scores.to_numpy(), np.array([0.5, np.nan, 0], np.float32))
    assert scores.to_numpy().dtype == np.float32
    assert scores.to_dicts()[:2] == [{"score": 0.5, "error": None}, {"score": None, "error": "NODE_NOT_FOUND"}]
    with pytest.raises(kithkin.NotFound, match="no Film has the id"):
        scores.all()
    with pytest.raises(kithkin.NotFound, match="no Film has the id"):
        client.score_pairs(pairs, errors="raise")
    server.will("ScorePairs", retrieval.ScorePairsResponse(items=[{}]))
    with pytest.raises(kithkin.Internal, match="neither a score nor an error"):
        client.score_pairs([("1", "2")])
    server.will("ScorePairs", retrieval.ScorePairsResponse(items=[{"score": 1}]))
    assert client.score_pairs([("1", "2")]).all() == [1.0]
    with pytest.raises(kithkin.Internal, match="2 items were asked for, 1 came"):
        client.score_pairs([("1", "2")] * 2)


def test_embed_users(server: FakeServer, client: Any) -> None:
    answer = 'vectors { values: [1, 2] space: "user" bundle_version: "b7" } vectors { values: [3, 4] }' + INFO
    server.will("EmbedUsers", text_format.Parse(answer, retrieval.EmbedUsersResponse()))
    vectors = client.embed_users(
        ["u1", ["7", Event(("Show", "8"), weight=2)]], type="User", event_type="Film", bundle_version="b6"
    )
    assert sent(server, "EmbedUsers") == text_format.Parse(
        """
        items { user { type: "User" id: "u1" } }
        items { events {
          events { entity { type: "Film" id: "7" } } events { entity { type: "Show" id: "8" } weight: 2 }
        } }
        bundle_version: "b6"
        """,
        retrieval.EmbedUsersRequest(),
    )
    np.testing.assert_array_equal(vectors.to_numpy(), np.array([[1, 2], [3, 4]], np.float32))
    assert (vectors[0].space, vectors[0].bundle_version) == ("user", "b7")
    with pytest.raises(ValueError, match=r"items\[1\]: no events"):
        client.embed_users(["u1", []])


def test_embed_names_a_bundle(server: FakeServer, client: Any) -> None:
    server.will("EmbedEntities", text_format.Parse("vectors { values: 1 }" + INFO, retrieval.EmbedEntitiesResponse()))
    client.embed(["1"], space="user", bundle_version="b6")
    assert sent(server, "EmbedEntities") == text_format.Parse(
        'items { entity { id: "1" } } space: "user" bundle_version: "b6"', retrieval.EmbedEntitiesRequest()
    )


def pages(request: Message, context: grpc.ServicerContext) -> Message:
    """Three pages of at most two: tokens are the place to go on from."""
    assert isinstance(request, retrieval.ListEntitiesRequest)
    start = int(request.page_token or 0)
    response = retrieval.ListEntitiesResponse(info={"bundle_version": "b7", "filter_passed": 5})
    for number in range(start, min(start + min(request.page_size, 2), 5)):
        response.nodes.add(ref={"type": "Film", "id": f"f{number}"}, name=f"Film {number}")
    if start + 2 < 5:
        response.next_page_token = str(start + 2)
    return response


def test_a_listing_is_all_pages(server: FakeServer, client: Any) -> None:
    server.will("ListEntities", pages)
    listing = client.list_entities("Film", filter=F.year >= 1990, name_contains="fi", page_size=2)
    assert server.received["ListEntities"] == [], "nothing is asked before somebody looks"
    assert next(listing).id == "f0"
    assert len(server.received["ListEntities"]) == 1, "a page at a time"
    assert [node.id for node in listing] == ["f1", "f2", "f3", "f4"]
    requests = [each.request for each in server.received["ListEntities"]]
    assert [each.page_token for each in requests] == ["", "2", "4"]  # type: ignore[attr-defined]
    assert requests[1] == text_format.Parse(
        """
        type: "Film" name_contains: "fi" page_size: 2 page_token: "2"
        filter { range { property: "year" min { int_value: 1990 } } }
        """,
        retrieval.ListEntitiesRequest(),
    )


def test_one_page_of_a_listing(server: FakeServer, client: Any) -> None:
    server.will("ListEntities", pages)
    page = client.list_entities_page(page_token="2")
    assert ([node.name for node in page], page.next_page_token) == (["Film 2", "Film 3"], "4")
    assert (page.info.filter_passed, sent(server, "ListEntities").page_size) == (5, 100)
    assert page.to_dicts()[0] == {"type": "Film", "id": "f2", "name": "Film 2"}
    assert client.list_entities_page(page_token="4").next_page_token == ""


def test_a_listing_checks_its_arguments_at_once(client: Any) -> None:
    with pytest.raises(TypeError, match=r"F\.year alone says nothing"):
        client.list_entities("Film", filter=F.year)
    with pytest.raises(ValueError, match="page_size must be at least 1"):
        client.list_entities("Film", page_size=0)


def test_what_an_explanation_explains(server: FakeServer, client: Any) -> None:
    server.will(
        "ExplainSimilarity",
        retrieval.ExplainSimilarityResponse(score=0.75, explained_score=0.5, rest="what both are like"),
        retrieval.ExplainSimilarityResponse(),
    )
    explanation = client.explain("1", "2")
    assert (explanation.score, explanation.explained_score, explanation.rest) == (0.75, 0.5, "what both are like")
    assert client.explain("1", "2").explained_score is None


def test_the_workers_in_the_status(server: FakeServer, client: Any) -> None:
    server.will("GetStatus", model.GetStatusResponse(workers=4, workers_serving=3, beside=["b6"]))
    status = client.status()
    assert (status.workers, status.workers_serving, status.beside) == (4, 3, ("b6",))


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda c: c.similar("1", min_score="a"), TypeError, "min_score must be a number"),
        (lambda c: c.similar("1", min_score=float("nan")), ValueError, "min_score must be finite"),
        (lambda c: c.similar("1", diversity=1.5), ValueError, "diversity must be between 0 and 1"),
        (lambda c: c.similar("1", diversity=True), TypeError, "diversity must be a number, not True"),
        (lambda c: c.similar("1", filter="year >= 1990"), TypeError, "filter must be made of kithkin.filters.F"),
        (lambda c: c.similar("1", bundle_version=7), TypeError, "bundle_version must be a string"),
        (lambda c: c.recommend("1", score="best"), ValueError, "score must be None or 'neural', not 'best'"),
        (lambda c: c.recommend("1", context=Context()), ValueError, "context says nothing"),
        (lambda c: c.recommend("1", context=Context(concepts="noir")), TypeError, "context.concepts must be a list"),
        (lambda c: c.recommend("1", context=1.5), TypeError, "context.entity: an entity is an id"),
        (lambda c: c.score_pairs([]), ValueError, "pairs is empty"),
        (lambda c: c.score_pairs("12"), TypeError, "pairs must be a list"),
        (lambda c: c.score_pairs(["12"]), TypeError, r"pairs\[0\]: a pair is \(source, target\), not '12'"),
        (lambda c: c.score_pairs([("1", "2"), ("1",)]), TypeError, r"pairs\[1\]: a pair is"),
        (lambda c: c.score_pairs([("1", 2.5)]), TypeError, r"pairs\[0\]: target: an entity is an id"),
        (lambda c: c.score_pairs([("1", "2")], errors="no"), ValueError, "errors must be 'return' or 'raise'"),
        (lambda c: c.embed_users([]), ValueError, "items is empty"),
    ],
)  # fmt: skip
def test_wrong_arguments(client: Any, call: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        call(client)
    assert type(caught.value) is kind
