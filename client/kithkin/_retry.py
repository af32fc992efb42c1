"""Which failures are tried again, and when: one policy for both clients.

gRPC's own retries, set by service config, know nothing of `google.rpc.RetryInfo`; so they stay off and this does it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from kithkin.errors import KithkinError, ResourceExhausted, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential waits with jitter, all inside the call's deadline."""

    retries: int = 3
    """Tries after the first."""
    first_wait: float = 0.1
    """Seconds before the second try, before jitter; doubled each time."""
    longest_wait: float = 2.0
    """Seconds; the doubling ends here. The server's own RetryInfo may ask for more."""

    def start(
        self,
        timeout: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> Tries:
        """Starts the clock of one call that may take `timeout` seconds in all."""
        return Tries(self, timeout, clock, chance)


class Tries:
    """The tries of one call, under one deadline."""

    def __init__(
        self, policy: RetryPolicy, timeout: float, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self._policy, self._clock, self._chance = policy, clock, chance
        self._deadline = clock() + timeout
        self._failed = 0

    def remaining(self) -> float:
        """Seconds left, never less than 1 ms: gRPC then answers DEADLINE_EXCEEDED itself."""
        return max(self._deadline - self._clock(), 0.001)

    def wait_after(self, error: KithkinError) -> float | None:
        """Seconds to wait before the next try; None: give up, `error` is the answer."""
        if self._failed >= self._policy.retries or not worth_another_try(error):
            return None
        # Jitter spreads clients that failed together; half of the wait stays, so that it does grow.
        wait = min(self._policy.first_wait * 2**self._failed, self._policy.longest_wait) * (0.5 + self._chance() / 2)
        if error.retry_after is not None:
            # Never earlier than asked, and up to a quarter later.
            wait = max(wait, error.retry_after * (1 + self._chance() / 4))
        self._failed += 1
        # Waiting past the deadline would only replace a telling error by DEADLINE_EXCEEDED.
        return wait if self._clock() + wait < self._deadline else None


def worth_another_try(error: KithkinError) -> bool:
    """True for failures that the same request may not meet again."""
    if isinstance(error, ResourceExhausted):
        # gRPC gives this code, without details, to messages that are too large too; they stay too large.
        return error.reason != "MESSAGE_TOO_LARGE" and "message larger than max" not in error.message
    return isinstance(error, Unavailable)
