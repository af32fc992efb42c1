"""The process that serves: loads a bundle, answers from it, takes up another without a pause, drains when told.

Started by the supervisor as ``python -m server.processes.worker`` with an ``Order``. It is told what to do by lines of
JSON on standard input (``{"load": version}``, ``{"beside": version}``, ``{"refused_bundle": reason}``, ``{"fleet":
fields}``, ``{"ping": true}``, ``{"drain": true}``); the end of that input means that the supervisor is gone, and stops
it too. It answers by lines of JSON (``Message``) on the descriptor it was given.

A trial is the same without serving: it loads a bundle, tests it and ends, so that a bundle that would bring a process
down brings down that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graph_store.settings import ServingSettings
from server.observe import log

if TYPE_CHECKING:
    from server.model.served_model import ServedModel
    from server.processes.state import State
    from server.wire.application import Application


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the supervisor starts a worker with."""

    root: str
    """Folder of the bundles."""
    version: str | None
    """The bundle to serve; None: none yet."""
    trial: bool = False
    """Load and test the bundle, tell, and end."""
    host: str
    port: int
    settings: dict[str, Any]
    beside: tuple[str, ...] = ()
    """Further bundles to load before it serves; their trials went well."""
    refused_bundle: str = ""
    json_log: bool = False
    log_level: int = logging.INFO
    messages_to: int = 1
    """File descriptor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What a worker tells the supervisor."""

    kind: Literal["loading", "tested", "serving", "refused", "failed", "pong"]
    """loading: it has started and loads its first bundle, so that its end is the bundle's fault from now on; tested: a
    trial went well; serving: calls are answered from this bundle (or from none yet); refused: the bundle is at fault,
    what served before serves on; failed: the worker cannot serve any (the port, say); pong: its event loop turns."""
    version: str | None = None
    reason: str = ""


def main() -> int:
    """Run one worker from the order in the first argument; returns the process's exit code."""
    order = Order(**json.loads(sys.argv[1]))
    log.set_up(json_lines=order.json_log, level=order.log_level)
    # Ctrl-C reaches the whole process group; the supervisor hears it and tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # All of it now: what is not installed is no fault of the bundle.
    import server.wire.application  # noqa: F401
    from model_store.bundle_store import BundleStore
    from server.errors import StartError
    from server.processes.state import Fleet, State

    settings = ServingSettings.model_validate(order.settings)
    state = State(
        settings=settings,
        store=BundleStore(Path(order.root)),
        refused_bundle=order.refused_bundle,
        fleet=Fleet(workers=settings.workers),
    )
    if order.version is not None:
        _tell(order, Message(kind="loading", version=order.version))
        model = _load(order, order.version)
        if model is None:
            return 0
        if order.trial:
            _tell(order, Message(kind="tested", version=order.version))
            return 0
        state.take(model)
        # Or this frame would keep it for as long as the process lives.
        del model
    for version in order.beside:
        _load_beside(order, state, version)
    _settle()
    try:
        _run(_serve(order, state))
    except StartError as error:
        _tell(order, Message(kind="failed", version=order.version, reason=str(error)))
    return 0


def _load(order: Order, version: str, *, beside: bool = False) -> ServedModel | None:
    """The bundle, loaded and tested; None where it is refused, which the supervisor has then been told."""
    from model_store.bundle_store import BundleStore
    from model_store.errors import ModelStoreError
    from server.errors import ServerError
    from server.model.served_model import ServedModel

    try:
        return ServedModel.load(BundleStore(Path(order.root)).open(version))
    except Exception as error:
        # Whatever is wrong with a bundle, the one before serves on.
        if isinstance(error, ModelStoreError | ServerError):
            reason = f"{error.message}. {error.hint}"
        else:
            reason = f"{type(error).__name__}: {error}"
            log.event(logging.ERROR, "bundle cannot be loaded", trace=True, bundle=version)
        if beside:
            log.event(logging.ERROR, "bundle beside refused", reason=f"{version}: {reason}")
        else:
            _tell(order, Message(kind="refused", version=version, reason=f"{version}: {reason}"))
        return None


def _load_beside(order: Order, state: State, version: str) -> None:
    model = _load(order, version, beside=True)
    if model is not None:
        state.take_beside(model)
        log.event(logging.INFO, "loaded beside", bundle=version)


class _Orders:
    """Does what the supervisor tells, until it tells to drain or is gone."""

    def __init__(self, order: Order, state: State, application: Application, stop: asyncio.Event) -> None:
        self._order, self._state, self._application, self._stop = order, state, application, stop
        self._one_at_a_time = asyncio.Lock()
        self._loading: set[asyncio.Task[None]] = set()

    async def follow(self, lines: asyncio.StreamReader) -> None:
        try:
            while line := await lines.readline():
                told = json.loads(line)
                if told.get("drain"):
                    break
                self._obey(told)
        except BrokenPipeError:
            log.event(logging.ERROR, "the supervisor is gone")
        finally:
            # Whatever ended it, nobody could stop this process from here on.
            self._stop.set()

    def _obey(self, told: dict[str, Any]) -> None:
        from server.processes.state import Fleet

        if "refused_bundle" in told:
            self._state.refuse(told["refused_bundle"])
        if "fleet" in told:
            self._state.hear(Fleet(**told["fleet"]))
        if "ping" in told:
            _tell(self._order, Message(kind="pong"))
        # Loading goes on beside this: who loads still hears and answers.
        if "load" in told:
            self._begin(self._load(told["load"]))
        if "beside" in told:
            self._begin(self._load_beside(told["beside"]))

    def _begin(self, loading: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loading)
        self._loading.add(task)
        task.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.event(logging.ERROR, "cannot take up a bundle", error=repr(task.exception()))
            self._stop.set()

    async def _load(self, version: str) -> None:
        async with self._one_at_a_time:
            model = await asyncio.to_thread(_load, self._order, version)
            if model is None:
                return
            await self._application.take(model)
            _tell(self._order, Message(kind="serving", version=version))
            del model
            _settle()

    async def _load_beside(self, version: str) -> None:
        async with self._one_at_a_time:
            await asyncio.to_thread(_load_beside, self._order, self._state, version)
            _settle()


async def _serve(order: Order, state: State) -> None:
    from server.wire.application import Application

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    application = Application(state)
    await application.start(order.host, order.port)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    _tell(order, Message(kind="serving", version=order.version))
    tasks = [asyncio.create_task(_Orders(order, state, application, stop).follow(lines))]
    if state.settings.follow_s is not None:
        from server.fresh.delta_watch import DeltaWatch

        tasks.append(asyncio.create_task(DeltaWatch(Path(order.root), state, application.take).run()))
    await stop.wait()
    log.event(logging.INFO, "draining")
    await application.drain()
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _settle() -> None:
    """Free the bundle before, then set what is loaded apart: no later collection walks it in the middle of a call."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def _tell(order: Order, message: Message) -> None:
    os.write(order.messages_to, (json.dumps(asdict(message)) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
