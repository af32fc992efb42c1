"""Thousands of cheap calls at once: gRPC ends none of them unseen, each is answered or told that it is too much."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire import acceptors
from server.wire.acceptors import Acceptors
from server.wire.application import Application
from server.wire.services import RetrievalServicer
from tests.bundles import write_toy_bundle

GET = "/kithkin.v1.RetrievalService/GetEntity"
ONE = pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1")).SerializeToString()
CALLS, CONNECTIONS, LIMIT = 3000, 30, 64


@pytest.fixture
async def state(tmp_path: Path) -> State:
    store = BundleStore(tmp_path)
    state = State(settings=ServingSettings(drain_s=1, max_concurrent_calls=LIMIT))
    state.take(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))))
    return state


@pytest.fixture
async def application(state: State) -> AsyncIterator[Application]:
    """Not started; stopped well whatever happens: gRPC's thread waits for a server that was left running."""
    application = Application(state)
    yield application
    await application.drain(notice=0)


class Held:
    """Keeps the event loop from everything until all calls have been sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        answer = RetrievalServicer.GetEntity

        async def held(service: RetrievalServicer, request: Any, context: Any) -> pb.GetEntityResponse:
            self.begun.set()
            self.go_on.wait(60)
            return await answer(service, request, context)

        monkeypatch.setattr(RetrievalServicer, "GetEntity", held)


def flood(port: int, held: Held) -> Counter[str]:
    """Send all calls while the server is busy with the first; returns how they ended."""
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options=own) for _ in range(CONNECTIONS)]
    try:
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=60)
        methods = [channel.unary_unary(GET) for channel in channels]
        first = methods[0].future(ONE, timeout=120)
        assert held.begun.wait(60)
        calls = [methods[number % CONNECTIONS].future(ONE, timeout=120) for number in range(CALLS)]
        # gRPC's threads are on it; the loop comes to none of them meanwhile.
        held.go_on.wait(2)
        held.go_on.set()
        return Counter(map(_ended, [first, *calls]))
    finally:
        for channel in channels:
            channel.close()


def _ended(call: Any) -> str:
    code = call.code()
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return str(code.name)
    raw = dict(call.trailing_metadata())["grpc-status-details-bin"]
    details = status_pb2.Status.FromString(raw).details
    return "told when to come back" if details[-1].Is(error_details_pb2.RetryInfo.DESCRIPTOR) else "refused otherwise"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """To be asked for before the application: that takes the methods as it is made."""
    return Held(monkeypatch)


async def test_a_flood_of_cheap_calls_is_answered_or_refused_and_never_cancelled(
    held: Held, application: Application
) -> None:
    port = await application.start("127.0.0.1", 0)
    codes = await asyncio.to_thread(flood, port, held)
    # How many of them are too many hangs on how fast they are handed over, and that on the machine.
    assert set(codes) <= {"OK", "told when to come back"}
    assert codes.total() == CALLS + 1
    assert codes["OK"] >= LIMIT
    assert (application.admission.in_work, application.admission.refused) == (0, codes["told when to come back"])
    # And afterwards as before.
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary(GET)(ONE, timeout=20)


async def test_calls_are_taken_many_at_a_time_by_the_version_that_is_installed(application: Application) -> None:
    assert application.acceptors.start() is False, "not before the server runs"
    port = await application.start("127.0.0.1", 0)
    assert application.acceptors.running
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        get = channel.unary_unary(GET)
        assert all(await asyncio.gather(*(get(ONE, timeout=20) for _ in range(LIMIT))))
    await application.drain(notice=0)
    await asyncio.sleep(0)
    assert not application.acceptors.running, "it ends with the server"


async def test_where_grpc_cannot_they_are_taken_one_by_one(
    monkeypatch: pytest.MonkeyPatch, application: Application
) -> None:
    monkeypatch.setattr(acceptors, "_NEEDED", ("nothing_of_this_name",))
    port = await application.start("127.0.0.1", 0)
    assert isinstance(application.acceptors, Acceptors)
    assert not application.acceptors.running
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        get = channel.unary_unary(GET)
        assert all(await asyncio.gather(*(get(ONE, timeout=20) for _ in range(LIMIT))))


async def test_what_is_refused_keeps_nothing_of_its_connection(application: Application) -> None:
    """A connection may have twice as many streams as calls: those refused must not count until others come."""
    port = await application.start("127.0.0.1", 0)
    application.admission.in_work = LIMIT
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)]) as channel:
        get = channel.unary_unary(GET)
        for _ in range(10):
            ended = await asyncio.gather(*(get(ONE, timeout=60) for _ in range(LIMIT)), return_exceptions=True)
            assert {each.code() for each in ended if isinstance(each, grpc.aio.AioRpcError)} == {
                grpc.StatusCode.RESOURCE_EXHAUSTED
            }
            assert len(ended) == LIMIT
        application.admission.in_work = 0
        assert await get(ONE, timeout=20)
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await health(b"", timeout=20)
