"""The limit on calls at once, who waits for whom, and who is told that it is too much."""

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
    with pytest.raises(Overloaded, match=r"as many calls as it may \(2\)"):
        await admission.enter()
    assert (admission.in_work, admission.refused) == (2, 1)
    admission.leave(entered)
    await admission.enter()
    assert admission.in_work == 2


async def flood(calls: int, limit: int, seconds: float, *, together: int = 32) -> list[str]:
    """What happens when so many calls come, so many in a turn of the loop, that each work for so long."""
    clock = Clock()
    admission = Admission(limit, clock=clock, processor=lambda: clock.now)
    order: list[str] = []

    async def call() -> None:
        order.append("came")
        if admission.full:
            order.append("refused")
            admission.refusal()
            return
        admission.come()
        # The message follows its head a few turns later.
        for _ in range(5):
            await asyncio.sleep(0)
        admission.read()
        try:
            entered = await admission.enter("A")
        except Overloaded:
            order.append("refused")
            return
        clock.now += seconds
        order.append("worked")
        admission.leave(entered)

    tasks = []
    for number in range(calls):
        tasks.append(asyncio.create_task(call()))
        if number % together == together - 1:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert (admission.in_work, admission.refused) == (0, order.count("refused"))
    return order


@pytest.mark.parametrize(("seconds", "before"), [(0.0003, 350), (0.002, 100), (0.05, 100)])
async def test_those_beyond_the_limit_are_told_before_the_others_are_answered(seconds: float, before: int) -> None:
    """``before``: of cheap ones so many are answered until the server has been busy for a while."""
    order = await flood(600, limit=20, seconds=seconds)
    # A call that works in each turn of the loop, while thirty-two come.
    last = len(order) - 1 - order[::-1].index("refused")
    assert order[:last].count("worked") <= before
    assert order.count("refused") >= 580 - before
    assert order.count("worked") == 600 - order.count("refused") >= 20


def test_what_is_handed_over_to_a_busy_server_counts_until_it_is_read_or_for_a_moment() -> None:
    clock, worked = Clock(), 0.0
    admission = Admission(3, clock=clock, processor=lambda: worked)
    for _ in range(4):
        assert not admission.full, "its callers are slow, it has nothing to do"
        admission.come()
    clock.now += 0.2
    worked += 0.15
    for _ in range(3):
        assert not admission.full
        admission.come()
    assert admission.full, "before one of them has been read"
    admission.read()
    assert not admission.full
    admission.come()
    assert admission.full
    # Heads whose messages do not come are forgotten after a tenth of a second at most, however busy it is.
    clock.now, worked = clock.now + 0.06, worked + 0.06
    assert admission.full
    clock.now, worked = clock.now + 0.06, worked + 0.06
    assert not admission.full


async def test_cheap_calls_that_come_one_by_one_are_answered_as_they_come() -> None:
    order = await flood(60, limit=20, seconds=0.0001, together=1)
    assert order.count("worked") == 60


async def learnt(admission: Admission, clock: Clock, method: str, seconds: float) -> None:
    """Calls of a method, which tell how long they take."""
    for _ in range(100):
        entered = await admission.enter(method)
        clock.now += seconds
        admission.leave(entered)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_those_who_wait_get_a_share_of_the_time_that_refusing_takes() -> None:
    clock = Clock()
    admission = Admission(64, clock=clock)
    await learnt(admission, clock, "A", 0.0005)
    worked = []

    async def call(number: int) -> None:
        entered = await admission.enter("A")
        clock.now += 0.0005
        worked.append(number)
        admission.leave(entered)

    tasks = [asyncio.create_task(call(number)) for number in range(60)]
    await asyncio.sleep(0)
    # The work of twenty milliseconds, as the first turn has it; then one in each turn where nothing else is to do.
    assert 36 <= len(worked) <= 40
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    before = len(worked)
    # A turn that goes to refusing others for three milliseconds: twice as much for those who wait.
    clock.now += 0.003
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 8 <= len(worked) - before <= 14
    await asyncio.gather(*tasks)
    assert worked == list(range(60)), "in the order in which they came"


async def test_one_call_that_was_held_up_says_little_of_the_next() -> None:
    clock = Clock()
    admission = Admission(100, clock=clock)
    await learnt(admission, clock, "Get", 0.0005)
    held_up = await admission.enter("Get")
    clock.now += 2.0
    admission.leave(held_up)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    following = [await admission.enter("Get", left=0.01) for _ in range(3)]
    assert all(each.expected < 0.001 for each in following)
    assert not any(each.long for each in following)


async def test_a_call_that_could_not_be_answered_in_time_is_refused_when_it_comes() -> None:
    clock = Clock()
    admission = Admission(100, clock=clock)
    await learnt(admission, clock, "Batch", 0.1)
    # Alone it is let in however little time it has: nobody can do better.
    alone = await admission.enter("Batch", left=0.05)
    first = await admission.enter("Batch", left=0.4)
    with pytest.raises(Overloaded, match=r"work for 0\.2 s before this call, which has 0\.3 s left"):
        await admission.enter("Batch", left=0.3)
    # Enough time, or no deadline.
    second = await admission.enter("Batch", left=0.6)
    admission.leave(second)
    second = await admission.enter("Batch")
    assert (admission.in_work, admission.refused) == (3, 1)
    # A short one passes them all.
    await learnt(admission, clock, "Get", 0.001)
    short = await admission.enter("Get", left=0.01)
    for each in (alone, first, second, short):
        admission.leave(each)
    assert admission.in_work == 0


async def test_few_long_calls_work_at_a_time_and_short_ones_pass_them() -> None:
    clock = Clock()
    admission = Admission(100, clock=clock)
    await learnt(admission, clock, "Batch", 0.1)
    await learnt(admission, clock, "Get", 0.001)
    working: list[int] = []
    most = 0
    go_on = asyncio.Event()

    async def batch(number: int) -> None:
        nonlocal most
        entered = await admission.enter("Batch")
        working.append(number)
        most = max(most, len(working))
        await go_on.wait()
        working.remove(number)
        admission.leave(entered)

    tasks = [asyncio.create_task(batch(number)) for number in range(12)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert working == [0, 1, 2]
    assert admission.in_work == 12
    # Two that give up while they wait: one is passed over, the other's place goes to the next.
    tasks[5].cancel()
    admission.leave(await admission.enter("Get"))
    go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert admission.in_work == 0
    await asyncio.wait_for(asyncio.gather(*(batch(number) for number in range(12))), 5)


async def test_a_call_that_is_given_up_while_it_waits_is_not_counted_any_more() -> None:
    clock = Clock()
    admission = Admission(10, clock=clock)

    async def call(seconds: float) -> None:
        entered = await admission.enter()
        clock.now += seconds
        admission.leave(entered)

    tasks = [asyncio.create_task(call(seconds)) for seconds in (0.03, 0.0, 0.0)]
    await asyncio.sleep(0)
    assert admission.in_work == 2
    assert tasks[0].done()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[1].cancelled()
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
