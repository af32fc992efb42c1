"""``kithkin serve``: keeps workers answering from the active bundle, whatever happens to bundles and workers.

The supervisor uses no gRPC and loads no bundle. It holds the port (bound, not listening, with ``SO_REUSEPORT`` beside
the workers that listen, so that nobody takes it while one is replaced), watches ``ACTIVE``, has each newly named
bundle tried by a process of its own, and only then taken up by the workers, one after the other, each between two
calls. What is refused changes nothing.
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
from model_store.bundle_store import BundleStore
from model_store.durable import replace_text
from server.errors import StartError
from server.fresh.follower import FollowOrder
from server.fresh.follower_process import FollowerProcess
from server.observe import log
from server.observe.metrics_page import forget, page_of_workers
from server.processes.fleet import Fleet
from server.processes.port import reserve
from server.processes.quarantine import Quarantine
from server.processes.slot import Slot
from server.processes.uses import Uses
from server.processes.worker import Message, Order
from server.processes.worker_process import WorkerProcess

_POLL_S = 0.5
_TRY_AGAIN_S = 5.0
"""After a trial could not be started (no memory, no descriptors)."""
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
    follow: FollowOrder | None = None,
) -> int:
    """Serve the active bundle of ``root`` until SIGTERM or SIGINT; returns the process's exit code.

    ``announce`` is told one line whenever another bundle serves (default: printed). ``port_file`` gets the port once
    the server answers. ``follow``: how the graph store is followed (None: it is not). Raises StartError where the port
    cannot be had.
    """
    log.set_up(json_lines=json_log, level=log_level)
    supervisor = Supervisor(
        root,
        settings,
        port_file=port_file,
        json_log=json_log,
        log_level=log_level,
        announce=announce or _print,
        follow=follow,
    )
    return supervisor.run()


class Supervisor:
    """The workers, and now and then a trial beside them."""

    def __init__(
        self,
        root: Path,
        settings: ServingSettings,
        *,
        port_file: Path | None = None,
        json_log: bool = False,
        log_level: int = logging.INFO,
        announce: Callable[[str], None],
        follow: FollowOrder | None = None,
    ) -> None:
        self._store = BundleStore(root)
        self._settings = settings
        self._port_file = port_file
        self._json_log, self._log_level = json_log, log_level
        self._announce = announce
        self._fleet = Fleet(
            settings.workers, start=self._start, candidate=self._candidate, refused=self._refuse, settled=self._tell
        )
        self._trial: WorkerProcess | None = None
        self._try_at = 0.0
        self._trying_beside = False
        """Whether the trial is of a bundle to be loaded beside the one that serves."""
        self._quarantine = Quarantine(root)
        self._uses = Uses(self._store)
        self._follower = None if follow is None else FollowerProcess(follow)
        shadowed = () if settings.shadow is None else (settings.shadow.version,)
        self._untried = list(dict.fromkeys((*settings.beside, *shadowed)))
        """Bundles to be loaded beside the one that serves, each after a trial of its own."""
        self._beside: list[str] = []
        """Those whose trial went well."""
        self._seen: tuple[str | None, int] | None = None
        """What ACTIVE said when it was last followed."""
        self._refused = ""
        self._told: object = None
        self._stopping = False
        self._port = 0

    def run(self) -> int:
        """Supervise until told to stop."""
        if self._port_file is not None and not self._port_file.absolute().parent.is_dir():
            raise StartError(f"no folder for the port file {self._port_file}", hint="Make it, or choose another file.")
        reserved = self._reserve()
        # Not before the port is ours: the file may be that of the server which has it.
        self._clear_port_file()
        self._port = reserved[0].getsockname()[1]
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        before_wakeup = signal.set_wakeup_fd(wake_write)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            # The workers' numbers, those of ended ones included, are shown by the process that outlives them.
            with page_of_workers(self._settings):
                while not self._stopping:
                    self._look()
                    self._wait(wake_read)
                    self._listen()
                self._end()
        finally:
            if self._follower is not None:
                self._follower.stop()
            for process in self._all():
                process.kill()
                process.close()
            signal.set_wakeup_fd(before_wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for descriptor in (wake_read, wake_write):
                os.close(descriptor)
            for each in reserved:
                each.close()
            self._uses.keep(())
            self._clear_port_file()
        log.event(logging.INFO, "stopped")
        return 0

    def _reserve(self) -> list[socket.socket]:
        """Sockets that hold the server's ports, those of ``serving.port`` first. Raises StartError."""
        host, port, admin = self._settings.host, self._settings.port, self._settings.admin_port
        # First: where the other is any free one, it must not be this.
        inside = [] if admin is None else reserve(host, admin, setting="serving.admin_port")
        try:
            return [*reserve(host, port), *inside]
        except StartError:
            for each in inside:
                each.close()
            raise

    def _look(self) -> None:
        """Start what is missing: workers, or a trial of a newly named bundle."""
        self._hold()
        if self._trial is not None and time.monotonic() - self._trial.started > _LONGEST_TRIAL_S:
            self._trial.kill()
        for slot in self._fleet.slots:
            slot.look_after(self._settings.hang_s)
        self._fleet.fill()
        if self._follower is not None:
            self._follower.look_after(self._fleet.good)
        rests = self._trial is not None or time.monotonic() < self._try_at
        if not rests and self._fleet.target is None and self._fleet.serving:
            token = self._token()
            if token != self._seen and token[0] is not None:
                self._seen = token if self._try(token[0], beside=False) else self._seen
            elif self._untried and self._fleet.good is not None:
                self._try(self._untried[0], beside=True)
        self._hold()

    def _hold(self) -> None:
        """Keep what is served, or about to be, from being pruned."""
        workers = [slot.version for slot in self._fleet.slots]
        trial = self._trial.version if self._trial is not None else None
        used = (self._fleet.good, self._fleet.target, trial, *workers, *self._beside, *self._untried)
        self._uses.keep(version for version in used if version is not None)

    def _candidate(self) -> str | None:
        """What to serve where no bundle is known to be good: the active one, or the newest that was not refused."""
        self._seen = active, written = self._token()
        if active is None:
            return None
        refused = self._quarantine.reasons(written)
        if active in refused and not self._refused:
            self._refused = refused[active]
            log.event(logging.ERROR, "the active bundle was refused before", reason=self._refused)
        versions = (active, *reversed(self._store.versions()))
        return next((version for version in versions if version not in refused), None)

    def _start(self, version: str | None) -> WorkerProcess:
        log.event(logging.INFO, "starting", bundle=version)
        return WorkerProcess(self._order(version, beside=tuple(self._beside)))

    def _try(self, version: str, *, beside: bool) -> bool:
        log.event(logging.INFO, "trying", bundle=version, beside=beside)
        try:
            self._trial = WorkerProcess(self._order(version, trial=True))
        except OSError as error:
            log.event(logging.ERROR, "a trial cannot be started", error=str(error), again_in_s=_TRY_AGAIN_S)
            self._try_at = time.monotonic() + _TRY_AGAIN_S
            return False
        self._trying_beside = beside
        return True

    def _order(self, version: str | None, *, trial: bool = False, beside: tuple[str, ...] = ()) -> Order:
        return Order(
            root=str(self._store.root.absolute()),
            version=version,
            trial=trial,
            host=self._settings.host,
            port=self._port,
            settings=self._settings.model_dump(mode="json"),
            beside=beside,
            refused_bundle=self._refused,
            json_log=self._json_log,
            log_level=self._log_level,
        )

    def _listen(self) -> None:
        """Hear what the processes told, and see which have ended."""
        if self._trial is not None:
            self._listen_to_trial(self._trial)
        for slot in self._fleet.slots:
            if slot.process is not None:
                self._listen_to_worker(slot, slot.process)
        self._tell_fleet()

    def _listen_to_trial(self, trial: WorkerProcess) -> None:
        # Asked in this order, the messages are all there are if it has ended.
        ended = trial.exit_code
        version = trial.version or ""
        for message in trial.read():
            self._tried(version, message)
        if ended is None:
            return
        trial.close()
        self._trial = None
        if not trial.told:
            how = "loading it ended a process" if trial.loading else "its trial could not start, ended"
            reason = f"{version}: {how} by {_ending(ended)}"
            outcome = Message(kind="refused", version=version, reason=reason)
            self._tried(version, outcome, blamed=trial.loading)

    def _tried(self, version: str, outcome: Message, *, blamed: bool = True) -> None:
        """What came of a trial; ``blamed``: by the bundle's fault."""
        whole = outcome.kind == "tested"
        if self._trying_beside:
            self._untried.remove(version)
            if whole:
                self._beside.append(version)
                for slot in self._fleet.slots:
                    if slot.process is not None:
                        slot.process.load_beside(version)
            else:
                log.event(logging.ERROR, "bundle beside refused", reason=outcome.reason)
        elif whole:
            self._fleet.change_over(version)
        else:
            self._refuse(version, outcome.reason, blamed=blamed)

    def _listen_to_worker(self, slot: Slot, worker: WorkerProcess) -> None:
        ended = worker.exit_code
        for message in worker.read():
            match message.kind:
                case "serving":
                    self._fleet.served(slot, message.version)
                case "refused":
                    self._fleet.refused(slot, message.version or "", message.reason)
                case "failed":
                    if not self._fleet.serving:
                        raise StartError(message.reason)
                    self._fleet.failed(slot, message.reason)
                case _:
                    slot.pong()
        if ended is not None:
            worker.close()
            forget(worker.pid)
            self._fleet.died(slot, _ending(ended))

    def _refuse(self, version: str, reason: str, *, blamed: bool = True) -> None:
        self._refused = reason
        log.event(logging.ERROR, "bundle refused", reason=reason, serving=self._fleet.good)
        if blamed:
            self._quarantine.add(version, reason, self._written)
        self._tell_refusal()

    def _tell_refusal(self) -> None:
        for slot in self._fleet.serving:
            assert slot.process is not None
            slot.process.refuse(self._refused)

    def _tell_fleet(self) -> None:
        """Whatever has changed of it."""
        fleet = self._fleet
        pids = [slot.process.pid for slot in fleet.serving if slot.process is not None]
        news = (pids, fleet.count(), fleet.everywhere, self._written)
        if news != self._told:
            self._told = news
            fleet.tell(self._written)

    def _tell(self) -> None:
        """All workers that run serve what they should."""
        good = self._fleet.good
        if self._refused and self._seen is not None and good == self._seen[0]:
            self._refused = ""
            self._tell_refusal()
        place = f"{self._settings.host}:{self._port}"
        serving, workers = len(self._fleet.serving), self._settings.workers
        which = f" ({serving} of {workers} workers)" if workers > 1 else ""
        if good is None:
            self._announce(f"waiting for a bundle on {place} (`kithkin build` publishes one)")
        else:
            self._announce(f"serving {good} on {place}{which}")
        log.event(logging.INFO, "serving", bundle=good, host=self._settings.host, port=self._port, workers=serving)
        if self._port_file is not None:
            replace_text(self._port_file, f"{self._port}\n")

    def _clear_port_file(self) -> None:
        """Who waits for the file must not read the port of a server that has ended."""
        if self._port_file is not None:
            with contextlib.suppress(OSError):
                self._port_file.unlink()

    def _wait(self, wake: int) -> None:
        """Sleep until a worker speaks or ends, a signal comes, or it is time to look again."""
        # This one needs no descriptor of its own: there may be none left.
        with selectors.PollSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            for process in self._all():
                selector.register(process.messages, selectors.EVENT_READ)
            selector.select(_POLL_S)
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)

    def _end(self) -> None:
        if self._trial is not None:
            self._trial.kill()
        for slot in self._fleet.slots:
            if slot.process is not None:
                slot.process.drain()
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
        processes = (self._trial, *(slot.process for slot in self._fleet.slots))
        return [each for each in processes if each is not None]

    @property
    def _written(self) -> int:
        """When the ACTIVE that was followed last was written."""
        return 0 if self._seen is None else self._seen[1]

    def _token(self) -> tuple[str | None, int]:
        """What ACTIVE says and when it was last written: a bundle activated again is looked at again."""
        try:
            return self._store.active(), self._store.written()
        except OSError as error:
            # A disk that does not answer for a moment is no reason to stop what serves.
            log.event(logging.ERROR, "ACTIVE cannot be read", error=str(error))
            return self._seen or (None, 0)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            # Most real-time signals have no name.
            return f"signal {-code}"
    return f"exit code {code}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
