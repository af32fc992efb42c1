"""What a failed call becomes: the class, what it tells, and what is tried again."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

import kithkin
from kithkin import AsyncClient, Client
from kithkin._retry import RetryPolicy, worth_another_try
from kithkin.errors import ERROR_OF_STATUS, HINT_OF_REASON, HINT_OF_STATUS, FieldViolation
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import types_pb2 as wire
from tests.fake_server import Failure, FakeServer, bad_request, error_info, retry_info

OK = model.GetStatusResponse(server_version="0.1.0")
UNAVAILABLE = Failure(code=grpc.StatusCode.UNAVAILABLE)
FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
REASONS = [name for name in wire.ErrorReason.keys() if name != "ERROR_REASON_UNSPECIFIED"]  # noqa: SIM118


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


class Asker:
    """Asks for the status, with either client."""

    def __init__(self, kind: str, runner: asyncio.Runner) -> None:
        self._kind, self._runner = kind, runner

    def status(self, target: str, *, retries: int = 3, **options: Any) -> kithkin.Status:
        async def ask() -> kithkin.Status:
            async with AsyncClient(target, retries=retries) as client:
                return await client.status(**options)

        if self._kind == "async":
            return self._runner.run(ask())
        with Client(target, retries=retries) as client:
            return client.status(**options)

    def failure(self, target: str, **options: Any) -> kithkin.KithkinError:
        with pytest.raises(kithkin.KithkinError) as caught:
            self.status(target, **options)
        return caught.value


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sync", "async"])
def asker(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Asker:
    return Asker(request.param, runner)


def test_the_table_covers_every_status() -> None:
    assert set(ERROR_OF_STATUS) == {code.name for code in FAILURES}
    assert set(HINT_OF_STATUS) <= set(ERROR_OF_STATUS)


def test_every_reason_of_the_protos_has_a_hint() -> None:
    assert sorted(HINT_OF_REASON) == sorted(REASONS)


def test_every_error_is_in_the_tree_that_the_module_draws() -> None:
    tree = kithkin.errors.__doc__ or ""
    for kind in {*ERROR_OF_STATUS.values(), kithkin.KithkinError}:
        assert kind.__name__ in tree
        assert getattr(kithkin, kind.__name__) is kind


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_status_becomes_its_error(server: FakeServer, asker: Asker, code: grpc.StatusCode) -> None:
    server.will("GetStatus", Failure(code=code, message="because"))
    error = asker.failure(server.target, retries=0)
    assert type(error) is ERROR_OF_STATUS[code.name]
    assert (error.code, error.message, error.reason) == (code.name, "because", "")


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_makes_the_round_trip(server: FakeServer, asker: Asker, reason: str) -> None:
    details = (error_info(reason, limit="1000"),)
    server.will("GetStatus", Failure(code=grpc.StatusCode.FAILED_PRECONDITION, details=details))
    error = asker.failure(server.target)
    assert (error.reason, error.details, error.hint) == (reason, {"limit": "1000"}, HINT_OF_REASON[reason])
    assert reason in str(error)


def test_builtin_errors_catch_them_too(server: FakeServer, asker: Asker) -> None:
    for code, builtin in (
        (grpc.StatusCode.INVALID_ARGUMENT, ValueError),
        (grpc.StatusCode.NOT_FOUND, LookupError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TimeoutError),
        (grpc.StatusCode.UNAVAILABLE, ConnectionError),
    ):
        server.will("GetStatus", Failure(code=code))
        with pytest.raises(builtin):
            asker.status(server.target, retries=0)


def test_details_are_on_the_error(server: FakeServer, asker: Asker) -> None:
    violations = [("top_k", "must be at least 1"), ("query", "one is needed")]
    details = (
        error_info("INVALID_FIELD"),
        bad_request(violations),
        error_details_pb2.ResourceInfo(resource_type="Movie", resource_name="99"),
        error_details_pb2.Help(),
    )
    failure = Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="top_k must be at least 1", details=details)
    server.will("GetStatus", failure)
    error = asker.failure(server.target, request_id="mine")
    assert error.violations == tuple(FieldViolation(*violation) for violation in violations)
    assert (error.resource_type, error.resource_name, error.retry_after) == ("Movie", "99", None)
    assert str(error) == (
        "top_k must be at least 1\n  query: one is needed\n  [INVALID_ARGUMENT, INVALID_FIELD, request mine]"
    )


def test_request_id_is_ours_unless_the_server_names_another(server: FakeServer, asker: Asker) -> None:
    failure = Failure(code=grpc.StatusCode.INTERNAL)
    server.will("GetStatus", failure)
    assert asker.failure(server.target, request_id="mine").request_id == "mine"
    server.will("GetStatus", Failure(code=grpc.StatusCode.INTERNAL, trailers=(("x-request-id", "theirs"),)))
    assert asker.failure(server.target, request_id="mine").request_id == "theirs"


def test_a_reason_of_somebody_else_is_not_taken_for_ours(server: FakeServer, asker: Asker) -> None:
    details = (error_info("NODE_NOT_FOUND", domain="proxy.example"),)
    server.will("GetStatus", Failure(code=grpc.StatusCode.NOT_FOUND, details=details))
    error = asker.failure(server.target)
    assert (error.reason, error.hint) == ("proxy.example/NODE_NOT_FOUND", "")


def test_errors_survive_pickling(server: FakeServer, asker: Asker) -> None:
    details = (error_info("NO_BUNDLE"), bad_request([("a", "b")]), retry_info(2))
    server.will("GetStatus", Failure(code=grpc.StatusCode.UNAVAILABLE, details=details))
    error = asker.failure(server.target, retries=0)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kithkin.Unavailable
    assert (vars(again), str(again)) == (vars(error), str(error))


def test_tries_again_until_it_answers(server: FakeServer, asker: Asker) -> None:
    exhausted = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED)
    server.will("GetStatus", UNAVAILABLE, exhausted, OK)
    assert asker.status(server.target).server_version == "0.1.0"
    calls = server.received["GetStatus"]
    assert len(calls) == 3
    # One call to whoever reads the log, and one deadline: two waits of 0.05 and 0.1 s at least are gone from it. (gRPC
    # rounds timeouts on the wire, so neighbours do not compare.)
    assert len({call.metadata["x-request-id"] for call in calls}) == 1
    assert calls[0].time_remaining - calls[2].time_remaining > 0.05


@pytest.mark.parametrize(
    "code", [code for code in FAILURES if code.name not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")], ids=lambda c: c.name
)
def test_nothing_else_is_tried_again(server: FakeServer, asker: Asker, code: grpc.StatusCode) -> None:
    server.will("GetStatus", Failure(code=code, details=(retry_info(0.01),)), OK)
    asker.failure(server.target)
    assert len(server.received["GetStatus"]) == 1


def test_a_message_too_large_is_not_tried_again(server: FakeServer, asker: Asker) -> None:
    details = (error_info("MESSAGE_TOO_LARGE"),)
    server.will("GetStatus", Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details=details), OK)
    assert isinstance(asker.failure(server.target), kithkin.ResourceExhausted)
    assert len(server.received["GetStatus"]) == 1
    # gRPC's own refusal of a large answer, made in the client: the request limit of 64 MiB, less than this answer.
    server.will("GetStatus", model.GetStatusResponse(server_version="x" * (65 * 2**20)))
    assert "larger than max" in asker.failure(server.target, timeout=30).message
    assert len(server.received["GetStatus"]) == 1


def test_gives_up_after_three_more_tries(server: FakeServer, asker: Asker) -> None:
    server.will("GetStatus", UNAVAILABLE)
    asker.failure(server.target)
    assert len(server.received["GetStatus"]) == 4


def test_gives_up_inside_the_deadline(server: FakeServer, asker: Asker) -> None:
    server.will("GetStatus", UNAVAILABLE)
    started = time.monotonic()
    error = asker.failure(server.target, retries=1000, timeout=0.5)
    assert time.monotonic() - started < 20
    # It ends with what the server said, which tells more than that time ran out.
    assert type(error) is kithkin.Unavailable
    assert len(server.received["GetStatus"]) >= 2


def test_waits_as_long_as_the_server_asks(server: FakeServer, asker: Asker) -> None:
    details = (error_info("NO_BUNDLE"), retry_info(0.4))
    server.will("GetStatus", Failure(code=grpc.StatusCode.UNAVAILABLE, details=details), OK)
    started = time.monotonic()
    asker.status(server.target)
    assert time.monotonic() - started >= 0.4
    # Asked to wait past the deadline it gives up at once.
    server.will("GetStatus", Failure(code=grpc.StatusCode.UNAVAILABLE, details=(retry_info(60),)), OK)
    started = time.monotonic()
    assert asker.failure(server.target).retry_after == 60
    assert time.monotonic() - started < 20


def test_deadline(server: FakeServer, asker: Asker) -> None:
    def slow(_: Any, context: grpc.ServicerContext) -> model.GetStatusResponse:
        time.sleep(0.4)
        return OK

    server.will("GetStatus", slow)
    started = time.monotonic()
    error = asker.failure(server.target, timeout=0.1)
    assert time.monotonic() - started < 20
    assert type(error) is kithkin.DeadlineExceeded
    assert "timeout=" in error.hint


def test_nobody_listens(asker: Asker) -> None:
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        target = f"localhost:{unused.getsockname()[1]}"
        error = asker.failure(target, retries=0)
    assert type(error) is kithkin.Unavailable
    assert f"`kithkin serve` running at {target}" in str(error)


def test_a_host_that_does_not_exist(asker: Asker) -> None:
    error = asker.failure("no-such-host.invalid:50051", retries=0, timeout=4)
    # Without any name server to ask it takes the resolver longer than the deadline.
    assert type(error) in (kithkin.Unavailable, kithkin.DeadlineExceeded)


@contextmanager
def raw_server(answer: bytes | None, trailers: tuple[tuple[str, str | bytes], ...] = ()) -> Iterator[str]:
    """A server whose GetStatus answers these bytes (None: an abort with these trailers), with no message types."""

    def get_status(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(trailers)
        if answer is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return answer

    handlers = {"GetStatus": grpc.unary_unary_rpc_method_handler(get_status)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kithkin.v1.ModelService", handlers),))
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    "answer",
    [b"\xff\xff\xff", model.GetStatusResponse(uptime={"seconds": 2**62}).SerializeToString()],
    ids=["no protobuf", "time out of range"],
)
def test_an_answer_that_cannot_be_read(asker: Asker, answer: bytes) -> None:
    with raw_server(answer) as target:
        error = asker.failure(target, request_id="mine")
    assert type(error) is kithkin.Internal
    assert (error.code, error.request_id) == ("INTERNAL", "mine")
    assert "/kithkin.v1.ModelService/GetStatus cannot be read" in error.message


@pytest.mark.parametrize("details", [b"\xff\xff", b"\x1a\x02\x0a\x00"], ids=["no protobuf", "a detail of no type"])
def test_broken_details_do_not_hide_the_error(asker: Asker, details: bytes) -> None:
    with raw_server(None, (("grpc-status-details-bin", details),)) as target:
        error = asker.failure(target)
    assert (type(error), error.message) == (kithkin.NotFound, "gone")


def test_a_server_that_is_no_kithkin(asker: Asker) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    target = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    error = asker.failure(target)
    server.stop(None).wait()
    assert type(error) is kithkin.Unimplemented
    assert target in error.hint


def test_a_server_that_comes_up_late(asker: Asker) -> None:
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    fake = FakeServer()
    fake.will("GetStatus", OK)
    servers: list[grpc.Server] = []
    timer = threading.Timer(0.2, lambda: servers.append(fake.start(port)))
    timer.start()
    try:
        assert asker.status(f"localhost:{port}", retries=20, timeout=10).server_version == "0.1.0"
    finally:
        timer.join()
        servers[0].stop(None).wait()


async def test_cancelling_the_task_cancels_the_call(server: FakeServer) -> None:
    ended: list[bool] = []

    def slow(_: Any, context: grpc.ServicerContext) -> model.GetStatusResponse:
        context.add_callback(lambda: ended.append(True))
        time.sleep(0.2)
        return OK

    server.will("GetStatus", slow)
    async with AsyncClient(server.target) as client:
        task = asyncio.create_task(client.status())
        while not server.received["GetStatus"]:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
    # Told before its own 0.2 s were over.
    assert ended == [True]


def unavailable(retry_after: float | None = None) -> kithkin.Unavailable:
    return kithkin.Unavailable("no", code="UNAVAILABLE", retry_after=retry_after)


def test_waits_grow_and_keep_to_their_limits() -> None:
    policy = RetryPolicy(retries=6, first_wait=0.1, longest_wait=1.0)
    for chance, factor in ((0.0, 0.5), (1.0, 1.0)):
        tries = policy.start(100, clock=lambda: 0.0, chance=lambda chance=chance: chance)
        waits = [tries.wait_after(unavailable()) for _ in range(7)]
        assert waits[:-1] == pytest.approx([factor * wait for wait in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0)])
        assert waits[-1] is None
    for chance, wait in ((0.0, 3.0), (1.0, 3.75)):
        tries = policy.start(100, clock=lambda: 0.0, chance=lambda chance=chance: chance)
        assert tries.wait_after(unavailable(retry_after=3)) == wait


def test_the_clock_decides_what_is_left() -> None:
    now = 10.0
    tries = RetryPolicy(retries=9).start(1.0, clock=lambda: now, chance=lambda: 1.0)
    assert tries.remaining() == pytest.approx(1.0)
    now = 10.85
    assert tries.wait_after(unavailable()) == pytest.approx(0.1)
    assert tries.wait_after(unavailable()) is None
    now = 12.0
    assert tries.remaining() == 0.001


def test_only_what_may_pass_is_worth_another_try() -> None:
    worth = {kind.__name__ for kind in set(ERROR_OF_STATUS.values()) if worth_another_try(kind("no"))}
    assert worth == {"Unavailable", "ResourceExhausted"}
