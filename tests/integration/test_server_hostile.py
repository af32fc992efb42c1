"""Clients that mean harm or are broken: half a message, endless headers, many connections. The others are answered."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import retrieval_service_pb2_grpc, types_pb2
from model_store.bundle_store import BundleStore
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from tests.bundles import write_toy_bundle
from tests.raw_http2 import CONTINUATION, DATA, HEADERS, PREFACE, RST_STREAM, SETTINGS, RawClient, header

GET = "/kithkin.v1.RetrievalService/GetEntity"
ONE = pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1"))
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Application, int]]:
    store = BundleStore(tmp_path)
    state = State(settings=ServingSettings(drain_s=1, max_concurrent_calls=4))
    state.take(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))))
    application = Application(state)
    port = await application.start("127.0.0.1", 0)
    yield application, port
    await application.drain(notice=0)


async def assert_answers(application: Application, port: int) -> None:
    """Somebody else is answered, and nobody holds a place."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        assert (await stub.GetEntity(ONE, timeout=20)).nodes[0].name == "Slowdive"
    assert application.admission.in_work == 0


async def test_messages_of_which_the_rest_never_comes(served: tuple[Application, int]) -> None:
    application, port = served
    clients = [RawClient(port) for _ in range(5)]
    for client in clients:
        for _ in range(20):
            # A thousand bytes are announced, and ten of them sent.
            client.send(DATA, 0, client.head(GET), struct.pack(">BI", 0, 1000) + bytes(10))
    await assert_answers(application, port)
    for client in clients:
        client.close()
    await assert_answers(application, port)


async def test_headers_that_go_on_and_on(served: tuple[Application, int]) -> None:
    """Each part is small, together they are endless, and none of it is a request yet (CVE-2024-27316)."""
    application, port = served
    client = RawClient(port)
    stream = client.head(GET, whole=False)
    part = b"".join(header(f"x-{number}", "y" * 100) for number in range(100))

    def send() -> None:
        try:
            for _ in range(2000):
                client.send(CONTINUATION, 0, stream, part)
            client.send(CONTINUATION, END_HEADERS, stream, b"")
        except ConnectionError:
            # It may have had enough of them.
            return

    sending = asyncio.create_task(asyncio.to_thread(send))
    await assert_answers(application, port)
    await sending
    await assert_answers(application, port)
    # Twenty megabytes of them are no call.
    frames = await asyncio.to_thread(client.frames, 10, until=HEADERS)
    assert not any(kind == HEADERS and b"grpc-status\x010" in payload for kind, _, _, payload in frames)
    client.close()


async def test_streams_that_are_opened_and_reset_at_once(served: tuple[Application, int]) -> None:
    """More than may be open at once, one after the other, each taken back (CVE-2023-44487)."""
    application, port = served
    client = RawClient(port)

    def reset_many() -> None:
        try:
            for _ in range(3000):
                client.send(RST_STREAM, 0, client.head(GET), struct.pack(">I", 8))
        except ConnectionError:
            # It may have had enough of this connection.
            return

    await asyncio.to_thread(reset_many)
    while application.admission.in_work:
        await asyncio.sleep(0.01)
    await assert_answers(application, port)
    client.close()


async def test_a_thousand_connections_that_say_nothing(served: tuple[Application, int]) -> None:
    application, port = served
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1000
    # Both ends of each are in this process.
    if hard != resource.RLIM_INFINITY and hard < 2 * wanted + 500:
        pytest.skip(f"a process may open {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * wanted + 500), hard))
    connections: list[socket.socket] = []
    try:
        for number in range(wanted):
            connections.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            if number % 2:
                connections[-1].sendall(PREFACE)
            if number % 100 == 99:
                await assert_answers(application, port)
    finally:
        for connection in connections:
            connection.close()
        await assert_answers(application, port)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_settings_and_windows_without_end(served: tuple[Application, int]) -> None:
    application, port = served
    client = RawClient(port)

    def flood() -> None:
        try:
            for _ in range(5000):
                client.send(SETTINGS, 0, 0, b"")
        except ConnectionError:
            return

    await asyncio.to_thread(flood)
    await assert_answers(application, port)
    client.close()


@pytest.mark.parametrize("announced", [1 << 31, (1 << 32) - 1])
async def test_a_message_announced_as_gigabytes_is_refused_by_its_announcement(
    served: tuple[Application, int], announced: int
) -> None:
    application, port = served
    client = RawClient(port)
    client.send(DATA, END_STREAM, client.head(GET), struct.pack(">BI", 0, announced) + bytes(10))
    frames = await asyncio.to_thread(client.frames, 10, until=HEADERS)
    assert b"grpc-status" in frames[-1][3]
    assert b"grpc-status\x010" not in frames[-1][3]
    await assert_answers(application, port)
    client.close()


async def test_a_small_message_that_unpacks_to_a_large_one_is_refused(served: tuple[Application, int]) -> None:
    application, port = served
    packed = gzip.compress(bytes(60_000_000))
    assert len(packed) < 65_536, "it fits the window"
    client = RawClient(port)
    stream = client.head(GET, **{"grpc-encoding": "gzip"})
    body = struct.pack(">BI", 1, len(packed)) + packed
    for start in range(0, len(body), 16_384):
        last = start + 16_384 >= len(body)
        client.send(DATA, END_STREAM if last else 0, stream, body[start : start + 16_384])
    frames = await asyncio.to_thread(client.frames, 20, until=HEADERS)
    assert b"grpc-status\x018" in frames[-1][3], "RESOURCE_EXHAUSTED"
    await assert_answers(application, port)
    client.close()
