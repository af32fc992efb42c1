"""Calls of any size: cut to what the server takes, a few parts at once, one deadline, order kept, errors as wished."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

import kithkin
from kithkin import Client
from kithkin._calls import parts
from kithkin._calls.call import not_sent
from kithkin._connection import IN_FLIGHT
from kithkin.v1 import retrieval_service_pb2 as retrieval
from tests.both_clients import both
from tests.fake_server import Failure, FakeServer, error_info


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


@pytest.fixture(scope="module")
def clients(server: FakeServer) -> Iterator[dict[str, Any]]:
    with both(server.target, timeout=20, retries=0) as clients:
        yield clients


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def echo(request: Any, context: grpc.ServicerContext) -> Message:
    """Each item's own id as its only result; "bad" is not found."""
    response = retrieval.BatchSearchSimilarEntitiesResponse(info={"bundle_version": "b7", "candidates_scored": 1})
    for each in request.requests:
        item = response.items.add()
        if each.entity.id.startswith("bad"):
            item.error.code = 5
            item.error.message = f"no {each.entity.id}"
        else:
            item.response.results.add(node={"ref": {"id": each.entity.id}}, score=1)
    return response


def ids(batch: Any) -> list[str]:
    return [item.message if isinstance(item, kithkin.KithkinError) else item.ids[0] for item in batch]


def sizes(server: FakeServer, method: str = "BatchSearchSimilarEntities") -> list[int]:
    received = server.received[method]
    field = {"BatchSearchSimilarEntities": "requests", "ScorePairs": "pairs"}.get(method, "items")
    return sorted((len(getattr(each.request, field)) for each in received), reverse=True)


def test_any_number_in_the_order_given(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    asked = [f"e{number}" for number in range(555)]
    batch = client.similar_batch(iter(asked), top_k=1, request_id="mine")
    assert ids(batch) == asked
    assert sizes(server) == [100] * 5 + [55]
    assert {each.metadata["x-request-id"] for each in server.received["BatchSearchSimilarEntities"]} == {"mine"}
    assert (batch.info.candidates_scored, batch.info.bundle_version, batch.info.other_bundles) == (6, "b7", ())
    assert batch.info.request_id == "mine"


def test_a_hundred_are_one_call(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    assert len(client.similar_batch(range(100), top_k=1)) == 100
    assert sizes(server) == [100]


def test_parts_are_cut_by_bytes_too(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    # 10,000 exclusions of 20 bytes each for every item: 200 kB an item, the server takes 4 MiB.
    exclude = [f"{number:016d}" for number in range(10_000)]
    batch = client.similar_batch(range(40), top_k=1, exclude=exclude)
    assert len(batch) == 40
    received = server.received["BatchSearchSimilarEntities"]
    assert len(received) == 3
    assert max(each.request.ByteSize() for each in received) <= parts.MOST_BYTES + 2**10


def test_parts_are_cut_by_what_they_ask_for(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    # 1000 results with 9 reasons each, 10 items: all that one answer may hold.
    assert len(client.similar_batch(range(25), top_k=1000, reasons=9)) == 25
    assert sizes(server) == [10, 10, 5]


def test_one_item_larger_than_a_part_goes_alone() -> None:
    large = retrieval.NodePair(source={"id": "x" * (parts.MOST_BYTES + 1)})
    small = retrieval.NodePair(source={"id": "1"})
    assert [len(part) for part in parts.cut([small, large, small, small], 1000)] == [1, 1, 2]


def test_a_few_parts_are_under_way_at_once(server: FakeServer, client: Any) -> None:
    lock, together = threading.Lock(), [0, 0]
    first = threading.Barrier(IN_FLIGHT)

    def counted(request: Any, context: grpc.ServicerContext) -> Message:
        with lock:
            together[0] += 1
            together[1] = max(together)
            numbers = {int(each.entity.id) for each in request.requests}
        if min(numbers) < 100 * IN_FLIGHT:
            first.wait(10)  # passed only where so many came together
        with lock:
            together[0] -= 1
        return echo(request, context)

    server.will("BatchSearchSimilarEntities", counted)
    assert ids(client.similar_batch(range(900), top_k=1)) == [str(number) for number in range(900)]
    assert together[1] == IN_FLIGHT


def test_errors_of_items_stay_in_their_place(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    asked = [f"bad{number}" if number in (3, 250) else f"e{number}" for number in range(300)]
    batch = client.similar_batch(asked, top_k=1)
    assert list(batch.errors) == [3, 250]
    assert ids(batch)[250] == "no bad250"
    with pytest.raises(kithkin.NotFound, match="no bad3"):
        client.similar_batch(asked, top_k=1, errors="raise")
    asked[3] = asked[250] = "fine"
    assert client.similar_batch(asked, top_k=1, errors="raise").errors == {}


def test_what_is_raised_stops_what_was_not_sent(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    with pytest.raises(kithkin.NotFound, match="no bad"):
        client.similar_batch(["bad"] + ["e"] * 4999, top_k=1, errors="raise")
    assert len(server.received["BatchSearchSimilarEntities"]) < 50


def broken(when: Callable[[Any], bool], failure: Failure, server: FakeServer) -> Any:
    def answer(request: Any, context: grpc.ServicerContext) -> Message:
        return server.fail(context, failure) if when(request) else echo(request, context)

    return answer


def test_a_part_that_fails_gives_its_error_to_its_items(server: FakeServer, client: Any) -> None:
    failure = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details=(error_info("OVERLOADED"),))
    server.will("BatchSearchSimilarEntities", broken(lambda r: r.requests[0].entity.id == "100", failure, server))
    batch = client.similar_batch(range(250), top_k=1)
    assert list(batch.errors) == list(range(100, 200))
    assert {error.reason for error in batch.errors.values()} == {"OVERLOADED"}
    with pytest.raises(kithkin.ResourceExhausted):
        client.similar_batch(range(250), top_k=1, errors="raise")


def test_where_every_part_fails_the_call_fails(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", Failure(code=grpc.StatusCode.UNAUTHENTICATED, message="who?"))
    with pytest.raises(kithkin.Unauthenticated, match="who"):
        client.similar_batch(range(250), top_k=1)


def test_parts_are_tried_again_each_for_itself(server: FakeServer) -> None:
    seen: defaultdict[str, int] = defaultdict(int)

    def first_time(request: Any) -> bool:
        seen[request.requests[0].entity.id] += 1
        return seen[request.requests[0].entity.id] == 1

    server.will("BatchSearchSimilarEntities", broken(first_time, Failure(code=grpc.StatusCode.UNAVAILABLE), server))
    with Client(server.target, timeout=20) as client:
        assert client.similar_batch(range(250), top_k=1).errors == {}
    assert dict(seen) == {"0": 2, "100": 2, "200": 2}


def test_one_deadline_over_all_parts(server: FakeServer, client: Any) -> None:
    over = threading.Event()

    def stuck_after_the_first(request: Any, context: grpc.ServicerContext) -> Message:
        if int(request.requests[0].entity.id) >= 100 * IN_FLIGHT:
            over.wait(20)
        return echo(request, context)

    server.will("BatchSearchSimilarEntities", stuck_after_the_first)
    try:
        batch = client.similar_batch(range(2000), top_k=1, timeout=1.5)
    finally:
        over.set()
    assert list(batch.errors) == list(range(100 * IN_FLIGHT, 2000))
    assert {type(error) for error in batch.errors.values()} == {kithkin.DeadlineExceeded}
    assert "one deadline for all parts" in str(batch[1999])
    assert len(server.received["BatchSearchSimilarEntities"]) == 2 * IN_FLIGHT, "what came too late was not sent"


def test_the_first_error_in_the_order_given_is_raised() -> None:
    first, second = kithkin.NotFound("a"), kithkin.NotFound("b")
    with pytest.raises(kithkin.NotFound, match="a"):
        parts.joined([first, second], [1, 1], kithkin.Batch)
    assert not_sent("r").request_id == "r"


def swapped(response: Any) -> Any:
    """The first part comes from b7, all others from b8."""

    def answer(request: Any, context: grpc.ServicerContext) -> Message:
        message = response(request)
        message.info.bundle_version = "b7" if "first" in str(request) else "b8"
        return message

    return answer


def test_two_bundles_in_one_batch_are_told(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", swapped(lambda request: echo(request, None)))  # type: ignore[arg-type]
    batch = client.similar_batch(["first"] + ["e"] * 299, top_k=1)
    assert (batch.info.bundle_version, batch.info.other_bundles) == ("b7", ("b8",))
    assert repr(batch).startswith("Batch(300 from bundles b7 and b8)")


def test_two_bundles_in_one_array_are_refused(server: FakeServer, client: Any) -> None:
    def vectors(request: Any) -> Any:
        return retrieval.EmbedEntitiesResponse(vectors=[{"values": [1.0]}] * len(request.items))

    server.will("EmbedEntities", swapped(vectors))
    with pytest.raises(kithkin.Aborted, match=r"another bundle \(b8\).* vectors of b7.*do not compare") as raised:
        client.embed(["first"] + ["e"] * 299)
    assert "bundle_version=" in raised.value.hint
    assert client.embed(["e"] * 301).to_numpy().shape == (301, 1)
    assert sizes(server, "EmbedEntities") == [100] * 6 + [1]


def test_a_failed_part_fails_the_whole_array(server: FakeServer, client: Any) -> None:
    def vectors(request: Any, context: grpc.ServicerContext) -> Message:
        if request.items[0].entity.id == "100":
            server.fail(context, Failure(code=grpc.StatusCode.NOT_FOUND, message="no 100"))
        return retrieval.EmbedEntitiesResponse(vectors=[{"values": [1.0]}] * len(request.items))

    server.will("EmbedEntities", vectors)
    with pytest.raises(kithkin.NotFound, match="no 100"):
        client.embed(range(250))


def test_pairs_are_cut_at_a_thousand(server: FakeServer, client: Any) -> None:
    def score(request: Any, context: grpc.ServicerContext) -> Message:
        return retrieval.ScorePairsResponse(
            items=[{"score": float(pair.target.id)} for pair in request.pairs], info={"bundle_version": "b7"}
        )

    server.will("ScorePairs", score)
    scores = client.score_pairs(("u1", number) for number in range(2500))
    assert scores.all() == [float(number) for number in range(2500)]
    assert sizes(server, "ScorePairs") == [1000, 1000, 500]


def test_a_client_that_is_closed_says_so_for_parts_too(server: FakeServer) -> None:
    client = Client(server.target)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.similar_batch(range(250))
