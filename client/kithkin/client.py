"""`Client`: the calls of a Kithkin server, blocking. `kithkin.aio` has the same for asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc

from kithkin import _calls
from kithkin._calls import Call
from kithkin._connection import Connection
from kithkin._method import dress
from kithkin._translation import translated
from kithkin.errors import KithkinError
from kithkin.queries import Tls

A = TypeVar("A")
P = ParamSpec("P")


def _blocking(build: Callable[P, Call[A]]) -> Callable[Concatenate[Client, P], A]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return self._run(build(*args, **kwargs))

    dress(method, build)
    return method


class Client:
    """Calls a Kithkin server.

    A client holds one connection, made with the first call. Threads may share it, processes may not: make one in each
    child after forking. Use it in a ``with`` block or call `close`.

    Args:
        target: ``host:port``, or any of gRPC's own names (``dns:///...``, ``unix:...``).
        timeout: Seconds each call may take, retries and waits included.
        retries: Tries after the first, where the server is unavailable or overloaded.
        api_key: The server's key, sent as ``authorization: Bearer``.
        tls: True for TLS with the usual authorities, `Tls` for your own certificates.
        metadata: Further headers of every call.
        insecure: Allow an API key without TLS to another machine.

    Every call takes ``timeout`` (seconds, else the client's) and ``request_id`` (else a fresh one). It raises a
    `kithkin.KithkinError` where it fails, TypeError or ValueError where an argument is wrong.
    """

    similar = _blocking(_calls.similar)
    recommend = _blocking(_calls.recommend)
    similar_batch = _blocking(_calls.similar_batch)
    recommend_batch = _blocking(_calls.recommend_batch)
    users_for = _blocking(_calls.users_for)
    embed = _blocking(_calls.embed)
    explain = _blocking(_calls.explain)
    get = _blocking(_calls.get)
    find = _blocking(_calls.find)
    status = _blocking(_calls.status)
    bundles = _blocking(_calls.bundles)
    activate = _blocking(_calls.activate)
    rollback = _blocking(_calls.rollback)
    health = _blocking(_calls.health)

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        timeout: float = 5.0,
        retries: int = 3,
        api_key: str | None = None,
        tls: Tls | bool = False,
        metadata: Mapping[str, str] | None = None,
        insecure: bool = False,
    ) -> None:
        self._connection = Connection.create(
            target,
            timeout=timeout,
            retries=retries,
            api_key=api_key,
            tls=tls,
            metadata=metadata,
            insecure=insecure,
        )
        credentials, options = self._connection.credentials(), self._connection.options()
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=options)
        self._methods: dict[str, Callable[..., Any]] = {}
        self._closed = False

    def close(self) -> None:
        """Closes the connection; calls under way end with `Cancelled`. Closing twice is fine."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kithkin.Client {self._connection.target}{' closed' if self._closed else ''}>"

    def _run(self, call: Call[A]) -> A:
        connection = self._connection
        request_id, metadata = connection.call_metadata(call.request_id)
        tries = connection.policy.start(connection.deadline(call.timeout))
        method = self._method(call.path)
        while True:
            try:
                with translated(connection.target, request_id):
                    payload = method(call.request, timeout=tries.remaining(), metadata=metadata)
                return call.answer(payload, request_id)
            except KithkinError as error:
                wait = None if call.once else tries.wait_after(error)
                if wait is None:
                    raise
            time.sleep(wait)

    def _method(self, path: str) -> Callable[..., Any]:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        self._connection.check_process()
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path, None, None)
        return self._methods[path]
