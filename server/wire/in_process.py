"""The service in the caller's process, for `kithkin.Client.local`: the bytes of the wire, without a socket."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import ValidationError

from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2_grpc, retrieval_service_pb2_grpc
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.holds import Hold
from model_store.layout import MANIFEST
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import MODEL, RETRIEVAL
from server.wire.guard import Guard
from server.wire.local import for_this_process
from server.wire.services import ModelServicer, RetrievalServicer

Metadata = Sequence[tuple[str, str | bytes]]
Answer = tuple[int, str, bytes, Metadata]
"""Number and message of a status, the response's bytes where it is OK, and the trailing metadata."""


def open_service(folder: str | PathLike[str], settings: Mapping[str, Any]) -> LocalService:
    """The service on one bundle, or on the active one of a folder of bundles: the entry point `kithkin.local`.

    ``settings`` are of the section ``[serving]``. Raises ValueError where they do not fit, and what opening and loading
    the bundle raises.
    """
    try:
        serving = for_this_process(ServingSettings.model_validate(dict(settings)))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ValueError(f"settings: {told}") from None
    root = Path(folder)
    bundle = Bundle.load(root) if (root / MANIFEST).is_file() else BundleStore(root).open()
    hold = Hold(bundle.folder)
    try:
        state = State(settings=serving)
        state.take(ServedModel.load(bundle))
        return LocalService(state, hold)
    except BaseException:
        hold.release()
        raise


class LocalService:
    """Answers the bytes of requests as a server does, through its guard and its services, without a socket.

    Any thread may ask; the answers are made in one event loop, in a thread of its own.
    """

    def __init__(self, state: State, hold: Hold) -> None:
        """``hold`` is of the bundle in ``state``, and released with this."""
        self._hold = hold
        self._guard = Guard(state.settings.max_message_bytes)
        _add_services(self._guard, state)
        self._process, self._lock, self._closed = os.getpid(), threading.Lock(), False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kithkin-in-process", daemon=True)
        self._thread.start()

    def answer(self, path: str, request: bytes, timeout: float, metadata: Metadata) -> Future[Answer]:
        """Starts one call; its future holds the status, never an exception. Raises RuntimeError once closed."""
        with self._lock:
            # Under the lock, so that close() finds every call that was begun.
            if self._closed:
                raise RuntimeError("the service in this process is closed")
            call: Coroutine[Any, Any, Answer] = self._answer(path, request, _LocalContext(timeout, metadata))
            return asyncio.run_coroutine_threadsafe(call, self._loop)

    def close(self) -> None:
        """Cancels what runs and ends the thread. Closing twice is fine; in a forked child it does nothing."""
        if os.getpid() != self._process:
            return  # The thread stayed in the parent, and so did the hold on the bundle.
        with self._lock:
            if self._closed:
                return
            self._closed = True

        async def end() -> None:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._hold.release()

    async def _answer(self, path: str, request: bytes, context: _LocalContext) -> Answer:
        handler = self._guard.service(_Head(path))
        if handler is None or handler.unary_unary is None:
            return grpc.StatusCode.UNIMPLEMENTED.value[0], "Method not found!", b"", ()
        respond: Any = handler.unary_unary
        try:
            body = await respond(request, context)
        except grpc.aio.AbortError:
            return context.code, context.message, b"", context.trailers
        return 0, "", body, context.trailers


class _Head(grpc.HandlerCallDetails):
    def __init__(self, method: str) -> None:
        self.method, self.invocation_metadata = method, ()


def _add_services(guard: Guard, state: State) -> None:
    # Generated code carries no types.
    add: Any = retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server
    add(RetrievalServicer(state), guard)
    add = model_service_pb2_grpc.add_ModelServiceServicer_to_server
    add(ModelServicer(state), guard)
    # Its answers stay as they are set here: the bundle is there, and does not change.
    answers: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
    for service in (RETRIEVAL, MODEL):
        answers._server_status[service] = health_pb2.HealthCheckResponse.SERVING
    add = health_pb2_grpc.add_HealthServicer_to_server
    add(answers, guard)


class _LocalContext:
    """As much of gRPC's context as the guard and the services use."""

    def __init__(self, timeout: float, metadata: Metadata) -> None:
        self._timeout, self._metadata = timeout, metadata
        self.code, self.message = 0, ""
        self.trailers: Metadata = ()

    def time_remaining(self) -> float:
        return self._timeout

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def set_trailing_metadata(self, trailers: Metadata) -> None:
        self.trailers = trailers

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self.code, self.message = code.value[0], details
        self.trailers = trailing_metadata or self.trailers
        raise grpc.aio.AbortError
