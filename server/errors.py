"""Errors of the server, each saying what to do; ``server/wire/status.py`` gives each call's error its gRPC status.

ServerError
├── StartError              the server cannot start: the port is taken, a setting does not fit
├── SelfTestFailed          a bundle was loaded and does not answer; the one before serves on
└── CallError               a call cannot be answered
    ├── UndecodableRequest  its bytes are not the call's message
    ├── InvalidField        a field is missing, out of range, or contradicts another
    │   ├── TopKOutOfRange
    │   ├── WrongDimension
    │   ├── VectorNotFinite a value is NaN or infinite, or all are zeros under cosine
    │   ├── NotDeclared     a node type, relation or property that the graph does not declare
    │   ├── TypeNeeded      several types are possible
    │   ├── NoSuchSpace     not in the bundle, or it does not hold the type
    │   └── BadPageToken    of another listing, or of none
    ├── OtherBundle         a vector of another bundle, or a page of one that is gone
    ├── BundleNotLoaded     the request names a bundle that is not loaded
    ├── NodeMissing
    │   ├── NodeNotFound    no such node
    │   └── NodeWithoutVector  nothing is known of the node
    ├── NoSuchBundle        none of that version
    ├── BundleRefused       damaged, of another release, or it does not answer
    ├── NoPreviousBundle    nothing to roll back to
    ├── BundlesNotManaged   this server serves the one bundle it was given
    ├── ActivationOvertaken another bundle was activated meanwhile
    ├── NoScorer            the bundle has no neural scorer, or none that reads the query
    ├── Overloaded          as many calls are in work as may be
    ├── UnauthenticatedCaller  no API key, or one that is not known
    ├── RoleNeeded          the key's role does not include the call
    ├── NoBundle            none is loaded yet
    ├── ShuttingDown        the server is stopping
    ├── DeadlinePassed
    ├── MessageTooLarge
    └── InternalError       a fault of ours; the log has the request id
"""

from __future__ import annotations


class ServerError(Exception):
    """Base of every error this package raises on purpose.

    ``hint`` says what to do about it, in one sentence; ``exit_code`` is what the command line ends with.
    """

    exit_code = 7

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class StartError(ServerError):
    """The server cannot start."""


class SelfTestFailed(ServerError):
    """A bundle was loaded, and a query against it did not give what it must."""


class CallError(ServerError):
    """A call cannot be answered."""


class UndecodableRequest(CallError):
    """The request's bytes are not the call's message."""


class InvalidField(CallError):
    """A field of the request is wrong; ``field`` is its path, such as ``query.vector.values``."""

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}", hint=hint)
        self.field = field
        self.description = message


class TopKOutOfRange(InvalidField):
    """``top_k`` is below 1 or above the limit."""


class WrongDimension(InvalidField):
    """A vector with the wrong number of values."""


class VectorNotFinite(InvalidField):
    """A vector with a value that is NaN or infinite, or all zeros under cosine."""


class NotDeclared(InvalidField):
    """A name that the graph does not declare."""


class TypeNeeded(InvalidField):
    """Several node types are possible, and none was named."""


class NoSuchSpace(InvalidField):
    """The space is not in the bundle, or does not hold the type, or cannot encode it."""


class BadPageToken(InvalidField):
    """The page token is not one of this call and these parameters."""


class OtherBundle(CallError):
    """A vector of another bundle than the one that answers, or a listing that began in one."""


class BundleNotLoaded(CallError):
    """The request names a bundle that this server has not loaded."""


class NodeMissing(CallError):
    """A node that cannot be answered for; ``field`` is the path of its reference in the request."""

    def __init__(self, field: str, node_type: str, name: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field, self.node_type, self.name = field, node_type, name


class NodeNotFound(NodeMissing):
    """No such node."""


class NodeWithoutVector(NodeMissing):
    """The node is there, but nothing is known of it to make a vector from."""


class NoSuchBundle(CallError):
    """No bundle of that version."""

    def __init__(self, version: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.version = version


class BundleRefused(CallError):
    """The bundle cannot serve; what served before serves on."""


class NoPreviousBundle(CallError):
    """There is no bundle to roll back to."""


class BundlesNotManaged(CallError):
    """The server serves one bundle that it was given, and knows no other."""


class ActivationOvertaken(CallError):
    """Another bundle was activated before this one served."""


class NoScorer(CallError):
    """The bundle has no neural scorer, or none that reads this query."""


class Overloaded(CallError):
    """As many calls are in work or waiting as may be, or as can be answered before this one's deadline."""


class UnauthenticatedCaller(CallError):
    """No API key was sent, or one that is not known."""


class RoleNeeded(CallError):
    """The key is known, and its role does not include the call."""


class NoBundle(CallError):
    """No bundle is loaded yet."""


class ShuttingDown(CallError):
    """The server is stopping."""


class DeadlinePassed(CallError):
    """The call's deadline passed before the answer was there."""


class MessageTooLarge(CallError):
    """The message is larger than the server takes."""


class InternalError(CallError):
    """A fault of ours."""
