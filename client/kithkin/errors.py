"""Errors of calls: one class per kind of failure, one table from gRPC status to class.

KithkinError                       every failed call: message, hint, code, reason, request_id
├── InvalidArgument   (ValueError)        the request is wrong; `violations` name the fields
├── NotFound          (LookupError)       no such node, or nothing is known of it: `resource_type`, `resource_name`
├── FailedPrecondition                    right in itself, not now: a vector of another bundle, say
├── Aborted                               lost against another change; do the whole thing again
├── Unauthenticated                       no API key, or a wrong one
├── PermissionDenied                      the key does not allow this call
├── ResourceExhausted                     too much at once, or a message too large: `retry_after`
├── Unavailable       (ConnectionError)   nobody answered, or no bundle is loaded yet: `retry_after`
├── DeadlineExceeded  (TimeoutError)      the call's deadline passed
├── Cancelled                             the call was cancelled on the way
├── Unimplemented                         the server does not know this call
└── Internal                              the server's fault, or an answer that cannot be read

An argument that is wrong whatever the server would say raises plain TypeError or ValueError before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that the server refuses, by its path in the protos, such as ``top_k``."""

    field: str
    description: str


class KithkinError(Exception):
    """A call that failed.

    ``code`` is the name of the gRPC status (``NOT_FOUND``), ``reason`` the name in ``kithkin.v1.ErrorReason``
    (``NODE_NOT_FOUND``; empty where the error does not come from a Kithkin server), ``details`` the metadata of its
    ``ErrorInfo``, ``retry_after`` what the server asks to wait, in seconds, ``hint`` what to do, ``request_id`` what to
    look for in the server's log.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        hint: str = "",
        request_id: str = "",
        details: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        resource_type: str = "",
        resource_name: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.hint = hint
        self.request_id = request_id
        self.details: dict[str, str] = dict(details or {})
        self.violations = tuple(violations)
        self.resource_type = resource_type
        self.resource_name = resource_name
        self.retry_after = retry_after

    def __str__(self) -> str:
        lines = [self.message or "the server gave no message"]
        lines += [f"  {v.field}: {v.description}" for v in self.violations if v.description not in self.message]
        if self.hint:
            lines.append(f"  {self.hint}")
        lines.append(
            f"  [{', '.join(filter(None, (self.code, self.reason, self.request_id and f'request {self.request_id}')))}]"
        )
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive Exception's own way of pickling, and errors travel between processes.
        return _restore, (type(self), dict(self.__dict__))


def _restore(kind: type[KithkinError], state: dict[str, Any]) -> KithkinError:
    return kind(**state)


class InvalidArgument(KithkinError, ValueError):
    """The request is wrong; ``violations`` name the fields."""


class NotFound(KithkinError, LookupError):
    """No such node, or nothing is known of it to answer from; ``resource_type`` and ``resource_name`` say which."""


class FailedPrecondition(KithkinError):
    """The request is right in itself but does not fit the server's present state."""


class Aborted(KithkinError):
    """The call lost against another change; do the whole thing again."""


class Unauthenticated(KithkinError):
    """The server wants an API key, and got none or a wrong one."""


class PermissionDenied(KithkinError):
    """The API key does not allow this call."""


class ResourceExhausted(KithkinError):
    """Too much at once, or a message larger than the server or the client takes."""


class Unavailable(KithkinError, ConnectionError):
    """Nobody answered, or the server has no bundle yet or is stopping; worth another try later."""


class DeadlineExceeded(KithkinError, TimeoutError):
    """The call's deadline passed before an answer came."""


class Cancelled(KithkinError):
    """The call was cancelled on the way, by the server or because the client was closed."""


class Unimplemented(KithkinError):
    """The server does not know this call."""


class Internal(KithkinError):
    """The server's fault, or an answer that cannot be read."""


ERROR_OF_STATUS: dict[str, type[KithkinError]] = {
    "ABORTED": Aborted,
    "ALREADY_EXISTS": FailedPrecondition,
    "CANCELLED": Cancelled,
    "DATA_LOSS": Internal,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "FAILED_PRECONDITION": FailedPrecondition,
    "INTERNAL": Internal,
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "OUT_OF_RANGE": InvalidArgument,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNAUTHENTICATED": Unauthenticated,
    "UNAVAILABLE": Unavailable,
    "UNIMPLEMENTED": Unimplemented,
    "UNKNOWN": Internal,
}
"""The class for every gRPC status but OK."""

HINT_OF_REASON: dict[str, str] = {
    "ACTIVATION_OVERTAKEN": "client.status() tells which bundle serves.",
    "BAD_PAGE_TOKEN": "Begin the listing again: a token is good for the same type, filter and name only.",
    "BUNDLES_NOT_MANAGED": "",
    "BUNDLE_NOT_FOUND": "client.bundles() lists the versions there are.",
    "BUNDLE_NOT_LOADED": "client.status() tells which bundle answers; without bundle_version=... it is that one.",
    "BUNDLE_REFUSED": "",
    "DEADLINE": "Give the call a longer timeout=..., or ask for less (top_k, reasons).",
    "INTERNAL_ERROR": "",
    "INVALID_FIELD": "",
    "MESSAGE_TOO_LARGE": "",
    "NODE_NOT_FOUND": "client.find(name) looks ids up by name.",
    "NODE_WITHOUT_VECTOR": "similar(described=...) takes what you know of it; recommend(...) takes fallback='popular'.",
    "NOT_DECLARED": "",
    "NO_BUNDLE": "",
    "NO_SCORER": "Without score='neural' the vectors answer.",
    "NO_SUCH_SPACE": "client.status() lists the spaces and the node types each of them holds.",
    "NO_PREVIOUS_BUNDLE": "client.bundles() lists the versions there are, client.activate(version) takes any of them.",
    "OTHER_BUNDLE": "Vectors and page tokens are good until the next bundle: embed again, begin the listing again.",
    "OVERLOADED": "Call less often, or ask for less in one call.",
    "ROLE_NEEDED": "This call needs another API key.",
    "SHUTTING_DOWN": "",
    "TOP_K_OUT_OF_RANGE": "",
    "TYPE_NEEDED": "Say which type is meant: type='...', target_type='...' or ('Type', 'id').",
    "UNAUTHENTICATED_CALLER": "Pass the server's key: Client(..., api_key=...).",
    "UNDECODABLE_REQUEST": "Client and server speak different versions of the protocol: install matching ones.",
    "VECTOR_NOT_FINITE": "",
    "WRONG_DIMENSION": "client.status() gives the dimension of each space; client.embed(...) gives vectors that fit.",
}
"""What to do in Python about each reason of ``kithkin.v1.ErrorReason``; empty: the server's message says it all."""

HINT_OF_PHRASE: dict[str, str] = {
    "CERTIFICATE_VERIFY_FAILED": "The server's certificate is of an authority not trusted here: tls=Tls(ca='its.pem').",
    "Hostname Verification": "The server's certificate is for another name than {target}: tls=Tls(server_name='...').",
    "WRONG_VERSION_NUMBER": "The server at {target} speaks without TLS: leave tls=... out.",
}
"""What to do about a failed connection that gRPC describes with this phrase."""

HINT_OF_STATUS: dict[str, str] = {
    "DEADLINE_EXCEEDED": "Give the call a longer timeout=..., or see whether the server is overloaded.",
    "PERMISSION_DENIED": "This call needs another API key.",
    "RESOURCE_EXHAUSTED": "Call less often, or ask for less in one call.",
    "UNAUTHENTICATED": "Pass the server's key: Client(..., api_key=...).",
    "UNAVAILABLE": "Is `kithkin serve` running at {target}, and is the port right? "
    "A server with TLS wants Client(..., tls=True).",
    "UNIMPLEMENTED": "At {target} answers something older than this client, or no Kithkin at all.",
}
"""What to do about a status that came without a reason we know; ``{target}`` is where the client calls."""
