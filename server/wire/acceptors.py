"""Takes the calls of a service out of gRPC's core many at a time.

grpc.aio asks its core for one call at a time, and each costs two changes of thread before the next is asked for; the
others wait in the core, where nobody counts them. Asked for many, the core hands over together what has come: the
admission sees it, and a call costs half the processor time within gRPC. What are too many are ended here, by one
message and without a task that waits for their cancellation: a third of what it costs to answer them. What does this in
grpc.aio is not part of its interface, so where a version lacks it, calls are taken one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from server.wire.guard import Guard

TOGETHER = 512
"""Calls of a method that the core may hand over at once: several times what a turn of the loop answers, so that the
admission sees what there is. With 32 a flood waits in the core; with 4 a call costs a quarter more."""
_NEEDED = (
    "ExecuteBatchError",
    "SendInitialMetadataOperation",
    "_MethodResolver",
    "_RequestCallError",
    "_ServicerContext",
    "_handle_rpc",
    "_schedule_rpc_coro",
    "_send_error_status_from_server",
)


class Acceptors:
    """Those of one service on one ``grpc.aio`` server; make it before the server starts."""

    def __init__(self, server: Any, service: str, guard: Guard) -> None:
        """``guard`` has the service's methods."""
        handlers = guard.methods(service)
        # The core keeps calls of each such method for those who ask for that method.
        server.add_registered_method_handlers(service, handlers)
        self._server, self._guard = server, guard
        self._handlers = {f"/{service}/{name}": handler for name, handler in handlers.items()}
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
        resolver = cygrpc._MethodResolver([], self._handlers)
        for method in self._handlers:
            for _ in range(TOGETHER):
                self._keep(self._accept(core, resolver, method))
        return True

    async def _accept(self, core: Any, resolver: Any, method: str) -> None:
        """As the loop of grpc.aio does, until the server stops."""
        loop, name = asyncio.get_running_loop(), method.encode()
        while core.is_running():
            try:
                call = await core._request_registered_call(name)
            except cygrpc._RequestCallError:
                # The server stops, or that call went away.
                continue
            if self._guard.full:
                self._keep(self._refuse(call, method, loop))
                # A stream counts against its connection's until nobody holds the call: not until the next one comes.
                del call
                continue
            self._guard.come()
            answered = cygrpc._handle_rpc(method, resolver, (), call, loop, False)
            self._keep(cygrpc._schedule_rpc_coro(answered, call, loop, method))
            del answered, call

    async def _refuse(self, call: Any, method: str, loop: asyncio.AbstractEventLoop) -> None:
        code, text, trailers = self._guard.refused(method, cygrpc._ServicerContext(call, None, None, loop))
        head = cygrpc.SendInitialMetadataOperation(None, 0)
        # The caller may have gone.
        with contextlib.suppress(cygrpc.ExecuteBatchError):
            await cygrpc._send_error_status_from_server(call, code.value[0], text, trailers, head, loop)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it; the loop itself holds no reference to a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
