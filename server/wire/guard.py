"""Stands before every method: lets calls in, parses them, turns every error into a status with details, counts.

gRPC answers bytes that it cannot decode, and exceptions it does not know, with UNKNOWN. Here nothing leaves but what
``server/wire/status.py`` lists: handlers are given bytes, and parsing happens inside.

The guard is the generic handler of all services; as an interceptor it cost two coroutines more a call. Of methods that
are registered one by one grpc.aio's own loop waits for the next call of each, all anew after every call: only those of
RetrievalService are, most of whose calls ``acceptors.py`` takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc
from google.rpc import status_pb2

from kithkin.v1 import types_pb2
from server.deadline import Deadline
from server.errors import CallError, InternalError, MessageTooLarge, Overloaded, ShuttingDown, UndecodableRequest
from server.observe import log
from server.wire.admission import Admission, Entered
from server.wire.keys import AUTHORIZATION, Keys, Role, role_needed
from server.wire.status import Templates, code_of, reason_of, short, status_of, text_of

if TYPE_CHECKING:
    from server.observe.impressions import Impressions
    from server.observe.metrics import Metrics

REQUEST_ID = "x-request-id"
_DETAILS = "grpc-status-details-bin"
_COUNTED = "/kithkin.v1.RetrievalService/"
"""Calls that the admission limit counts; health, status and administration must answer when all is full."""
_ACCEPTED_ID = re.compile(r"^[\x21-\x7e]{1,128}$")

current_deadline: ContextVar[Deadline] = ContextVar("current_deadline")
"""The deadline of the call being answered."""


class Origin(NamedTuple):
    """Which call, for the log and for the details of errors."""

    method: str
    request_id: str


current_origin: ContextVar[Origin] = ContextVar("current_origin")
"""The call being answered."""

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = tuple[tuple[str, str | bytes], ...]


class Guard(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """The methods of all services of one server; generated code adds them here as it would to a server."""

    def __init__(
        self,
        max_message_bytes: int,
        *,
        admission: Admission | None = None,
        keys: Keys | None = None,
        health_needs_key: bool = False,
        metrics: Metrics | None = None,
        impressions: Impressions | None = None,
    ) -> None:
        """``admission``: None for no limit; ``keys``: None where everybody may call."""
        self.draining = False
        """True: new calls are refused, the client is told to try again (elsewhere)."""
        self._max_message_bytes = max_message_bytes
        self._admission = admission
        self._keys, self._health_needs_key = keys, health_needs_key
        self._metrics, self._impressions = metrics, impressions
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        # Random for each server, and a number: an id of 128 random bits a call takes ten times as long.
        self._ids, self._numbers = os.urandom(8).hex(), count(1)
        self._streams: set[asyncio.Task[Any]] = set()
        self._overloaded = Templates()

    def end_streams(self) -> None:
        """End what would never end by itself: a watcher of the health would hold up the drain to its last second."""
        for task in self._streams:
            task.cancel()

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Called by generated functions with what they give to ``add_registered_method_handlers`` too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take the methods of a service by name; called by generated functions, once a service."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._methods[method] = self._wrap(method, handler)

    def methods(self, service: str) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """What answers the calls of a service, by the names of its methods."""
        known = ((method.rpartition("/"), handler) for method, handler in self._methods.items())
        return {name: handler for (of, _, name), handler in known if of == f"/{service}"}

    @property
    def full(self) -> bool:
        """Whether calls that are counted would be refused as too many; while the server stops they are told that."""
        return self._admission is not None and self._admission.full and not self.draining

    def come(self) -> None:
        """Tell the admission that gRPC has handed over a call which is counted."""
        if self._admission is not None:
            self._admission.come()

    def refused(self, method: str, context: Context) -> tuple[grpc.StatusCode, str, Metadata]:
        """What ends a call that comes while this is ``full``: its code, text and trailing metadata; counts it.

        Before its message is read, and without an exception: it costs a third of refusing it later.
        """
        assert self._admission is not None
        deadline = Deadline()
        request_id, authorization = self._head(context)
        error: CallError
        try:
            # Who has no key is told that, and nothing of the load.
            self._admit(authorization, role_needed(method))
            error = self._admission.refusal()
        except CallError as refused:
            error = refused
        code, reason = code_of(error)
        if isinstance(error, Overloaded):
            details = self._overloaded.status(error, request_id)
        else:
            details = refusal(error, Origin(method, request_id), deadline)[1].SerializeToString()
        self._count(method.rpartition("/")[2], code.name, deadline, types_pb2.ErrorReason.Name(reason))
        return code, text_of(error), ((REQUEST_ID, request_id), (_DETAILS, details))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """What answers a call; gRPC asks when its head has come."""
        return self._methods.get(handler_call_details.method)

    def _wrap(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        parse: Callable[[bytes], Any] = handler.request_deserializer or bytes
        # Not the message type's own: an answer may come as bytes that only look like a message.
        serialize: Callable[[Any], bytes] = _serialized if handler.response_serializer else bytes

        name = method.rpartition("/")[2]
        admission = self._admission if method.startswith(_COUNTED) else None
        role = role_needed(method, health_needs_key=self._health_needs_key)

        async def answer(raw: bytes, context: Context) -> bytes:
            deadline = Deadline(context.time_remaining())
            request_id, authorization = self._head(context)
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            entered: Entered | None = None
            if admission is not None:
                # Before its key is looked at: who has none must hold no place.
                admission.read()
            try:
                self._admit(authorization, role)
                if admission is not None:
                    entered = await admission.enter(name, deadline.left)
                # It may have waited for its turn until nobody wants the answer any more.
                deadline.check("parse")
                current_deadline.set(deadline)
                current_origin.set(Origin(method, request_id))
                request = self._parsed(method, raw, parse)
                deadline.enter("prepare")
                response = await handler.unary_unary(request, context)
                deadline.enter("serialise")
                body = serialize(response)
                deadline.enter("end")
            except (grpc.aio.AbortError, asyncio.CancelledError):
                self._count(name, "CANCELLED", deadline)
                raise
            except Exception as error:
                code, status = refusal(error, Origin(method, request_id), deadline)
                self._count(name, code.name, deadline, reason_of(status))
                if entered is not None and admission is not None:
                    # Who does not read it must not hold a place.
                    admission.leave(entered)
                    entered = None
                await _refuse(context, code, status, request_id)
            finally:
                if entered is not None and admission is not None:
                    admission.leave(entered)
            self._count(name, "OK", deadline)
            if admission is not None:
                self._note(name, request_id, request, response)
            if log.logger.isEnabledFor(logging.DEBUG):
                log.event(
                    logging.DEBUG, "answered", method=method, request_id=request_id, ms=round(deadline.spent * 1000, 3)
                )
            return body

        async def stream(requests: Any, context: Context) -> AsyncIterator[bytes]:
            deadline = Deadline(context.time_remaining())
            request_id, authorization = self._head(context)
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            try:
                self._admit(authorization, role)
                if handler.request_streaming:
                    parsed: Any = self._parsed_stream(method, requests, parse)
                else:
                    parsed = self._parsed(method, requests, parse)
                respond = handler.stream_stream if handler.request_streaming else handler.unary_stream
                responses = respond(parsed, _Writer(context, serialize))
                if hasattr(responses, "__aiter__"):
                    async for response in responses:
                        yield serialize(response)
                else:
                    await responses
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                if not self.draining:
                    raise
                await _refuse(context, *refusal(_stopping(), Origin(method, request_id), deadline), request_id)
            except Exception as error:
                await _refuse(context, *refusal(error, Origin(method, request_id), deadline), request_id)
            finally:
                self._streams.discard(task)

        if not handler.response_streaming and not handler.request_streaming:
            return grpc.unary_unary_rpc_method_handler(answer)
        if handler.response_streaming and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        raise NotImplementedError(f"{method}: no service here streams requests to one response")

    def _head(self, context: Context) -> tuple[str, str | None]:
        """The call's id, the caller's where it fits, and what the caller shows as its right to call."""
        request_id: str | None = None
        authorization: str | None = None
        # gRPC makes this anew each time it is asked.
        for key, value in context.invocation_metadata() or ():
            if key == REQUEST_ID:
                if isinstance(value, str) and _ACCEPTED_ID.match(value):
                    request_id = value
            elif key == AUTHORIZATION and authorization is None and isinstance(value, str):
                authorization = value
        return request_id or f"{self._ids}{next(self._numbers):016x}", authorization

    def _admit(self, authorization: str | None, role: Role | None) -> None:
        if self.draining:
            raise _stopping()
        if self._keys is not None and role is not None:
            self._keys.admit(authorization, role)

    def _count(self, name: str, code: str, deadline: Deadline, reason: str = "") -> None:
        """Count a call; ``reason``: of the error that it was refused with."""
        if self._metrics is not None:
            self._metrics.answered(name, code, deadline)
            if reason:
                self._metrics.refused(reason)

    def _note(self, name: str, request_id: str, request: Any, response: Any) -> None:
        """Count and record an answer; what goes wrong with that must not take it from its caller."""
        try:
            if self._metrics is not None:
                self._metrics.described(name, response)
            if self._impressions is not None:
                self._impressions.record(name, request_id, request, response)
        except Exception as error:
            log.event(logging.ERROR, "answer not recorded", trace=True, request_id=request_id, error=str(error))

    def _parsed(self, method: str, raw: bytes, parse: Callable[[bytes], Any]) -> Any:
        if len(raw) > self._max_message_bytes:
            raise MessageTooLarge(
                f"the message has {len(raw)} bytes, the server takes {self._max_message_bytes}",
                hint="Send less at once, or raise serving.max_message_bytes.",
            )
        try:
            return parse(raw)
        except Exception:
            raise UndecodableRequest(
                f"the {len(raw)} bytes are not a request of {method}",
                hint="Generate the client from the server's protos.",
            ) from None

    async def _parsed_stream(self, method: str, requests: Any, parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        async for raw in requests:
            yield self._parsed(method, raw, parse)


class _Writer:
    """A context for methods that write their responses (the health service's Watch): serialises what they write."""

    def __init__(self, context: Context, serialize: Callable[[Any], bytes]) -> None:
        self._context = context
        self._serialize = serialize

    async def write(self, response: Any) -> None:
        await self._context.write(self._serialize(response))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _stopping() -> ShuttingDown:
    return ShuttingDown("the server is stopping", hint="Try again: another one may answer.")


async def _refuse(context: Context, code: grpc.StatusCode, status: status_pb2.Status, request_id: str) -> NoReturn:
    """End the call with an error's status."""
    trailers = ((REQUEST_ID, request_id), (_DETAILS, status.SerializeToString()))
    await context.abort(code, status.message, trailers)
    raise AssertionError("abort raises")


def refusal(
    error: Exception, origin: Origin, deadline: Deadline, **fields: object
) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status of an error, logged with ``fields``.

    What is no CallError is a fault of ours, and only the log tells which.
    """
    method, request_id = origin
    known = (
        error
        if isinstance(error, CallError)
        else InternalError("the server failed", hint=f"Its log has the trace under the request id {request_id}.")
    )
    code, _ = code_of(known)
    status = status_of(known, request_id)
    fault = code is grpc.StatusCode.INTERNAL
    if isinstance(known, Overloaded):
        # The admission tells of them, together.
        return code, status
    log.event(
        logging.ERROR if fault else logging.INFO,
        "failed" if fault else "refused",
        trace=fault,
        method=method,
        request_id=request_id,
        code=code.name,
        error=str(error) if fault else short(known.message),
        ms=round(deadline.spent * 1000, 3),
        **fields,
    )
    return code, status


def _serialized(response: Any) -> bytes:
    return bytes(response.SerializeToString())
