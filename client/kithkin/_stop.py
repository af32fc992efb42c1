"""What ends calls that are under way in other threads: the client is closed, or a batch is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import grpc

from kithkin.errors import Cancelled


class Stop:
    """One signal to any number of calls: those that run are cancelled, those that wait are woken."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._calls: set[Any] = set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ends all calls; any later one ends at once."""
        self._event.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def wait(self, seconds: float) -> bool:
        """Waits, in place of a sleep; True: it was ended."""
        return self._event.wait(seconds)

    def result(self, start: Callable[..., Any], request: bytes, **options: Any) -> bytes:
        """The answer of a call that `start`, a method's ``future``, begins; raises what the call raises."""
        call = start(request, **options)
        with self._lock:
            self._calls.add(call)
        try:
            if self:
                call.cancel()
            payload: bytes = call.result()
            return payload
        except (grpc.FutureCancelledError, CancelledError):
            raise stopped_call() from None
        finally:
            with self._lock:
                self._calls.discard(call)


class StoppedCall(grpc.RpcError):
    """A call that this side cancelled; speaks like gRPC's own error."""

    def code(self) -> grpc.StatusCode:
        """Its status."""
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        """Its message."""
        return str(self)

    def trailing_metadata(self) -> Any:
        """Nothing came."""
        return ()


def stopped_call() -> StoppedCall:
    """The error of a call that was cancelled here."""
    return StoppedCall("the client was closed")


def stopped(request_id: str) -> Cancelled:
    """The same as a caller sees it."""
    return Cancelled(
        "the client was closed while the call was under way",
        code="CANCELLED",
        hint="Close a client once its calls have ended.",
        request_id=request_id,
    )
