"""The service in this process, for the command line and for tests: a real server on a loopback port, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graph_store.serving_settings import ImpressionSettings, TlsSettings
from graph_store.settings import ServingSettings
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore


@contextmanager
def serve_in_thread(
    bundle: Bundle | None,
    settings: ServingSettings,
    *,
    store: BundleStore | None = None,
    beside: Sequence[Bundle] = (),
) -> Iterator[int]:
    """Serve a bundle (None: none yet) on any free loopback port while the block runs; yields the port.

    ``store``: what ListBundles lists; nothing follows what is activated in it. ``beside``: bundles that
    ``settings.beside`` names, for requests that do.

    Raises what loading the bundle raises.
    """
    from server.model.served_model import ServedModel
    from server.processes.state import State
    from server.wire.application import Application

    state = State(settings=for_this_process(settings), store=store)
    if bundle is not None:
        state.take(ServedModel.load(bundle))
    for each in beside:
        state.take_beside(ServedModel.load(each))
    started: list[int | BaseException] = []
    ready, stop = threading.Event(), threading.Event()

    async def run() -> None:
        application = Application(state, with_keys=False)
        try:
            started.append(await application.start("127.0.0.1", 0))
        except BaseException as error:
            started.append(error)
            raise
        finally:
            ready.set()
        await asyncio.to_thread(stop.wait)
        await application.drain(notice=0)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="kithkin-local", daemon=True)
    thread.start()
    ready.wait()
    if isinstance(started[0], BaseException):
        thread.join()
        raise started[0]
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join()


def for_this_process(settings: ServingSettings) -> ServingSettings:
    """The settings as far as they concern this process alone: nobody else calls, and nothing is recorded."""
    return settings.model_copy(
        update={
            "drain_s": min(settings.drain_s, 1.0),
            "tls": TlsSettings(),
            "admin_port": None,
            "metrics_port": None,
            "impressions": ImpressionSettings(),
        }
    )
