"""Too many calls, late calls, and clients that behave badly: the server answers everybody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from server.wire.services import RetrievalServicer
from tests.bundles import write_toy_bundle
from tests.raw_http2 import GOAWAY, RST_STREAM, RawClient

LIMIT = 4
GET = "/kithkin.v1.RetrievalService/GetEntity"
ONE = pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1"))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Application, int]]:
    store = BundleStore(tmp_path)
    state = State(settings=ServingSettings(drain_s=1, max_concurrent_calls=LIMIT))
    state.take(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))))
    application = Application(state)
    port = await application.start("127.0.0.1", 0)
    yield application, port
    await application.drain(notice=0)


async def test_calls_beyond_the_limit_are_refused_at_once_with_a_time_to_come_back(
    served: tuple[Application, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    application, _ = served
    go_on = asyncio.Event()
    answer = RetrievalServicer.GetEntity

    async def slow(self: RetrievalServicer, request: pb.GetEntityRequest, context: Any) -> pb.GetEntityResponse:
        await go_on.wait()
        return await answer(self, request, context)

    monkeypatch.setattr(RetrievalServicer, "GetEntity", slow)
    slow_application = Application(application.state)
    port = await slow_application.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        waiting = [asyncio.ensure_future(_ask(stub)) for _ in range(LIMIT)]
        while slow_application.admission.in_work < LIMIT:
            await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetEntity(ONE, timeout=10)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        reason, delay = _details(raised.value)
        assert reason == "OVERLOADED"
        assert 0.2 < delay < 0.8
        # Who looks after the server is let in.
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        model = model_service_pb2_grpc.ModelServiceStub(channel)
        assert (await model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10)).bundle.version
        go_on.set()
        assert [(await each).nodes[0].name for each in waiting] == ["Slowdive"] * LIMIT
        assert (await stub.GetEntity(ONE, timeout=10)).nodes[0].name == "Slowdive"
    await slow_application.drain(notice=0)


async def test_a_call_that_was_given_up_makes_room(
    served: tuple[Application, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    application, _ = served

    async def never(self: RetrievalServicer, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(RetrievalServicer, "GetEntity", never)
    stuck = Application(application.state)
    port = await stuck.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        calls = [stub.GetEntity(ONE) for _ in range(LIMIT)]
        waiting = [asyncio.ensure_future(_finished(call)) for call in calls]
        while stuck.admission.in_work < LIMIT:
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting)
        while stuck.admission.in_work:
            await asyncio.sleep(0.01)
        found = await stub.SearchSimilarEntities(
            pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id="1"), top_k=1), timeout=10
        )
        assert found.results[0].node.name == "Ride"
    await stuck.drain(notice=0)


async def test_streams_that_send_nothing_keep_nobody_out(served: tuple[Application, int]) -> None:
    application, port = served
    clients = [RawClient(port) for _ in range(5)]
    for client in clients:
        for _ in range(3 * LIMIT):
            client.call(GET, None)
    # All have come when the last of a connection is followed by an answer.
    answered = clients[-1].call(GET, ONE.SerializeToString())
    frames = await asyncio.to_thread(clients[-1].frames, 10, until=1)
    assert frames[-1][2] == answered
    assert application.admission.in_work == 0
    await _assert_answers(port)
    for client in clients:
        client.close()


async def test_who_never_reads_holds_no_place(served: tuple[Application, int]) -> None:
    application, port = served
    client = RawClient(port, window=0)
    for _ in range(10 * LIMIT):
        client.call(GET, ONE.SerializeToString())
        await asyncio.sleep(0.002)
    while not await _answers(port):
        await asyncio.sleep(0.01)
    assert application.admission.in_work == 0
    client.close()


async def test_a_connection_has_so_many_streams_and_no_more(served: tuple[Application, int]) -> None:
    _, port = served
    client = RawClient(port)
    most = await asyncio.to_thread(client.most_streams)
    assert most == 100, "twice the limit, but no fewer than HTTP/2 advises"
    for _ in range(most + 20):
        client.call(GET, None)
    frames = await asyncio.to_thread(client.frames, 10, until=RST_STREAM)
    assert {kind for kind, *_ in frames} & {RST_STREAM, GOAWAY}
    await _assert_answers(port)
    client.close()


async def test_garbage_ends_the_connection_and_nothing_else(served: tuple[Application, int]) -> None:
    _, port = served
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\xff" * 20_000):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(garbage)

            def read(connection: socket.socket = connection) -> bytes:
                heard = b""
                while part := connection.recv(65536):
                    heard += part
                return heard

            try:
                # Whatever it is told, the connection ends.
                await asyncio.to_thread(read)
            except ConnectionError:
                continue
    await _assert_answers(port)


async def test_huge_metadata_is_refused(served: tuple[Application, int]) -> None:
    _, port = served
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        assert (await stub.GetEntity(ONE, timeout=10, metadata=(("x", "y" * 10_000),))).nodes
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetEntity(ONE, timeout=10, metadata=(("x", "y" * 20_000),))
        assert raised.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
    await _assert_answers(port)


async def test_who_pings_without_end_is_let_go(served: tuple[Application, int]) -> None:
    _, port = served
    client = RawClient(port)
    client.ping(5)
    frames = await asyncio.to_thread(client.frames, 10, until=GOAWAY)
    assert b"too_many_pings" in frames[-1][3]
    await _assert_answers(port)
    client.close()


async def _ask(stub: retrieval_service_pb2_grpc.RetrievalServiceStub) -> pb.GetEntityResponse:
    answer: pb.GetEntityResponse = await stub.GetEntity(ONE, timeout=20)
    return answer


async def _finished(call: Any) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call


async def _assert_answers(port: int) -> None:
    assert await _answers(port)


async def _answers(port: int) -> bool:
    """Whether somebody else gets an answer; False: told that it is too much just now."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        try:
            return bool((await stub.GetEntity(ONE, timeout=10)).nodes[0].name == "Slowdive")
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            return False


def _details(error: grpc.aio.AioRpcError) -> tuple[str, float]:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    status.details[-1].Unpack(retry)
    return info.reason, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
