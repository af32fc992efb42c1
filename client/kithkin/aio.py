"""`AsyncClient`: the calls of a Kithkin server for asyncio, the same as those of `kithkin.client`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc.aio

from kithkin import _calls
from kithkin._calls import Call
from kithkin._connection import Connection
from kithkin._method import dress
from kithkin._translation import translated
from kithkin.errors import KithkinError
from kithkin.queries import Tls

A = TypeVar("A")
P = ParamSpec("P")


def _awaited(build: Callable[P, Call[A]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, A]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return await self._run(build(*args, **kwargs))

    dress(method, build)
    return method


class AsyncClient:
    """Calls a Kithkin server from asyncio; arguments and methods are those of `kithkin.Client`, each call is awaited.

    It may be made anywhere, and belongs to the event loop of its first call. A cancelled task cancels its call on the
    server too. Use it in an ``async with`` block or await `close`.
    """

    similar = _awaited(_calls.similar)
    recommend = _awaited(_calls.recommend)
    similar_batch = _awaited(_calls.similar_batch)
    recommend_batch = _awaited(_calls.recommend_batch)
    users_for = _awaited(_calls.users_for)
    embed = _awaited(_calls.embed)
    explain = _awaited(_calls.explain)
    get = _awaited(_calls.get)
    find = _awaited(_calls.find)
    status = _awaited(_calls.status)
    bundles = _awaited(_calls.bundles)
    activate = _awaited(_calls.activate)
    rollback = _awaited(_calls.rollback)
    health = _awaited(_calls.health)

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
        self._credentials = self._connection.credentials()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._closed = False

    async def close(self) -> None:
        """Closes the connection; calls under way end with `Cancelled`. Closing twice is fine."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<kithkin.AsyncClient {self._connection.target}{' closed' if self._closed else ''}>"

    async def _run(self, call: Call[A]) -> A:
        connection = self._connection
        request_id, metadata = connection.call_metadata(call.request_id)
        tries = connection.policy.start(connection.deadline(call.timeout))
        method = self._method(call.path)
        while True:
            try:
                with translated(connection.target, request_id):
                    payload = await method(call.request, timeout=tries.remaining(), metadata=metadata)
                return call.answer(payload, request_id)
            except KithkinError as error:
                wait = None if call.once else tries.wait_after(error)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    def _method(self, path: str) -> Callable[..., Any]:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        self._connection.check_process()
        loop = asyncio.get_running_loop()
        if self._channel is None:
            # Not before the first call: a channel binds itself to the loop it is made in.
            self._channel, self._loop = self._open(), loop
        elif loop is not self._loop:
            raise RuntimeError("this client belongs to another event loop; make one inside each asyncio.run(...)")
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path, None, None)
        return self._methods[path]

    def _open(self) -> grpc.aio.Channel:
        target, options = self._connection.target, self._connection.options()
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, self._credentials, options=options)
