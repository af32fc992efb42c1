"""The process that serves: loads a bundle, answers from it, takes up another without a pause, drains when told.

Started by the supervisor as ``python -m server.worker`` with an ``Order``. It is told what to do by lines of JSON on
standard input (``{"load": version}``, ``{"refused_bundle": reason}``, ``{"drain": true}``); the end of that input means
that the supervisor is gone, and stops it too. It answers by lines of JSON (``Message``) on the descriptor it was given.

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
from server import log

if TYPE_CHECKING:
    from server.model import ServedModel
    from server.state import State


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
    refused_bundle: str = ""
    json_log: bool = False
    log_level: int = logging.INFO
    messages_to: int = 1
    """File descriptor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What a worker tells the supervisor."""

    kind: Literal["tested", "serving", "refused", "failed"]
    """tested: a trial went well; serving: calls are answered from this bundle (or from none yet); refused: the bundle
    is at fault, what served before serves on; failed: the worker cannot serve any (the port, say)."""
    version: str | None
    reason: str = ""


def main() -> int:
    """Run one worker from the order in the first argument; returns the process's exit code."""
    order = Order(**json.loads(sys.argv[1]))
    log.set_up(json_lines=order.json_log, level=order.log_level)
    # Ctrl-C reaches the whole process group; the supervisor hears it and tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from model_store.bundle_store import BundleStore
    from server.errors import StartError
    from server.state import State

    settings = ServingSettings.model_validate(order.settings)
    state = State(settings=settings, store=BundleStore(Path(order.root)), refused_bundle=order.refused_bundle)
    if order.version is not None:
        model = _load(order, order.version)
        if model is None:
            return 0
        if order.trial:
            _tell(order, Message(kind="tested", version=order.version))
            return 0
        state.take(model)
        # Or this frame would keep it for as long as the process lives.
        del model
        _settle()
    try:
        _run(_serve(order, state))
    except StartError as error:
        _tell(order, Message(kind="failed", version=order.version, reason=str(error)))
    return 0


def _load(order: Order, version: str) -> ServedModel | None:
    """The bundle, loaded and tested; None where it is refused, which the supervisor has then been told."""
    from model_store.bundle_store import BundleStore
    from model_store.errors import ModelStoreError
    from server.errors import ServerError
    from server.model import ServedModel

    try:
        return ServedModel.load(BundleStore(Path(order.root)).open(version))
    except Exception as error:
        # Whatever is wrong with a bundle, the one before serves on.
        if isinstance(error, ModelStoreError | ServerError):
            reason = f"{error.message}. {error.hint}"
        else:
            reason = f"{type(error).__name__}: {error}"
            log.event(logging.ERROR, "bundle cannot be loaded", trace=True, bundle=version)
        _tell(order, Message(kind="refused", version=version, reason=f"{version}: {reason}"))
        return None


async def _serve(order: Order, state: State) -> None:
    from server.application import Application

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    application = Application(state)
    await application.start(order.host, order.port)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    _tell(order, Message(kind="serving", version=order.version))

    async def obey() -> None:
        try:
            while line := await orders.readline():
                told = json.loads(line)
                if "refused_bundle" in told:
                    state.refuse(told["refused_bundle"])
                if "load" in told:
                    model = await asyncio.to_thread(_load, order, told["load"])
                    if model is not None:
                        await application.take(model)
                        _tell(order, Message(kind="serving", version=model.version))
                        del model
                        _settle()
                if told.get("drain"):
                    break
        except BrokenPipeError:
            log.event(logging.ERROR, "the supervisor is gone")
        finally:
            # Whatever ended it, nobody could stop this process from here on.
            stop.set()

    listening = asyncio.create_task(obey())
    await stop.wait()
    log.event(logging.INFO, "draining")
    await application.drain()
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening


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
