"""How many calls are in work at once: a further one is refused, at once, rather than kept waiting.

The calls are answered in the event loop, one after the other, so what waits, waits for the loop. gRPC hands the loop
one new call a turn; those beyond lie in its core, where nobody counts them, and past a thousand it cancels them with a
status that no client tries again (measured). Under load a call therefore lets the loop take in what has come before its
work begins: what waits is then counted here, and what is too much is told so while its caller can still go elsewhere.
How far that reaches depends on the processor: handing a call over takes gRPC two changes of thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from server.errors import Overloaded
from server.observe import log

_PRESSURE = 2
"""Open calls from which on new ones are let in first; a single one waits for nobody."""
_EVERY_S = 0.01
"""Time of work between two times of letting in."""
_CHEAP_S = 0.001
"""Time a call below which none are let in first: refusing one costs as much as answering it."""
_QUIET_S, _QUIET_SHARE = 0.0005, 0.1
"""Time without a new call after which gRPC is taken to have none left: so much, or that share of the time worked
since the last letting in, if that is more. On busy processors gRPC needs a millisecond to hand a call over."""
_SHARE = 1 / 3
"""Of the time worked since the last letting in, so much is given to it at most: taking in a call costs gRPC and Python
a third of a millisecond, as much as answering a cheap one, and a flood must not keep the server from working."""
_LONGEST_S = 0.1
"""More work than this counts as this."""
_TOLD_EVERY_S = 1.0


class Admission:
    """Counts the calls of one worker; used from its event loop only."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.most = most
        self.in_work = 0
        """Calls that were let in and have not been answered."""
        self.refused = 0
        """Calls refused since the start."""
        self._arrived = 0
        self._open = 0
        self._turn = asyncio.Lock()
        self._let_in_at = clock()
        self._answered, self._worked = 0, 0.0
        """Calls answered since then, and seconds these took; together, where several were in work at once."""
        self._told = -_TOLD_EVERY_S
        self._untold = 0

    def arrived(self, task: asyncio.Task[object] | None) -> None:
        """Note a call whose head has come; ``task`` answers it.

        It is not counted against the limit before its message is there: who opens calls and sends nothing must not keep
        others out.
        """
        self._arrived += 1
        if task is not None:
            self._open += 1
            task.add_done_callback(self._ended)

    async def enter(self) -> float:
        """Let a call in, and wait for its turn; returns what ``leave`` must be given. Raises Overloaded at once."""
        if self.in_work >= self.most:
            self.refused += 1
            self._tell()
            raise Overloaded(
                f"the server has {self.in_work} calls in work, as many as it may",
                hint="Try again a little later, or ask another one.",
            )
        self.in_work += 1
        if self._open < _PRESSURE and not self._turn.locked():
            return self._clock()
        try:
            async with self._turn:
                await self._let_in()
        except BaseException:
            self.in_work -= 1
            raise
        return self._clock()

    def leave(self, entered: float) -> None:
        """The call is answered; what is left to do is to send the answer, which may take a slow reader for ever."""
        self.in_work -= 1
        self._answered += 1
        self._worked += self._clock() - entered

    async def _let_in(self) -> None:
        begun = last = self._clock()
        worked = min(self._worked, begun - self._let_in_at, _LONGEST_S)
        if worked < _EVERY_S or worked < self._answered * _CHEAP_S:
            return
        end, quiet = begun + worked * _SHARE, max(_QUIET_S, worked * _QUIET_SHARE)
        before = self._arrived
        while (now := self._clock()) < end and now - last < quiet:
            # The thread of gRPC that hands calls over may need this processor.
            time.sleep(0)
            await asyncio.sleep(0)
            if self._arrived != before:
                before, last = self._arrived, self._clock()
        self._let_in_at, self._answered, self._worked = self._clock(), 0, 0.0

    def _ended(self, _: object) -> None:
        self._open -= 1

    def _tell(self) -> None:
        """One line a second at most: a line a refused call would be load of its own."""
        self._untold += 1
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY_S:
            log.event(logging.WARNING, "overloaded", refused=self._untold, in_work=self.in_work)
            self._told, self._untold = now, 0
