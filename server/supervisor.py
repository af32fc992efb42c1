"""``kithkin serve``: keeps a worker answering from the active bundle, whatever happens to bundles and workers.

The supervisor uses no gRPC and loads no bundle. It holds the port (bound, not listening, with ``SO_REUSEPORT`` beside
the worker that listens, so that nobody takes it while a worker is replaced), watches ``ACTIVE``, has each newly named
bundle tried by a process of its own, and only then taken up by the worker, between two calls. What is refused changes
nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from graph_store.settings import ServingSettings
from model_store import layout
from model_store.bundle_store import BundleStore
from model_store.durable import replace_text
from server import log
from server.errors import StartError
from server.worker import Message, Order
from server.worker_process import WorkerProcess

_POLL_S = 0.5
_STEADY_S = 60.0
"""A worker that ran so long did not die of starting: the back-off begins anew."""
_LONGEST_BACK_OFF_S = 30.0
_LONGEST_TRIAL_S = 900.0
"""A trial that takes longer hangs; while it runs no other bundle is looked at."""
_GRACE_S = 5.0
"""Given to a worker beyond ``drain_s`` before it is killed."""


def serve(
    root: Path,
    settings: ServingSettings,
    *,
    port_file: Path | None = None,
    json_log: bool = False,
    log_level: int = logging.INFO,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Serve the active bundle of ``root`` until SIGTERM or SIGINT; returns the process's exit code.

    ``announce`` is told one line whenever another bundle serves (default: printed). ``port_file`` gets the port once
    the server answers. Raises StartError where the port cannot be had.
    """
    log.set_up(json_lines=json_log, level=log_level)
    supervisor = Supervisor(
        root,
        settings,
        port_file=port_file,
        json_log=json_log,
        log_level=log_level,
        announce=announce or _print,
    )
    return supervisor.run()


class Supervisor:
    """One worker, and now and then a trial beside it."""

    def __init__(
        self,
        root: Path,
        settings: ServingSettings,
        *,
        port_file: Path | None = None,
        json_log: bool = False,
        log_level: int = logging.INFO,
        announce: Callable[[str], None],
    ) -> None:
        self._store = BundleStore(root)
        self._settings = settings
        self._port_file = port_file
        self._json_log, self._log_level = json_log, log_level
        self._announce = announce
        self._worker: WorkerProcess | None = None
        self._serving = False
        """Whether the worker has told that it serves."""
        self._trial: WorkerProcess | None = None
        self._seen: tuple[str | None, int] | None = None
        self._taking_up: str | None = None
        """The bundle that the worker was told to load and has not told of since."""
        self._good: str | None = None
        """The bundle that served last, to start again where its worker dies."""
        self._refused = ""
        self._deaths = 0
        self._restart_at = 0.0
        self._stopping = False
        self._port = 0

    def run(self) -> int:
        """Supervise until told to stop."""
        if self._port_file is not None and not self._port_file.absolute().parent.is_dir():
            raise StartError(f"no folder for the port file {self._port_file}", hint="Make it, or choose another file.")
        reserved = _reserve(self._settings.host, self._settings.port)
        # Not before the port is ours: the file may be that of the server which has it.
        self._clear_port_file()
        self._port = reserved.getsockname()[1]
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        before_wakeup = signal.set_wakeup_fd(wake_write)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stopping:
                self._look()
                self._wait(wake_read)
                self._listen()
            self._end()
        finally:
            for process in self._all():
                process.kill()
                process.close()
            signal.set_wakeup_fd(before_wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for descriptor in (wake_read, wake_write):
                os.close(descriptor)
            reserved.close()
            self._clear_port_file()
        log.event(logging.INFO, "stopped")
        return 0

    def _look(self) -> None:
        """Start what is missing: a worker, or a trial of a newly named bundle."""
        if self._trial is not None and time.monotonic() - self._trial.started > _LONGEST_TRIAL_S:
            self._trial.kill()
        if self._trial is not None or time.monotonic() < self._restart_at:
            return
        token = self._token()
        version = token[0]
        news = token != self._seen and version is not None
        if self._worker is None:
            self._seen = token
            self._serving = False
            self._worker = self._start(version if news else self._good)
        elif self._serving and news:
            self._seen = token
            self._trial = self._start(version, trial=True)

    def _start(self, version: str | None, *, trial: bool = False) -> WorkerProcess:
        log.event(logging.INFO, "trying" if trial else "starting", bundle=version)
        return WorkerProcess(
            Order(
                root=str(self._store.root.absolute()),
                version=version,
                trial=trial,
                host=self._settings.host,
                port=self._port,
                settings=self._settings.model_dump(mode="json"),
                refused_bundle=self._refused,
                json_log=self._json_log,
                log_level=self._log_level,
            )
        )

    def _listen(self) -> None:
        """Hear what the processes told, and see which have ended."""
        for process in self._all():
            # Asked in this order, the messages are all there are if it has ended.
            ended = process.exit_code
            for message in process.read():
                self._hear(process, message)
            if ended is None:
                continue
            process.close()
            if process is self._trial:
                self._trial = None
                if not process.told:
                    self._refuse(process.version, f"{process.version}: loading it ended a process by {_ending(ended)}")
            elif process is self._worker:
                self._worker = None
                self._died(process, ended)

    def _hear(self, process: WorkerProcess, message: Message) -> None:
        match message.kind:
            case "tested":
                if self._worker is not None and message.version is not None:
                    self._taking_up = message.version
                    self._worker.load(message.version)
            case "serving":
                process.version = self._good = message.version
                self._serving, self._taking_up = True, None
                if self._refused and self._seen is not None and message.version == self._seen[0]:
                    self._refused = ""
                    process.refuse("")
                self._tell()
            case "refused":
                self._taking_up = None
                self._refuse(message.version, message.reason)
            case "failed":
                raise StartError(message.reason)

    def _refuse(self, version: str | None, reason: str) -> None:
        self._refused = reason
        log.event(logging.ERROR, "bundle refused", reason=reason, serving=self._good)
        if version == self._good:
            # What served is damaged by now: better to say so than to try for ever.
            self._good = None
        if self._worker is not None and self._serving:
            self._worker.refuse(reason)

    def _died(self, worker: WorkerProcess, ended: int) -> None:
        """Start again what served, after a pause that doubles while it keeps dying."""
        if not self._serving and worker.told:
            # It refused its bundle and ended, as it should.
            return
        loading = self._taking_up if self._serving else worker.version
        if loading is not None:
            self._taking_up = None
            self._refuse(loading, f"{loading}: loading it ended a process by {_ending(ended)}")
        lived = time.monotonic() - worker.started
        self._deaths = 0 if lived > _STEADY_S else self._deaths + 1
        pause = min(0.25 * 2**self._deaths, _LONGEST_BACK_OFF_S) if self._deaths > 1 else 0.0
        log.event(logging.ERROR, "worker died", bundle=worker.version, ending=_ending(ended), restart_in_s=pause)
        self._restart_at = time.monotonic() + pause

    def _tell(self) -> None:
        place = f"{self._settings.host}:{self._port}"
        if self._good is None:
            self._announce(f"waiting for a bundle on {place} (`kithkin build` publishes one)")
        else:
            self._announce(f"serving {self._good} on {place}")
        log.event(logging.INFO, "serving", bundle=self._good, host=self._settings.host, port=self._port)
        if self._port_file is not None:
            replace_text(self._port_file, f"{self._port}\n")

    def _clear_port_file(self) -> None:
        """Who waits for the file must not read the port of a server that has ended."""
        if self._port_file is not None:
            with contextlib.suppress(OSError):
                self._port_file.unlink()

    def _wait(self, wake: int) -> None:
        """Sleep until a worker speaks or ends, a signal comes, or it is time to look again."""
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            for process in self._all():
                selector.register(process.messages, selectors.EVENT_READ)
            selector.select(_POLL_S)
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)

    def _end(self) -> None:
        if self._trial is not None:
            self._trial.kill()
        if self._worker is not None:
            self._worker.drain()
        end = time.monotonic() + self._settings.drain_s + _GRACE_S
        while time.monotonic() < end and any(each.exit_code is None for each in self._all()):
            time.sleep(0.02)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            # Told twice: at once.
            for process in self._all():
                process.kill()
        self._stopping = True

    def _all(self) -> list[WorkerProcess]:
        return [each for each in (self._trial, self._worker) if each is not None]

    def _token(self) -> tuple[str | None, int]:
        """What ACTIVE says and when it was last written: a bundle activated again is looked at again."""
        try:
            return self._store.active(), (self._store.root / layout.ACTIVE).stat().st_mtime_ns
        except FileNotFoundError:
            return None, 0
        except OSError as error:
            # A disk that does not answer for a moment is no reason to stop what serves.
            log.event(logging.ERROR, "ACTIVE cannot be read", error=str(error))
            return self._seen or (None, 0)


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port without listening, beside which workers listen with ``SO_REUSEPORT``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise StartError(f"serving.host {host!r} is no address: {error}", hint="Give a name or an address.") from None
    # Once without sharing: another program's port, also another Kithkin's, must not be shared by accident.
    # SO_REUSEADDR passes over connections that have just ended, and over whoever has it too and does not listen: the
    # port that is held goes without where it can, so that it is seen before its worker listens.
    reuse, share = socket.SO_REUSEADDR, socket.SO_REUSEPORT
    for options in ((reuse,), (share,), (reuse, share)):
        held = socket.socket(family, kind, protocol)
        try:
            for option in options:
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(address)
        except OSError as error:
            held.close()
            if options == (share,):
                continue
            raise StartError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="Stop what holds the port, or choose another with --port (0: any free one).",
            ) from None
        if share in options:
            break
        address = held.getsockname()
        held.close()
    return held


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
