"""gRPC's errors, with their `google.rpc` details, to the errors of `kithkin.errors`: one context manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from kithkin.errors import (
    ERROR_OF_STATUS,
    HINT_OF_PHRASE,
    HINT_OF_REASON,
    HINT_OF_STATUS,
    FieldViolation,
    KithkinError,
)

REQUEST_ID = "x-request-id"
_DETAILS = "grpc-status-details-bin"
_DOMAIN = "kithkin"
_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


@contextmanager
def translated(target: str, request_id: str) -> Iterator[None]:
    """Raises the `KithkinError` for any gRPC error of the block."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, target, request_id) from error


def from_rpc_error(error: Any, target: str, request_id: str) -> KithkinError:
    """The error for a failed call, sync or async: both kinds have code(), details() and trailing_metadata()."""
    code = error.code() or grpc.StatusCode.UNKNOWN
    trailers = list(error.trailing_metadata() or ())
    echoed = next((value for key, value in trailers if key == REQUEST_ID), request_id)
    return _error(code.name, error.details() or "", _details(trailers), target, str(echoed))


def from_status(status: status_pb2.Status, request_id: str) -> KithkinError:
    """The error for one item of a batch."""
    code = _CODES.get(status.code, "UNKNOWN")
    return _error(code, status.message, _unpacked(status), "the server", request_id)


def _error(code: str, message: str, details: Iterator[Message], target: str, request_id: str) -> KithkinError:
    fields: dict[str, Any] = {}
    for detail in details:
        if isinstance(detail, error_details_pb2.ErrorInfo):
            fields["details"] = dict(detail.metadata)
            # A proxy's reasons are not ours, even where the words are the same.
            fields["reason"] = detail.reason if detail.domain in (_DOMAIN, "") else f"{detail.domain}/{detail.reason}"
        elif isinstance(detail, error_details_pb2.BadRequest):
            fields["violations"] = [FieldViolation(v.field, v.description) for v in detail.field_violations]
        elif isinstance(detail, error_details_pb2.ResourceInfo):
            fields["resource_type"] = detail.resource_type
            fields["resource_name"] = detail.resource_name
        elif isinstance(detail, error_details_pb2.RetryInfo):
            fields["retry_after"] = detail.retry_delay.ToTimedelta().total_seconds()
    hint = HINT_OF_REASON.get(fields.get("reason", ""))
    if hint is None:
        hint = _hint(code, message).format(target=target)
    return ERROR_OF_STATUS.get(code, KithkinError)(message, code=code, hint=hint, request_id=request_id, **fields)


def _hint(code: str, message: str) -> str:
    # For a connection that failed gRPC gives one status and no details: only its words tell one cause from another.
    if code == "UNAVAILABLE":
        for phrase, hint in HINT_OF_PHRASE.items():
            if phrase in message:
                return hint
    return HINT_OF_STATUS.get(code, "")


def _details(trailers: list[tuple[str, str | bytes]]) -> Iterator[Message]:
    for key, value in trailers:
        if key != _DETAILS:
            continue
        # grpc_status.rpc_status.from_call raises where anything does not fit together; a call that failed has failed
        # all the same, so take what can be read.
        try:
            status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
        except DecodeError:
            continue
        yield from _unpacked(status)


def _unpacked(status: status_pb2.Status) -> Iterator[Message]:
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.ResourceInfo,
            error_details_pb2.RetryInfo,
        ):
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                try:
                    detail.Unpack(message)
                except DecodeError:
                    break
                yield message
                break
