"""How long a call may still take."""

from __future__ import annotations

import math
import time

from server.errors import DeadlinePassed


class Deadline:
    """A moment by which the answer must be there; None: no limit."""

    def __init__(self, seconds: float | None = None) -> None:
        self.started = time.perf_counter()
        self._end = None if seconds is None else self.started + seconds

    @property
    def spent(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds that are left; infinite without a limit."""
        return math.inf if self._end is None else self._end - time.perf_counter()

    def check(self, stage: str) -> None:
        """Raise DeadlinePassed where no time is left for a stage; asked before each one."""
        if self._end is not None and time.perf_counter() >= self._end:
            raise DeadlinePassed(
                f"the deadline passed before the {stage}", hint="Give the call more time, or ask for less."
            )
