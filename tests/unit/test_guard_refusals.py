"""What the guard tells of a call that it lets in, or does not, and what that holds up meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from server.errors import InvalidField
from server.wire.admission import Admission
from server.wire.guard import Guard
from server.wire.keys import Keys

SERVICE = "kithkin.v1.RetrievalService"


class Context:
    """As much of gRPC's as the guard uses; an abort is sent when ``sent`` is set."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = tuple(metadata.items())
        self.code: Any = None
        self.aborting, self.sent = asyncio.Event(), asyncio.Event()

    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def set_trailing_metadata(self, trailers: Any) -> None: ...

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        self.code = code
        self.aborting.set()
        await self.sent.wait()
        raise grpc.aio.AbortError


def guarded(admission: Admission, method: Any, keys: Keys | None = None) -> Guard:
    guard = Guard(100, admission=admission, keys=keys)
    guard.add_registered_method_handlers(SERVICE, {"GetEntity": grpc.unary_unary_rpc_method_handler(method)})
    return guard


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        ({}, grpc.StatusCode.UNAUTHENTICATED, "no API key"),
        ({"authorization": "Bearer wrong"}, grpc.StatusCode.UNAUTHENTICATED, "not known"),
        ({"authorization": "Bearer right"}, grpc.StatusCode.RESOURCE_EXHAUSTED, "as many calls as it may"),
    ],
)
async def test_strangers_hear_nothing_of_the_load(sent: dict[str, str], code: grpc.StatusCode, said: str) -> None:
    async def method(request: bytes, context: Any) -> bytes:
        return request

    admission = Admission(0)
    keys = Keys(None, f"read somebody {hashlib.sha256(b'right').hexdigest()}")
    context: Any = Context(**sent)
    told, text, trailers = guarded(admission, method, keys).refused(f"/{SERVICE}/GetEntity", context)
    assert told is code
    assert said in text
    assert status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"]).message == text
    assert admission.refused == (code is grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_strangers_hold_no_place() -> None:
    async def method(request: bytes, context: Any) -> bytes:
        return request

    admission = Admission(3)
    guard = guarded(admission, method, Keys(None, f"read somebody {hashlib.sha256(b'right').hexdigest()}"))
    handler: Any = guard.methods(SERVICE)["GetEntity"]
    assert not guard.full
    admission._busy = True
    for _ in range(10):
        assert not guard.full
        guard.come()
        stranger = Context()
        stranger.sent.set()
        with pytest.raises(grpc.aio.AbortError):
            await handler.unary_unary(b"", stranger)
        assert stranger.code is grpc.StatusCode.UNAUTHENTICATED


async def test_an_error_that_is_not_read_holds_no_place() -> None:
    async def method(request: bytes, context: Any) -> bytes:
        raise InvalidField("top_k", "is wrong")

    admission = Admission(1)
    handler: Any = guarded(admission, method).methods(SERVICE)["GetEntity"]
    context = Context()
    call = asyncio.create_task(handler.unary_unary(b"", context))
    await context.aborting.wait()
    assert admission.in_work == 0
    context.sent.set()
    with pytest.raises(grpc.aio.AbortError):
        await call
    assert admission.in_work == 0, "left once"
