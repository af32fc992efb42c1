"""How long a call may still take, and what its time went to."""

from __future__ import annotations

import math
import time

from server.errors import DeadlinePassed


class Deadline:
    """A moment by which the answer must be there (None: no limit), and the stages that the call went through."""

    __slots__ = ("_end", "_since", "_stage", "stages", "started")

    def __init__(self, seconds: float | None = None) -> None:
        self.started = now = time.perf_counter()
        self._end = None if seconds is None else now + seconds
        self.stages: dict[str, float] = {}
        """Seconds spent in each stage that has ended."""
        self._stage, self._since = "wait", now

    @property
    def spent(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds that are left; infinite without a limit."""
        return math.inf if self._end is None else self._end - time.perf_counter()

    def enter(self, stage: str) -> None:
        """Count the time from here on as the stage's."""
        now = time.perf_counter()
        last, stages = self._stage, self.stages
        stages[last] = now - self._since + stages[last] if last in stages else now - self._since
        self._stage, self._since = stage, now

    def check(self, stage: str) -> None:
        """Raise DeadlinePassed where no time is left for a stage, and enter it; asked before each one."""
        if stage != self._stage:
            self.enter(stage)
        if self._end is not None and time.perf_counter() >= self._end:
            raise DeadlinePassed(
                f"the deadline passed before the {stage}", hint="Give the call more time, or ask for less."
            )
