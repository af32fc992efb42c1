"""Stopping well: told first, then refused, and what runs is finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import retrieval_service_pb2_grpc, types_pb2
from model_store.bundle_store import BundleStore
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.errors import DeadlinePassed
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from server.wire.guard import Guard
from server.wire.services import RetrievalServicer
from tests.bundles import write_toy_bundle
from tests.integration.test_server import refused

ONE = pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1"))


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    store = BundleStore(tmp_path)
    return ServedModel.load(store.open(write_toy_bundle(store, encoders=False)))


@pytest.fixture
async def running(model: ServedModel) -> AsyncIterator[tuple[Application, grpc.aio.Channel]]:
    state = State(settings=ServingSettings(drain_s=5))
    state.take(model)
    application = Application(state)
    port = await application.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield application, channel
    await application.drain(notice=0)


async def test_a_running_call_ends_well_while_the_server_drains(
    running: tuple[Application, grpc.aio.Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    application, _ = running
    begun, go_on = asyncio.Event(), asyncio.Event()
    answer = RetrievalServicer.GetEntity

    async def slow(self: RetrievalServicer, request: pb.GetEntityRequest, context: Any) -> pb.GetEntityResponse:
        begun.set()
        await go_on.wait()
        return await answer(self, request, context)

    monkeypatch.setattr(RetrievalServicer, "GetEntity", slow)
    slow_application = Application(application.state)
    port = await slow_application.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as other:
        watching = health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = retrieval_service_pb2_grpc.RetrievalServiceStub(other).GetEntity(ONE)
        await begun.wait()
        draining = asyncio.create_task(slow_application.drain())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching.cancel()
        await asyncio.sleep(0.2)
        assert not draining.done()
        go_on.set()
        assert (await call).nodes[0].name == "Slowdive"
        await draining


async def test_a_watcher_of_the_health_does_not_hold_up_the_drain(
    running: tuple[Application, grpc.aio.Channel],
) -> None:
    application, channel = running
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    started = time.monotonic()
    await application.drain(notice=0)
    assert time.monotonic() - started < 2, "drain_s is 5"
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await watch.read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_new_calls_are_told_to_try_again(running: tuple[Application, grpc.aio.Channel]) -> None:
    application, channel = running
    application.guard.draining = True
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await retrieval_service_pb2_grpc.RetrievalServiceStub(channel).GetEntity(ONE)

    def again() -> None:
        raise raised.value

    refusal = refused(again)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert refusal.retry_after_s == pytest.approx(0.2)


def test_each_stage_asks_whether_time_is_left(model: ServedModel) -> None:
    retrieval = Retrieval(model, ServingSettings())
    request = pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id="1"), top_k=2)
    assert len(retrieval.search_similar_entities(request, Deadline(10)).results) == 2
    assert len(retrieval.search_similar_entities(request, Deadline(None)).results) == 2
    with pytest.raises(DeadlinePassed, match="before the search"):
        retrieval.search_similar_entities(request, Deadline(0))


async def test_a_deadline_that_passes_in_the_server_is_deadline_exceeded() -> None:
    """The client gives up by itself, so what the server says is seen from the server's side."""
    ended: dict[str, Any] = {}

    class Context:
        def time_remaining(self) -> float:
            return 0.0

        def invocation_metadata(self) -> tuple[()]:
            return ()

        def set_trailing_metadata(self, trailers: Any) -> None:
            ended["trailers"] = trailers

        async def abort(self, code: grpc.StatusCode, message: str, trailers: Any) -> None:
            ended.update(code=code, message=message, trailers=trailers)
            raise grpc.aio.AbortError

    async def method(request: bytes, context: Any) -> bytes:
        Deadline(context.time_remaining()).check("search")
        return request

    class Call:
        method = "/a/b"
        invocation_metadata = ()

    guard = Guard(100)
    guard.add_registered_method_handlers("a", {"b": grpc.unary_unary_rpc_method_handler(method)})
    handler: Any = guard.service(Call())  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AbortError):
        await handler.unary_unary(b"", Context())
    assert ended["code"] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert b"DEADLINE" in dict(ended["trailers"])["grpc-status-details-bin"]
