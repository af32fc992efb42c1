"""The place of one worker: who fills it, what it serves, and when it is filled again."""

from __future__ import annotations

import logging
import time

from server.observe import log
from server.processes.worker_process import WorkerProcess

_STEADY_S = 60.0
"""A worker that ran so long did not die of starting: the back-off begins anew."""
_LONGEST_BACK_OFF_S = 30.0
_LONGEST_BETWEEN_PINGS_S = 5.0
_LONGEST_LOAD_S = 900.0
"""A process that takes longer to load a bundle hangs."""


class Slot:
    """One of the server's workers, whichever process it is just now."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.serving = False
        """Whether the process has told that it serves (a bundle, or that it waits for one)."""
        self.taking_up: str | None = None
        """The bundle that it was told to load and has not told of since."""
        self.turn = 0
        """The last change-over that it has made."""
        self.failed_starts = 0
        """How often in a row its process died before it served."""
        self.failed = False
        """Whether its process told that it cannot serve any bundle, and is about to end."""
        self._deaths = 0
        self._restart_at = 0.0
        self._loading_since = 0.0
        self._pinged_at: float | None = None
        """When it was asked for a pong that has not come."""
        self._ping_at = 0.0

    @property
    def version(self) -> str | None:
        """The bundle that it serves, or is starting with."""
        return None if self.process is None else self.process.version

    @property
    def to_fill(self) -> bool:
        return self.process is None and time.monotonic() >= self._restart_at

    def fill(self, process: WorkerProcess, turn: int) -> None:
        """Have a process started in it, which begins with what the given change-over led to."""
        self.process, self.serving, self.taking_up, self.turn = process, False, None, turn
        self.failed = False
        self._pinged_at, self._loading_since = None, time.monotonic()

    def serves(self, version: str | None, turn: int) -> None:
        """Its process told what it answers from."""
        assert self.process is not None
        self.process.version = version
        self.serving, self.taking_up, self.turn, self.failed_starts = True, None, turn, 0

    def load(self, version: str) -> None:
        """Tell it to take up another bundle."""
        assert self.process is not None
        self.taking_up, self._loading_since = version, time.monotonic()
        self.process.load(version)

    def empty(self, why: str) -> None:
        """Its process has ended: to be filled again, after a pause that doubles while it keeps ending."""
        assert self.process is not None
        lived = time.monotonic() - self.process.started
        self._deaths = 0 if lived > _STEADY_S else self._deaths + 1
        self.failed_starts += not self.serving
        pause = self._back_off()
        log.event(logging.ERROR, "worker died", bundle=self.version, ending=why, restart_in_s=pause)
        self.vacate()

    def not_started(self, why: str) -> None:
        """No process could be started in it: to be tried again, after a pause that doubles while that goes on."""
        self._deaths += 1
        log.event(logging.ERROR, "worker cannot be started", error=why, again_in_s=self._back_off())

    def vacate(self) -> None:
        """Its process has ended as it should: to be filled again at once."""
        self.process, self.serving, self.taking_up = None, False, None

    def pong(self) -> None:
        """Its event loop has answered."""
        self._pinged_at = None

    def look_after(self, hang_s: float) -> None:
        """Kill it where its event loop has not answered for ``hang_s`` seconds, or where loading does not end."""
        if self.process is None:
            return
        now = time.monotonic()
        if (not self.serving or self.taking_up is not None) and now - self._loading_since > _LONGEST_LOAD_S:
            self._kill(_LONGEST_LOAD_S)
        elif not self.serving:
            return
        elif self._pinged_at is None:
            if now >= self._ping_at:
                self._pinged_at, self._ping_at = now, now + min(hang_s / 3, _LONGEST_BETWEEN_PINGS_S)
                self.process.ping()
        elif now - self._pinged_at > hang_s:
            self._kill(hang_s)

    def _back_off(self) -> float:
        pause = min(0.25 * 2**self._deaths, _LONGEST_BACK_OFF_S) if self._deaths > 1 else 0.0
        self._restart_at = time.monotonic() + pause
        return pause

    def _kill(self, seconds: float) -> None:
        assert self.process is not None
        log.event(logging.ERROR, "worker hangs", bundle=self.version, pid=self.process.pid, seconds=seconds)
        self._pinged_at, self._loading_since = None, time.monotonic()
        self.process.kill()
