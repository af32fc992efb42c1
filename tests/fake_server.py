"""A gRPC server over a loopback socket that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kithkin.v1 import model_service_pb2_grpc, retrieval_service_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A status with `google.rpc` details to answer with."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Message, ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Received:
    """What one call brought."""

    request: Message
    metadata: dict[str, str]
    time_remaining: float


Reply = Message | Failure | Callable[[Message, grpc.ServicerContext], Message]


@dataclass
class FakeServer:
    """Answers each method from its list of replies; the last one again and again."""

    replies: dict[str, list[Reply]] = field(default_factory=lambda: defaultdict(list))
    received: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    target: str = ""

    def will(self, method: str, *replies: Reply) -> None:
        """Sets the replies of one method and forgets what it received."""
        self.replies[method] = list(replies)
        self.received[method] = []

    def answer(self, method: str, request: Message, context: grpc.ServicerContext) -> Message:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.received[method].append(Received(request, metadata, context.time_remaining()))
        replies = self.replies[method]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if isinstance(reply, Failure):
            self.fail(context, reply)
        return reply if isinstance(reply, Message) else reply(request, context)

    def fail(self, context: grpc.ServicerContext, failure: Failure) -> NoReturn:
        """Ends the call with a failure."""
        trailers: tuple[tuple[str, str | bytes], ...] = failure.trailers
        if failure.details:
            status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
            status.details.extend(_packed(detail) for detail in failure.details)
            trailers = (("grpc-status-details-bin", status.SerializeToString()), *trailers)
        context.set_trailing_metadata(trailers)
        context.abort(failure.code, failure.message)
        raise AssertionError("abort raises")

    def start(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> grpc.Server:
        """Starts listening on this machine, on a free port unless one is given."""
        server = grpc.server(ThreadPoolExecutor(8))
        retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(
            self._servicer(retrieval_service_pb2_grpc.RetrievalServiceServicer), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            self._servicer(model_service_pb2_grpc.ModelServiceServicer), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer(health_pb2_grpc.HealthServicer), server)
        address = f"localhost:{port}"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        self.target = f"localhost:{port}"
        server.start()
        self.will("Check", health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING))
        return server

    def _servicer(self, base: type) -> Any:
        def method(name: str) -> Callable[[Any, Message, grpc.ServicerContext], Message]:
            return lambda _, request, context: self.answer(name, request, context)

        names = [name for name in vars(base) if not name.startswith("_")]
        return type("Fake", (base,), {name: method(name) for name in names})()


def error_info(reason: str, domain: str = "kithkin", **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    detail = error_details_pb2.RetryInfo()
    detail.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return detail


def bad_request(violations: Iterable[tuple[str, str]]) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    for name, description in violations:
        detail.field_violations.add(field=name, description=description)
    return detail


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
