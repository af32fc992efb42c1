"""The one table from a call's error to its gRPC status, and the status with its details."""

from __future__ import annotations

import random

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from kithkin.v1 import types_pb2
from server import errors

DOMAIN = "kithkin"
RETRY_AFTER_S = {errors.NoBundle: 1.0, errors.ShuttingDown: 0.2, errors.Overloaded: 0.5}
"""When to try again, for errors that pass by themselves."""
_SPREAD: dict[type[errors.CallError], float] = {errors.Overloaded: 0.5}
"""Share of that time by which it varies: callers that were refused together are not to come back together."""
_LONGEST_TEXT, _LONGEST_NAME = 800, 200
"""Bytes of texts in a status: clients drop trailers beyond 8 KiB, and with them the code and every detail."""

_ANY_ID, _TEMPLATES = "\0" * 32, 16
"""Stands for the ids that the server gives, which are as long; no text has it."""

_INVALID = grpc.StatusCode.INVALID_ARGUMENT

STATUS: dict[type[errors.CallError], tuple[grpc.StatusCode, types_pb2.ErrorReason]] = {
    errors.UndecodableRequest: (_INVALID, types_pb2.UNDECODABLE_REQUEST),
    errors.InvalidField: (_INVALID, types_pb2.INVALID_FIELD),
    errors.TopKOutOfRange: (_INVALID, types_pb2.TOP_K_OUT_OF_RANGE),
    errors.WrongDimension: (_INVALID, types_pb2.WRONG_DIMENSION),
    errors.VectorNotFinite: (_INVALID, types_pb2.VECTOR_NOT_FINITE),
    errors.OtherBundle: (grpc.StatusCode.FAILED_PRECONDITION, types_pb2.OTHER_BUNDLE),
    errors.NotDeclared: (_INVALID, types_pb2.NOT_DECLARED),
    errors.NodeNotFound: (grpc.StatusCode.NOT_FOUND, types_pb2.NODE_NOT_FOUND),
    errors.NodeWithoutVector: (grpc.StatusCode.NOT_FOUND, types_pb2.NODE_WITHOUT_VECTOR),
    errors.TypeNeeded: (_INVALID, types_pb2.TYPE_NEEDED),
    errors.NoSuchSpace: (_INVALID, types_pb2.NO_SUCH_SPACE),
    errors.BadPageToken: (_INVALID, types_pb2.BAD_PAGE_TOKEN),
    errors.BundleNotLoaded: (grpc.StatusCode.FAILED_PRECONDITION, types_pb2.BUNDLE_NOT_LOADED),
    errors.NoScorer: (grpc.StatusCode.FAILED_PRECONDITION, types_pb2.NO_SCORER),
    errors.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, types_pb2.OVERLOADED),
    errors.UnauthenticatedCaller: (grpc.StatusCode.UNAUTHENTICATED, types_pb2.UNAUTHENTICATED_CALLER),
    errors.RoleNeeded: (grpc.StatusCode.PERMISSION_DENIED, types_pb2.ROLE_NEEDED),
    errors.NoBundle: (grpc.StatusCode.UNAVAILABLE, types_pb2.NO_BUNDLE),
    errors.ShuttingDown: (grpc.StatusCode.UNAVAILABLE, types_pb2.SHUTTING_DOWN),
    errors.DeadlinePassed: (grpc.StatusCode.DEADLINE_EXCEEDED, types_pb2.DEADLINE),
    errors.MessageTooLarge: (grpc.StatusCode.RESOURCE_EXHAUSTED, types_pb2.MESSAGE_TOO_LARGE),
    errors.InternalError: (grpc.StatusCode.INTERNAL, types_pb2.INTERNAL_ERROR),
    errors.NoSuchBundle: (grpc.StatusCode.NOT_FOUND, types_pb2.BUNDLE_NOT_FOUND),
    errors.BundleRefused: (grpc.StatusCode.FAILED_PRECONDITION, types_pb2.BUNDLE_REFUSED),
    errors.NoPreviousBundle: (grpc.StatusCode.FAILED_PRECONDITION, types_pb2.NO_PREVIOUS_BUNDLE),
    errors.BundlesNotManaged: (grpc.StatusCode.FAILED_PRECONDITION, types_pb2.BUNDLES_NOT_MANAGED),
    errors.ActivationOvertaken: (grpc.StatusCode.ABORTED, types_pb2.ACTIVATION_OVERTAKEN),
}


def code_of(error: errors.CallError) -> tuple[grpc.StatusCode, types_pb2.ErrorReason]:
    """Status code and reason of an error, found by its class."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def reason_of(status: status_pb2.Status) -> str:
    """The name of the reason in a status that ``status_of`` made."""
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return str(info.reason)


def status_of(error: errors.CallError, request_id: str) -> status_pb2.Status:
    """The ``google.rpc.Status`` with every detail the error has."""
    code, reason = code_of(error)
    info = error_details_pb2.ErrorInfo(
        domain=DOMAIN, reason=types_pb2.ErrorReason.Name(reason), metadata={"request_id": request_id}
    )
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=short(error.field, _LONGEST_NAME), description=short(error.description)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.NodeMissing):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=short(error.node_type, _LONGEST_NAME),
                resource_name=short(error.name, _LONGEST_NAME),
                description=short(error.message),
            )
        )
        info.metadata["field"] = short(error.field, _LONGEST_NAME)
    if isinstance(error, errors.NoSuchBundle):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type="Bundle",
                resource_name=short(error.version, _LONGEST_NAME),
                description=short(error.message),
            )
        )
    for kind, seconds in RETRY_AFTER_S.items():
        if isinstance(error, kind):
            delay = duration_pb2.Duration()
            spread = _SPREAD.get(kind, 0.0)
            delay.FromMilliseconds(round(seconds * 1000 * random.uniform(1 - spread, 1 + spread)))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=text_of(error), details=packed)


def text_of(error: errors.CallError) -> str:
    """What a caller reads of an error."""
    return short(f"{error.message}. {error.hint}" if error.hint else error.message)


class Templates:
    """Statuses of an error that thousands of calls are told, made when its text changes, in a tenth of the time."""

    def __init__(self) -> None:
        self._text = ""
        self._made: list[bytes] = []

    def status(self, error: errors.CallError, request_id: str) -> bytes:
        """What ``status_of`` makes, encoded; the errors given to one object differ in their message alone."""
        if len(request_id) != len(_ANY_ID):
            return bytes(status_of(error, request_id).SerializeToString())
        if error.message != self._text:
            # Several, for each says another time to come back.
            self._text = error.message
            self._made = [status_of(error, _ANY_ID).SerializeToString() for _ in range(_TEMPLATES)]
        return random.choice(self._made).replace(_ANY_ID.encode(), request_id.encode(), 1)


def short(text: str, most: int = _LONGEST_TEXT) -> str:
    """The text, cut to ``most`` bytes of UTF-8: requests may name things by megabytes."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore") + "..."
