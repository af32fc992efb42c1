"""`Client`: the calls of a Kithkin server, blocking. `kithkin.aio` has the same for asyncio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import grpc

from kithkin._calls import batches, entities, operations, search
from kithkin._calls.call import Call, Pages, Split, not_sent
from kithkin._connection import IN_FLIGHT, Connection, Metadata
from kithkin._local import LocalChannel, open_service
from kithkin._method import dress
from kithkin._stop import Stop, stopped
from kithkin._translation import translated
from kithkin.errors import KithkinError
from kithkin.queries import Tls
from kithkin.types import Node

A = TypeVar("A")
P = ParamSpec("P")


def _blocking(build: Callable[P, Call[A]]) -> Callable[Concatenate[Client, P], A]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return self._run(build(*args, **kwargs))

    dress(method, build)
    return method


def _in_parts(build: Callable[P, Split[A]]) -> Callable[Concatenate[Client, P], A]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return self._run_parts(build(*args, **kwargs))

    dress(method, build)
    return method


def _by_pages(build: Callable[P, Pages]) -> Callable[Concatenate[Client, P], Iterator[Node]]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Node]:
        return self._each(build(*args, **kwargs))

    dress(method, build, "Iterator[Node]")
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

    similar = _blocking(search.similar)
    recommend = _blocking(search.recommend)
    users_for = _blocking(search.users_for)
    similar_batch = _in_parts(batches.similar_batch)
    recommend_batch = _in_parts(batches.recommend_batch)
    score_pairs = _in_parts(batches.score_pairs)
    embed = _in_parts(entities.embed)
    embed_users = _in_parts(entities.embed_users)
    explain = _blocking(entities.explain)
    get = _blocking(entities.get)
    find = _blocking(entities.find)
    list_entities = _by_pages(entities.list_entities)
    list_entities_page = _blocking(entities.list_entities_page)
    status = _blocking(operations.status)
    bundles = _blocking(operations.bundles)
    activate = _blocking(operations.activate)
    rollback = _blocking(operations.rollback)
    health = _blocking(operations.health)

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
        if credentials is None:
            channel = grpc.insecure_channel(target, options=options)
        else:
            channel = grpc.secure_channel(target, credentials, options=options)
        self._start(connection, channel)

    @classmethod
    def local(
        cls, bundle: str | PathLike[str], *, timeout: float = 5.0, settings: Mapping[str, Any] | None = None
    ) -> Client:
        """Answers from a bundle in this process, without a server: the same calls, answers and errors.

        Args:
            bundle: Folder of a bundle, or a folder of bundles (``.kithkin/models``), of which the active one is taken.
            timeout: Seconds each call may take.
            settings: Of the section ``[serving]`` of kithkin.toml, such as ``{"max_top_k": 50}``.

        Needs the distribution ``kithkin-service``; raises ImportError where it is not installed, and its errors where
        the bundle cannot be opened.
        """
        connection = Connection.local(bundle, timeout=timeout)
        client = cls.__new__(cls)
        client._start(connection, LocalChannel(open_service(bundle, settings)))
        return client

    def close(self) -> None:
        """Closes the connection; calls under way end with `Cancelled`. Closing twice is fine."""
        self._closed = True
        if not self._connection.of_this_process():
            return  # the parent's: neither its threads nor its sockets are to be touched here
        with self._lock:
            stops = [self._closing, *self._stops]
        for stop in stops:
            stop.set()
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kithkin.Client {self._connection.target}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a kithkin.Client holds a connection and cannot be pickled: make one in each process")

    def _start(self, connection: Connection, channel: Any) -> None:
        self._connection, self._channel = connection, channel
        self._methods: dict[str, Any] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._closing = Stop()
        self._stops: set[Stop] = set()

    def _run(self, call: Call[A]) -> A:
        request_id, metadata = self._connection.call_metadata(call.request_id)
        timeout = self._connection.deadline(call.timeout)
        self._check()
        return self._send(call, request_id, metadata, timeout, self._closing)

    def _run_parts(self, split: Split[A]) -> A:
        connection = self._connection
        request_id, metadata = connection.call_metadata(split.first.request_id)
        end = time.monotonic() + connection.deadline(split.first.timeout)
        failed: list[KithkinError] = []
        stop = Stop()
        self._check()

        def part(call: Call[Any], stop: Stop) -> Any:
            left = end - time.monotonic()
            if failed or left <= 0:
                return failed[0] if failed else not_sent(request_id)
            try:
                return self._send(call, request_id, metadata, left, stop)
            except KithkinError as error:
                if stop:
                    raise
                if split.whole:
                    failed.append(error)
                return error

        second = next(split.rest, None)
        if second is None:
            return split.join([part(split.first, self._closing)])
        with self._stopped_with(stop), ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="kithkin-part") as pool:
            parts: list[Future[Any]] = []
            try:
                under_way: set[Future[Any]] = set()
                for call in chain([split.first, second], split.rest):
                    if len(under_way) >= IN_FLIGHT:
                        under_way = wait(under_way, return_when=FIRST_COMPLETED).not_done
                    if failed:
                        break
                    if stop:
                        raise stopped(request_id)
                    parts.append(pool.submit(part, call, stop))
                    under_way.add(parts[-1])
                return split.join([each.result() for each in parts])
            except BaseException:
                # Ctrl-C, an item that is no item: what is under way is for nobody.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @contextmanager
    def _stopped_with(self, stop: Stop) -> Iterator[None]:
        """Closing the client ends what `stop` ends."""
        with self._lock:
            self._stops.add(stop)
        try:
            if self._closed:
                stop.set()
            yield
        finally:
            with self._lock:
                self._stops.discard(stop)

    def _each(self, pages: Pages) -> Iterator[Node]:
        page = self._run(pages.first)
        yield from page
        while page.next_page_token:
            page = self._run(pages.following(page.next_page_token))
            yield from page

    def _send(self, call: Call[A], request_id: str, metadata: Metadata, timeout: float, stop: Stop) -> A:
        connection = self._connection
        tries = connection.policy.start(timeout)
        while True:
            if stop:
                raise stopped(request_id)
            options = {"timeout": tries.remaining(), "metadata": metadata}
            try:
                method = self._method(call.path)
                with translated(connection.target, request_id):
                    if stop is self._closing:
                        payload = method(call.request, **options)
                    else:
                        payload = stop.result(method.future, call.request, **options)
            except KithkinError as error:
                if stop:
                    raise stopped(request_id) from error
                pause = None if call.once else tries.wait_after(error)
                if pause is None:
                    raise
                if stop.wait(pause):
                    raise stopped(request_id) from error
            except (RuntimeError, ValueError):
                # What a closed channel says to a call that comes a moment later.
                if stop or self._closed:
                    raise stopped(request_id) from None
                raise
            else:
                return call.answer(payload, request_id)

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        self._connection.check_process()

    def _method(self, path: str) -> Any:
        with self._lock:
            if path not in self._methods:
                self._methods[path] = self._channel.unary_unary(path, None, None)
            return self._methods[path]
