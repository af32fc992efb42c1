"""The limit on calls at once, and the order in which it lets them in."""

from __future__ import annotations

import asyncio
import logging

import pytest

from server.errors import Overloaded
from server.wire.admission import Admission
from server.wire.status import RETRY_AFTER_S, status_of


class Clock:
    """Twenty microseconds pass with each look at it, and as much as the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 2e-5
        return self.now


async def test_a_call_beyond_the_limit_is_refused_at_once_and_others_are_let_in_when_one_leaves() -> None:
    admission = Admission(2)
    entered = await admission.enter()
    await admission.enter()
    with pytest.raises(Overloaded, match="2 calls in work"):
        await admission.enter()
    assert (admission.in_work, admission.refused) == (2, 1)
    admission.leave(entered)
    await admission.enter()
    assert admission.in_work == 2


async def flood(calls: int, limit: int, seconds: float) -> list[str]:
    """What happens when so many calls come, one a turn of the loop, as gRPC hands them over."""
    clock = Clock()
    admission = Admission(limit, clock=clock)
    order: list[str] = []

    async def call() -> None:
        admission.arrived(asyncio.current_task())
        order.append("came")
        # The message follows its head a few turns later.
        for _ in range(5):
            await asyncio.sleep(0)
        try:
            entered = await admission.enter()
        except Overloaded:
            order.append("refused")
            return
        clock.now += seconds
        order.append("worked")
        admission.leave(entered)

    tasks = []
    for _ in range(calls):
        tasks.append(asyncio.create_task(call()))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert (admission.in_work, admission.refused) == (0, order.count("refused"))
    return order


async def test_dear_calls_wait_until_those_that_have_come_are_counted() -> None:
    order = await flood(60, limit=20, seconds=0.05)
    # One is answered before the others are seen; these are let in, and those past the limit refused, before the next.
    assert order[: order.index("worked", order.index("worked") + 1)].count("came") >= 40
    assert order.count("refused") >= 20
    assert order.count("worked") == 60 - order.count("refused") >= 20


async def test_cheap_calls_are_answered_as_they_come() -> None:
    order = await flood(60, limit=20, seconds=0.0001)
    assert order.count("worked") == 60


async def test_a_quiet_time_costs_the_next_calls_nothing() -> None:
    clock = Clock()
    admission = Admission(20, clock=clock)
    clock.now += 3600
    for _ in range(3):
        admission.arrived(asyncio.current_task())
    before = clock.now
    await admission.enter()
    assert clock.now - before < 0.0001


async def test_a_call_that_is_given_up_while_it_waits_is_not_counted_any_more() -> None:
    admission = Admission(10)

    async def call() -> None:
        admission.arrived(asyncio.current_task())
        await admission.enter()

    async with admission._turn:
        waiting = asyncio.create_task(call())
        await asyncio.sleep(0)
        assert admission.in_work == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert admission.in_work == 0


async def test_refusals_are_told_together(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("kithkin.server"), "propagate", True)
    admission = Admission(1)
    await admission.enter()
    for _ in range(50):
        with pytest.raises(Overloaded):
            await admission.enter()
    assert [record.message for record in caplog.records] == ["overloaded"]


def test_those_refused_together_are_told_different_times() -> None:
    delays = set()
    for _ in range(20):
        detail = status_of(Overloaded("too much"), "id").details[-1]
        delays.add(_seconds(detail.value))
    middle = RETRY_AFTER_S[Overloaded]
    assert len(delays) > 10
    assert min(delays) >= 0.5 * middle - 0.001
    assert max(delays) <= 1.5 * middle + 0.001


def _seconds(raw: bytes) -> float:
    from google.rpc import error_details_pb2

    delay = error_details_pb2.RetryInfo.FromString(raw).retry_delay
    return delay.seconds + delay.nanos / 1e9
