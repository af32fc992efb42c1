"""Takes the calls of a service out of gRPC's core many at a time.

grpc.aio asks its core for one call at a time, and each costs two changes of thread before the next is asked for; the
others wait in the core, where nobody counts them. Asked for many, the core hands over together what has come: the
admission sees it, and a call costs half the processor time within gRPC. What does this in grpc.aio is not part of its
interface, so where a version lacks it, calls are taken one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from server.wire.guard import Guard

TOGETHER = 32
"""Calls of a method that the core may hand over at once; with 4 a call costs a quarter more."""
_NEEDED = ("_MethodResolver", "_RequestCallError", "_handle_rpc", "_schedule_rpc_coro")


class Acceptors:
    """Those of one service on one ``grpc.aio`` server; make it before the server starts."""

    def __init__(self, server: Any, service: str, guard: Guard) -> None:
        """``guard`` has the service's methods."""
        handlers = guard.methods(service)
        # The core keeps calls of each such method for those who ask for that method.
        server.add_registered_method_handlers(service, handlers)
        self._server, self._guard = server, guard
        self._handlers = {f"/{service}/{name}": handler for name, handler in handlers.items()}
        self._refusing = {f"/{service}/{name}": handler for name, handler in guard.refusing(service).items()}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether calls are taken many at a time."""
        return bool(self._tasks)

    def start(self) -> bool:
        """Ask for more calls, once the server has started; False: it has not, or this version of gRPC cannot."""
        core: Any = getattr(self._server, "_server", None)
        if not hasattr(core, "_request_registered_call") or not all(hasattr(cygrpc, name) for name in _NEEDED):
            return False
        if not core.is_running():
            return False
        answering, refusing = (cygrpc._MethodResolver([], each) for each in (self._handlers, self._refusing))
        for method in self._handlers:
            for _ in range(TOGETHER):
                self._keep(self._accept(core, answering, refusing, method))
        return True

    async def _accept(self, core: Any, answering: Any, refusing: Any, method: str) -> None:
        """As the loop of grpc.aio does, until the server stops."""
        loop, name = asyncio.get_running_loop(), method.encode()
        while core.is_running():
            try:
                call = await core._request_registered_call(name)
            except cygrpc._RequestCallError:
                # The server stops, or that call went away.
                continue
            resolver = refusing if self._guard.full else answering
            answered = cygrpc._handle_rpc(method, resolver, (), call, loop, False)
            self._keep(cygrpc._schedule_rpc_coro(answered, call, loop, method))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it; the loop itself holds no reference to a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
