"""The follower as the supervisor sees it: started, told which bundle serves, started again where it dies."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from dataclasses import asdict

from server.fresh.follower import FollowOrder
from server.observe import log

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0
"""A follower that ran so long did not die of starting: the pauses begin anew."""
_END_S = 2.0


class FollowerProcess:
    """Keeps one follower running."""

    def __init__(self, order: FollowOrder) -> None:
        self._order = order
        self._process: subprocess.Popen[bytes] | None = None
        self._told: str | None = None
        self._started = 0.0
        self._start_at = 0.0
        self._pause = _FIRST_PAUSE_S

    def look_after(self, version: str | None) -> None:
        """Start it where it does not run, and tell it which bundle serves."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            if now - self._started > _STEADY_S:
                self._pause = _FIRST_PAUSE_S
            log.event(logging.ERROR, "follower ended", code=self._process.returncode, again_in_s=self._pause)
            self._back_off(now)
            self._close()
        if self._process is None:
            if version is None or now < self._start_at:
                return
            try:
                self._process = subprocess.Popen(
                    # -P: a folder of the user's called `server` is not ours.
                    [sys.executable, "-P", "-m", "server.fresh.follower", json.dumps(asdict(self._order))],
                    stdin=subprocess.PIPE,
                )
            except OSError as error:
                log.event(logging.ERROR, "follower cannot be started", error=str(error), again_in_s=self._pause)
                self._back_off(now)
                return
            self._started, self._told = now, None
        if version != self._told:
            self._told = version
            assert self._process.stdin is not None
            # A broken pipe: it is ending; the next look sees that.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write((json.dumps({"version": version}) + "\n").encode())
                self._process.stdin.flush()

    def stop(self) -> None:
        """End it; it holds nothing that must be saved."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _back_off(self, now: float) -> None:
        self._start_at, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE_S)

    def _close(self) -> None:
        assert self._process is not None
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None
