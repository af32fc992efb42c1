"""`AsyncClient`: the calls of a Kithkin server for asyncio, the same as those of `kithkin.client`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from itertools import chain
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import grpc.aio

from kithkin._calls import batches, entities, operations, search
from kithkin._calls.call import Call, Pages, Split, not_sent
from kithkin._connection import IN_FLIGHT, Connection, Metadata
from kithkin._local import AsyncLocalChannel, open_service
from kithkin._method import dress
from kithkin._stop import stopped
from kithkin._translation import translated
from kithkin.errors import KithkinError
from kithkin.queries import Tls
from kithkin.types import Node

A = TypeVar("A")
P = ParamSpec("P")


def _awaited(build: Callable[P, Call[A]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, A]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return await self._run(build(*args, **kwargs))

    dress(method, build)
    return method


def _in_parts(build: Callable[P, Split[A]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, A]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return await self._run_parts(build(*args, **kwargs))

    dress(method, build)
    return method


def _by_pages(build: Callable[P, Pages]) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[Node]]:
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Node]:
        return self._each(build(*args, **kwargs))

    dress(method, build, "AsyncIterator[Node]")
    return method


class AsyncClient:
    """Calls a Kithkin server from asyncio; arguments and methods are those of `kithkin.Client`, each call is awaited.

    It may be made anywhere, and belongs to the event loop of its first call. A cancelled task cancels its call on the
    server too. ``list_entities`` is for ``async for``. Use it in an ``async with`` block or await `close`.
    """

    similar = _awaited(search.similar)
    recommend = _awaited(search.recommend)
    users_for = _awaited(search.users_for)
    similar_batch = _in_parts(batches.similar_batch)
    recommend_batch = _in_parts(batches.recommend_batch)
    score_pairs = _in_parts(batches.score_pairs)
    embed = _in_parts(entities.embed)
    embed_users = _in_parts(entities.embed_users)
    explain = _awaited(entities.explain)
    get = _awaited(entities.get)
    find = _awaited(entities.find)
    list_entities = _by_pages(entities.list_entities)
    list_entities_page = _awaited(entities.list_entities_page)
    status = _awaited(operations.status)
    bundles = _awaited(operations.bundles)
    activate = _awaited(operations.activate)
    rollback = _awaited(operations.rollback)
    health = _awaited(operations.health)

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
        connection = Connection.create(
            target,
            timeout=timeout,
            retries=retries,
            api_key=api_key,
            tls=tls,
            metadata=metadata,
            insecure=insecure,
        )
        credentials, options = connection.credentials(), connection.options()

        def open_() -> grpc.aio.Channel:
            if credentials is None:
                return grpc.aio.insecure_channel(target, options=options)
            return grpc.aio.secure_channel(target, credentials, options=options)

        self._start(connection, open_)

    @classmethod
    def local(
        cls, bundle: str | PathLike[str], *, timeout: float = 5.0, settings: Mapping[str, Any] | None = None
    ) -> AsyncClient:
        """Answers from a bundle in this process, without a server: the same calls, answers and errors.

        Arguments and errors are those of `kithkin.Client.local`. Opening a bundle reads it, about a second a gigabyte:
        ``await asyncio.to_thread(AsyncClient.local, folder)`` where the event loop must not wait.
        """
        connection = Connection.local(bundle, timeout=timeout)
        client = cls.__new__(cls)
        channel = AsyncLocalChannel(open_service(bundle, settings))
        client._start(connection, lambda: channel)
        client._channel = channel
        return client

    async def close(self) -> None:
        """Closes the connection; calls under way end with `Cancelled`. Closing twice is fine."""
        self._closed = True
        if not self._connection.of_this_process():
            return  # the parent's: neither its threads nor its sockets are to be touched here
        self._closing.set()
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a kithkin.AsyncClient holds a connection and cannot be pickled: make one in each process")

    def _start(self, connection: Connection, open_: Callable[[], Any]) -> None:
        self._connection, self._open = connection, open_
        self._channel: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._closed = False
        self._closing = asyncio.Event()

    async def _run(self, call: Call[A]) -> A:
        request_id, metadata = self._connection.call_metadata(call.request_id)
        timeout = self._connection.deadline(call.timeout)
        self._check()
        return await self._send(call, request_id, metadata, timeout)

    async def _run_parts(self, split: Split[A]) -> A:
        connection = self._connection
        request_id, metadata = connection.call_metadata(split.first.request_id)
        end = time.monotonic() + connection.deadline(split.first.timeout)
        failed: list[KithkinError] = []
        self._check()

        async def part(call: Call[Any]) -> Any:
            left = end - time.monotonic()
            if failed or left <= 0:
                return failed[0] if failed else not_sent(request_id)
            try:
                return await self._send(call, request_id, metadata, left)
            except KithkinError as error:
                if self._closed:
                    raise
                if split.whole:
                    failed.append(error)
                return error

        parts: list[asyncio.Task[Any]] = []
        try:
            under_way: set[asyncio.Task[Any]] = set()
            for call in chain([split.first], split.rest):
                if len(under_way) >= IN_FLIGHT:
                    _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                if failed:
                    break
                if self._closed:
                    raise stopped(request_id)
                parts.append(asyncio.create_task(part(call)))
                under_way.add(parts[-1])
                # The part goes out before the next one is made.
                await asyncio.sleep(0)
            return split.join(await asyncio.gather(*parts))
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _each(self, pages: Pages) -> AsyncIterator[Node]:
        page = await self._run(pages.first)
        for node in page:
            yield node
        while page.next_page_token:
            page = await self._run(pages.following(page.next_page_token))
            for node in page:
                yield node

    async def _send(self, call: Call[A], request_id: str, metadata: Metadata, timeout: float) -> A:
        connection = self._connection
        tries = connection.policy.start(timeout)
        while True:
            if self._closing.is_set():
                raise stopped(request_id)
            try:
                method = self._method(call.path)
                with translated(connection.target, request_id):
                    payload = await method(call.request, timeout=tries.remaining(), metadata=metadata)
            except KithkinError as error:
                if self._closing.is_set():
                    raise stopped(request_id) from error
                pause = None if call.once else tries.wait_after(error)
                if pause is None:
                    raise
                await self._pause(pause)
            except asyncio.CancelledError:
                # Closing cancels gRPC's calls, and they raise what a cancelled task raises.
                task = asyncio.current_task()
                if not self._closing.is_set() or task is None or task.cancelling():
                    raise
                raise stopped(request_id) from None
            except (RuntimeError, grpc.aio.UsageError):
                # What a closed channel says to a call that comes a moment later.
                if self._closing.is_set():
                    raise stopped(request_id) from None
                raise
            else:
                return call.answer(payload, request_id)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        self._connection.check_process()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            # Not before the first call: a channel binds itself to the loop it is made in.
            self._channel, self._loop = self._open(), loop
        elif loop is not self._loop:
            raise RuntimeError("this client belongs to another event loop; make one inside each asyncio.run(...)")

    def _method(self, path: str) -> Callable[..., Any]:
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path, None, None)
        return self._methods[path]
