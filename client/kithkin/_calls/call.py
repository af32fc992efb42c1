"""What a call is before it is sent: one request, many parts under one deadline, or pages one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from kithkin.errors import HINT_OF_REASON, DeadlineExceeded, Internal, KithkinError
from kithkin.types import Page

A = TypeVar("A")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One call: where it goes, its request, how to read its answer, and the caller's deadline and request id."""

    path: str
    request: bytes
    read: Callable[[bytes, str], A]
    timeout: float | None
    request_id: str | None
    once: bool = False
    """Never tried again: a second time does something else."""

    def answer(self, payload: bytes, request_id: str) -> A:
        """The answer in `payload`; raises `Internal` where it cannot be read."""
        try:
            return self.read(payload, request_id)
        except KithkinError:
            raise  # an item's own, where the caller wants it raised
        except (DecodeError, ValueError, OverflowError) as error:
            raise Internal(
                f"the answer to {self.path} cannot be read: {error}",
                code="INTERNAL",
                hint=HINT_OF_REASON["UNDECODABLE_REQUEST"],
                request_id=request_id,
            ) from error


@dataclass(frozen=True, slots=True)
class Split(Generic[A]):
    """A call too large for one request: its parts, a few of them sent at once, all under one deadline."""

    first: Call[Any]
    """Its ``timeout`` and ``request_id`` are the caller's, of all parts together."""
    rest: Iterator[Call[Any]]
    """The parts after the first, each made when it is about to be sent: a call may hold more than fits in memory."""
    join: Callable[[Sequence[Any]], A]
    """The answer, from the answer or the error of every part in their order; raises what the caller shall see."""
    whole: bool
    """The first part that fails ends the call, and what has not been sent is not sent."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A listing: the call of each page, by the token of the page before."""

    first: Call[Page]
    following: Callable[[str], Call[Page]]


def call(
    path: str,
    request: Message,
    response: type[M],
    read: Callable[[M, str], A],
    timeout: float | None,
    request_id: str | None,
) -> Call[A]:
    """One call of the method at `path`."""
    # Bytes in and out, parsed here: gRPC's own deserializer answers a broken message with None (async) or a logged
    # traceback (sync).
    return Call(
        f"/{path}",
        request.SerializeToString(),
        lambda payload, sent_id: read(response.FromString(payload), sent_id),
        timeout,
        request_id,
    )


def not_sent(request_id: str) -> KithkinError:
    """The error of a part that is left when the deadline passes."""
    return DeadlineExceeded(
        "the deadline passed before this part of the call was sent",
        code="DEADLINE_EXCEEDED",
        hint="Give the call a longer timeout=...: it is one deadline for all parts.",
        request_id=request_id,
    )
