"""Who is let in: what is too much is refused at once, rather than kept waiting until nobody wants the answer.

The calls are answered in the event loop, one after the other, so what waits, waits for the loop. What the loop has not
taken from gRPC's core nobody counts. So calls count from when the core hands them over (``come``), and once calls have
worked for a while in one turn of the loop, the others wait here for the next. Refusing costs time too, so calls which
were let in get a share of it: a flood that is too great even to refuse must not keep the server from answering.

Of calls that take long (batches, which let others have their turn on the way) few work at a time: all together would
end late, and each turn of the loop would be as long as a step of every one of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable

from server.errors import Overloaded
from server.observe import log

_TURN_S = 0.02
"""Work in one turn of the event loop after which further calls wait for the next. Waiting costs a cheap call a tenth of
its time: of the searches that come together in a usual turn none should."""
_STEP_S = 0.001
"""What a method of no mean time yet may be taken to have taken."""
_SHARE = 2.0
"""Work of calls that wait, for each second that a turn went to other things: taking calls in, refusing them."""
_LONG_S = 0.005
"""Calls of methods that take so long on average wait for each other, and the others pass them."""
_LONG_AT_ONCE = 3
"""Of those so many work at a time: two may compute in threads (``server.threads``), and one beside them."""
_MARGIN = 2.0
"""Until its deadline a call has so many times what those before it are expected to take, or is refused."""
_LATEST, _BEYOND = 0.1, 4.0
"""Weight of a call's time in the mean of its method; times that mean, what it counts at most: one that was held up by
others' work on the processor, or was the first to touch something, says little of the next."""
_COMING_S = 0.05
"""Within which, or twice as long, a call is read that was handed over: its message comes with its head."""
_BUSY = 0.5
"""Share of its time for which a busy event loop had the processor."""
_TOLD_EVERY_S = 1.0


class Method:
    """What is known of the calls of one method."""

    __slots__ = ("mean", "working")

    def __init__(self) -> None:
        self.mean = 0.0
        """Seconds of work a call, of the latest ones."""
        self.working = 0


class Entered:
    """A call that was let in."""

    __slots__ = ("began", "beside", "expected", "long", "method")

    def __init__(self, method: Method) -> None:
        self.method, self.expected, self.long = method, method.mean, method.mean >= _LONG_S
        self.began, self.beside = 0.0, 0
        """When its work began, and how many of its method worked then."""


class Admission:
    """Counts the calls of one worker; used from its event loop only."""

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock, self._processor = clock, processor
        self.most = most
        self.in_work = 0
        """Calls that were let in and have not been answered."""
        self.refused = 0
        """Calls refused since the start."""
        self._methods: dict[str, Method] = {}
        self._expected = {True: 0.0, False: 0.0}
        """Seconds of work that those in work were expected to take: the long ones together, and the others."""
        self._long = asyncio.Semaphore(_LONG_AT_ONCE)
        self._waiting: deque[tuple[asyncio.Future[None], Entered]] = deque()
        """Those whose work begins in one of the loop's next turns."""
        self._turning = False
        """Whether ``_turn`` comes with the next."""
        self._turned, self._worked = 0.0, 0.0
        """When this turn began, and the seconds that calls have worked in it (together, if at once)."""
        self._coming, self._came_before, self._looked = 0, 0, 0.0
        """Calls handed over and not read yet: of this window, of the one before, and when this one began."""
        self._processor_s, self._busy = 0.0, False
        """Seconds of processor of the event loop when this window began, and whether the last took many."""
        self._told = -_TOLD_EVERY_S
        self._untold = 0

    @property
    def full(self) -> bool:
        """Whether a call that comes now is one too many, beside those in work and those whose message is being read."""
        now = self._clock()
        if now - self._looked > _COMING_S:
            processor_s = self._processor()
            self._busy = processor_s - self._processor_s > _BUSY * (now - self._looked)
            self._came_before = self._coming if now - self._looked < 2 * _COMING_S else 0
            self._coming, self._looked, self._processor_s = 0, now, processor_s
        coming = self._coming + self._came_before if self._busy else 0
        return self.in_work + coming >= self.most

    def come(self) -> None:
        """A call was handed over by gRPC's core while this was not full; it is ``read`` when its message is there.

        A flood must be seen before it works: all that is handed over would begin in turn, and the rest wait unseen. It
        is one where the server is busy; else it is the callers who are slow, and who opens calls and sends nothing
        must hold no place.
        """
        self._coming += 1

    def read(self) -> None:
        """The message of a call that came has been read; what its caller may do is not looked at yet."""
        if self._came_before:
            self._came_before -= 1
        elif self._coming:
            self._coming -= 1

    def refusal(self) -> Overloaded:
        """What a call is told that comes while this is full; counts it as refused."""
        return self._overloaded(f"the server has as many calls as it may ({self.most})")

    async def enter(self, method: str = "", left: float = math.inf) -> Entered:
        """Let a call of a method in, and wait for its turn; returns what ``leave`` must be given.

        ``left``: seconds until its deadline. Raises Overloaded at once where as many are in work as may be, or those
        before it are expected to take too long for it.
        """
        known = self._methods.get(method)
        if known is None:
            known = self._methods[method] = Method()
        call = Entered(known)
        # Long calls let the others pass, turn by turn.
        ahead = self._expected[False] + (self._expected[True] if call.long else 0.0)
        if self.in_work >= self.most:
            raise self.refusal()
        if ahead * _MARGIN > left - call.expected and ahead:
            raise self._overloaded(
                f"the server has work for {ahead:.2g} s before this call, which has {left:.2g} s left"
            )
        self.in_work += 1
        self._expected[call.long] += call.expected
        held = False
        try:
            if call.long:
                await self._long.acquire()
                held = True
            await self._wait(call)
        except BaseException:
            self._gone(call, held=held)
            raise
        call.began, call.beside = self._clock(), known.working
        known.working += 1
        return call

    def leave(self, call: Entered) -> None:
        """The call is answered; what is left to do is to send the answer, which may take a slow reader for ever."""
        method, taken = call.method, self._clock() - call.began
        self._worked += taken
        method.working -= 1
        # Calls of one method that work at the same time share the loop.
        taken /= 1 + (call.beside + method.working) / 2
        method.mean += _LATEST * (min(taken, _BEYOND * method.mean + _STEP_S) - method.mean)
        self._gone(call, held=call.long)

    def _gone(self, call: Entered, *, held: bool) -> None:
        self.in_work -= 1
        # Exactly nothing where nobody is left: sums of floats are not.
        self._expected[call.long] = self._expected[call.long] - call.expected if self.in_work else 0.0
        if not self.in_work:
            self._expected[not call.long] = 0.0
        if held:
            self._long.release()

    async def _wait(self, call: Entered) -> None:
        """Until the loop has time for another call."""
        if not self._turning:
            self._turning, self._turned, self._worked = True, self._clock(), 0.0
            asyncio.get_running_loop().call_soon(self._turn)
        elif self._waiting or self._worked >= _TURN_S:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((turn, call))
            await turn

    def _turn(self) -> None:
        """A turn of the event loop has passed: let the first of those that wait work, and more where there is time."""
        now = self._clock()
        left = max(now - self._turned - self._worked, 0.0) * _SHARE
        self._turned, self._worked, self._turning = now, 0.0, False
        while self._waiting and (left > 0 or not self._turning):
            turn, call = self._waiting.popleft()
            # Who gave up meanwhile has left already.
            if not turn.done():
                turn.set_result(None)
                self._turning = True
                left -= call.expected or _TURN_S
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)

    def _overloaded(self, why: str) -> Overloaded:
        self.refused += 1
        self._untold += 1
        now = time.monotonic()
        # A line a refused call would be load of its own.
        if now - self._told >= _TOLD_EVERY_S:
            log.event(logging.WARNING, "overloaded", refused=self._untold, in_work=self.in_work)
            self._told, self._untold = now, 0
        return Overloaded(why, hint="Try again a little later, or ask another one.")
