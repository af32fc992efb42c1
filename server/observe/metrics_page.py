"""The page that Prometheus reads: of one worker, or of all of them together."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graph_store.settings import ServingSettings
from server.errors import StartError
from server.observe import log

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of the environment that names the folder of the workers' numbers; prometheus-client reads it when it is
imported, so that it must be there before a worker starts."""


@contextmanager
def page_of(registry: CollectorRegistry, settings: ServingSettings) -> Iterator[int]:
    """Serve a registry over HTTP while the block runs, from a thread; yields the port. Raises StartError."""
    from prometheus_client import start_http_server

    assert settings.metrics_port is not None
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise StartError(
            f"cannot show metrics on {host}:{port}: {error.strerror}",
            hint="Choose another serving.metrics_port or serving.metrics_host.",
        ) from None
    bound: int = server.server_port
    log.event(logging.INFO, "metrics", host=host, port=bound)
    try:
        yield bound
    finally:
        # At the end of an interpreter its threads are gone, and nobody would hear of the shutdown.
        if thread.is_alive():
            server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def page_of_workers(settings: ServingSettings) -> Iterator[int | None]:
    """Show the sum of all workers that are started while the block runs; yields the port, None: no metrics wanted.

    For the process that starts them. Numbers of a worker that has ended stay in the sums (a counter never falls);
    ``forget`` takes away what it was doing at the moment.
    """
    if settings.metrics_port is None:
        yield None
        return
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    with tempfile.TemporaryDirectory(prefix="kithkin-metrics-", ignore_cleanup_errors=True) as folder:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        with page_of(registry, settings) as port:
            os.environ[FOLDER] = folder
            try:
                yield port
            finally:
                del os.environ[FOLDER]


def forget(process_id: int) -> None:
    """A worker has ended: its gauges are no more. For the process that started it."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    from prometheus_client.multiprocess import mark_process_dead

    with contextlib.suppress(OSError):
        mark_process_dead(process_id, folder)  # type: ignore[no-untyped-call]


def shown_elsewhere() -> bool:
    """Whether this process's numbers are shown by the one that started it."""
    return FOLDER in os.environ
