"""The service in this process in place of a channel: found by its entry point, asked with the bytes of the wire.

The group `kithkin.local` holds one entry point, which the distribution `kithkin-service` provides: a function that
takes a folder and settings and returns a `LocalService`. This package never imports the service by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from importlib.metadata import entry_points
from os import PathLike
from typing import Any, Protocol

import grpc

from kithkin._stop import stopped_call

GROUP = "kithkin.local"
Metadata = Sequence[tuple[str, str | bytes]]


class LocalService(Protocol):
    """What the entry point's function returns."""

    def answer(self, path: str, request: bytes, timeout: float, metadata: Metadata) -> Future[LocalAnswer]:
        """Starts one call, such as ``/kithkin.v1.RetrievalService/GetEntity``; its future never holds an exception."""
        ...

    def close(self) -> None:
        """Ends what runs; closing twice is fine."""
        ...


LocalAnswer = tuple[int, str, bytes, Metadata]
"""Number and message of the gRPC status, the response's bytes where it is OK, and the trailing metadata."""


class LocalError(grpc.RpcError):
    """A call that failed in this process; speaks like gRPC's own error."""

    def __init__(self, code: grpc.StatusCode, message: str, trailers: Metadata = ()) -> None:
        super().__init__(message)
        self._code, self._message, self._trailers = code, message, trailers

    def code(self) -> grpc.StatusCode:
        """Its status."""
        return self._code

    def details(self) -> str:
        """Its message."""
        return self._message

    def trailing_metadata(self) -> Any:
        """Where the `google.rpc` details are."""
        return self._trailers


class LocalMethod:
    """As much of `grpc.UnaryUnaryMultiCallable` as a client uses."""

    def __init__(self, service: LocalService, path: str) -> None:
        self._service, self._path = service, path

    def __call__(self, request: bytes, timeout: float, metadata: Metadata) -> bytes:
        """The answer."""
        return self.future(request, timeout, metadata).result()

    def future(self, request: bytes, timeout: float, metadata: Metadata) -> LocalCall:
        """Starts a call."""
        return LocalCall(self._service.answer(self._path, request, timeout, metadata), timeout)


class LocalCall:
    """A call under way."""

    def __init__(self, future: Future[LocalAnswer], timeout: float) -> None:
        self._future, self._timeout = future, timeout

    def cancel(self) -> bool:
        """Ends it."""
        return self._future.cancel()

    def result(self) -> bytes:
        """Waits for the answer."""
        try:
            return _payload(self._future.result(self._timeout))
        except TimeoutError:
            self._future.cancel()
            raise _late() from None
        except CancelledError:
            raise stopped_call() from None
        except BaseException:
            self._future.cancel()
            raise


class LocalChannel:
    """As much of `grpc.Channel` as a client uses."""

    def __init__(self, service: LocalService) -> None:
        self._service = service

    def unary_unary(self, path: str, *_: Any) -> LocalMethod:
        """A method that answers bytes with bytes."""
        return LocalMethod(self._service, path)

    def close(self) -> None:
        """Ends the service."""
        self._service.close()


class AsyncLocalChannel:
    """As much of `grpc.aio.Channel` as a client uses."""

    def __init__(self, service: LocalService) -> None:
        self._service = service

    def unary_unary(self, path: str, *_: Any) -> Callable[..., Coroutine[Any, Any, bytes]]:
        """A method that answers bytes with bytes."""

        async def method(request: bytes, timeout: float, metadata: Metadata) -> bytes:
            future = self._service.answer(path, request, timeout, metadata)
            try:
                return _payload(await asyncio.wait_for(asyncio.wrap_future(future), timeout))
            except TimeoutError:
                raise _late() from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise stopped_call() from None

        return method

    async def close(self, grace: float | None = None) -> None:
        """Ends the service."""
        await asyncio.to_thread(self._service.close)


def open_service(folder: str | PathLike[str], settings: Mapping[str, Any] | None) -> LocalService:
    """The service on a bundle; raises ImportError where it is not installed, and what opening the bundle raises."""
    found = list(entry_points(group=GROUP))
    if not found:
        raise ImportError(
            "a local client needs the service in the same environment: install the distribution kithkin-service with "
            "its extra `serve` (pip install 'kithkin-service[serve]'), or call a server: Client('localhost:50051')"
        )
    try:
        start = found[0].load()
    except ImportError as error:
        raise ImportError(
            f"the service is installed, but not all it needs to answer ({error}): pip install 'kithkin-service[serve]'"
        ) from error
    service: LocalService = start(folder, dict(settings or {}))
    return service


def _payload(answer: LocalAnswer) -> bytes:
    number, message, payload, trailers = answer
    if number:
        code = next((code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.UNKNOWN)
        raise LocalError(code, message, trailers)
    return payload


def _late() -> LocalError:
    return LocalError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
