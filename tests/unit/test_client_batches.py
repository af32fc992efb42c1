"""Batches larger than memory, and what callers' tables hold: vectors of any kind, columns with gaps, odd texts."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kithkin import AsyncClient, Client, Described, Event, F, Ref
from kithkin._filter_message import filter_message
from kithkin.v1 import retrieval_service_pb2 as retrieval
from tests.both_clients import both
from tests.fake_server import FakeServer

AHEAD = 6
"""Parts that may be made before the first is answered: four under way, one waiting, and one item of another."""


def numbered(request: Any, _: Any = None) -> Any:
    """Results that name the query; of vectors their first number."""
    items = [
        {"response": {"results": [{"node": {"ref": {"id": each.entity.id or f"{each.vector.values[0]:g}"}}}]}}
        for each in request.requests
    ]
    return retrieval.BatchSearchSimilarEntitiesResponse(items=items)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: FakeServer) -> Iterator[Any]:
    server.will("BatchSearchSimilarEntities", numbered)
    server.will(
        "BatchRetrieveEntitiesForUser", retrieval.BatchRetrieveEntitiesForUserResponse(items=[{"response": {}}])
    )
    with both(server.target, timeout=60) as clients:
        yield clients[request.param]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_parts_are_made_as_they_are_sent(server: FakeServer, kind: str) -> None:
    taken, let_go, at_first = 0, threading.Event(), []

    def items() -> Iterator[str]:
        nonlocal taken
        for number in range(3000):
            taken = number + 1
            yield str(number)

    def held(request: Any, context: Any) -> Any:
        # The last of the four that come at once looks how far the client has read by then.
        if len(server.received["BatchSearchSimilarEntities"]) >= 4:
            at_first.append(taken)
            let_go.set()
        assert let_go.wait(60)
        return numbered(request)

    server.will("BatchSearchSimilarEntities", held)
    if kind == "sync":
        with Client(server.target) as blocking:
            batch = blocking.similar_batch(items(), timeout=60)
    else:

        async def ask() -> Any:
            async with AsyncClient(server.target) as client:
                return await client.similar_batch(items(), timeout=60)

        batch = asyncio.run(ask())
    assert at_first[0] <= AHEAD * 100
    assert [results.ids for results in batch] == [[str(number)] for number in range(3000)]


def test_an_item_that_is_none_ends_the_batch(client: Any, server: FakeServer) -> None:
    def items(wrong: int) -> Iterator[Any]:
        yield from (None if number == wrong else str(number) for number in range(2000))

    with pytest.raises(TypeError, match=r"items\[1950\]"):
        client.similar_batch(items(1950))
    assert len(server.received["BatchSearchSimilarEntities"]) < 20
    server.will("BatchSearchSimilarEntities", numbered)
    with pytest.raises(TypeError, match=r"items\[99\]"):
        client.similar_batch(items(99), request_id="r99")
    asked = [each.metadata["x-request-id"] for each in server.received["BatchSearchSimilarEntities"]]
    assert "r99" not in asked
    assert client.similar_batch(["7"])[0].ids == ["7"]


def plain_error(ask: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        ask()
    assert type(raised.value) is kind


def test_text_that_is_no_text(client: Any) -> None:
    for ask in (client.similar_batch, client.recommend_batch, client.embed, client.embed_users):
        plain_error(lambda ask=ask: ask(["1", "\ud800"]), ValueError, r"items\[1\]: .*surrogates not allowed")
    plain_error(lambda: client.score_pairs([("1", "\ud800")]), ValueError, r"pairs\[0\]: .*surrogates not allowed")


def test_rows_of_numbers_are_vectors(client: Any) -> None:
    rows = [array("f", [5, 6]), array("d", [5, 6]), [5.0, 6.0], [5, 6], [5, 6.5], (5, 6, 7), np.array([5, 6])]
    rows += [[np.float32(5), 6], [np.int64(5), np.int64(6)]]
    assert [results.ids for results in client.similar_batch(rows)] == [["5"]] * len(rows)


def test_whole_numbers_may_be_events_of_a_user(client: Any, server: FakeServer) -> None:
    client.recommend_batch([array("f", [5, 6])])
    client.recommend_batch([[5, 6.5]])
    for received in server.received["BatchRetrieveEntitiesForUser"]:
        assert received.request.requests[0].vector.values[0] == 5
    with pytest.raises(TypeError, match=r"items\[0\]: of a list it cannot be told"):
        client.recommend_batch([[5, 6]])


def test_a_column_of_counts_with_a_gap(client: Any, server: FakeServer) -> None:
    frame = pd.DataFrame({"entity": ["1", "2", "3"], "top_k": [5, None, 7]})
    assert frame["top_k"].dtype.kind == "f"
    client.similar_batch(frame, top_k=3)
    (received,) = server.received["BatchSearchSimilarEntities"]
    assert [each.top_k for each in received.request.requests] == [5, 3, 7]
    frame["top_k"] = [5, None, 6.5]
    with pytest.raises(TypeError, match=r"items\[2\]: top_k must be a whole number, not 6\.5"):
        client.similar_batch(frame)


HUGE = 10**400


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda c: c.similar(vector=[HUGE]), "vector holds a number too large for float32"),
        (lambda c: c.similar_batch([[1, HUGE]]), r"items\[0\]: vector holds a number too large"),
        (lambda c: c.similar("1", min_score=HUGE), "min_score must be finite"),
        (lambda c: c.similar("1", timeout=HUGE), "timeout must be finite"),
        (lambda c: c.recommend(events=[Event("1", weight=HUGE)]), "a weight must be finite"),
        (lambda c: c.similar(described=Described(properties={"image": [1.5, HUGE]})), "too large"),
    ],
)
def test_numbers_beyond_all_floats(client: Any, ask: Callable[[Any], Any], text: str) -> None:
    plain_error(lambda: ask(client), ValueError, text)


def test_linked_takes_the_ids_that_every_call_takes() -> None:
    linked = F.linked("R", np.int64(5), 6, "a", ("Tag", np.int64(7)), Ref("Tag", "8"))
    assert [(node.type, node.id) for node in filter_message(linked).linked.nodes] == [
        ("", "5"),
        ("", "6"),
        ("", "a"),
        ("Tag", "7"),
        ("Tag", "8"),
    ]
    assert F.linked("R", np.int64(5)) == F.linked("R", 5)
    assert repr(F.linked("R", np.int64(5))) == "F.linked('R', 5)"
    for wrong in (True, np.True_, 1.5, np.float64(2), None, ["a"], np.array([1, 2])):
        with pytest.raises(TypeError, match="of a list write"):
            F.linked("R", wrong)  # type: ignore[arg-type]
