# SPDX-License-Identifier: Apache-2.0
"""Background work takes at most a quarter of the time (I12)."""

import asyncio

import pytest

from sparecode_node.services.load.pacing import REST, REST_S_MAX, Pace
from tests.services.pauses import Pauses
from tests.services.two_replicas import FakeClock

pytestmark = pytest.mark.asyncio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pauses(clock: FakeClock) -> Pauses:
    return Pauses(clock)


@pytest.fixture
def pace(clock: FakeClock, pauses: Pauses) -> Pace:
    return Pace(clock, sleep=pauses.sleep)


async def test_a_rest_is_measured_by_the_turn_before_it(
    pace: Pace, clock: FakeClock, pauses: Pauses
) -> None:
    """In a busy cluster each turn takes longer, and so does the pause after it."""
    for took_s in (0.010, 0.040, 0.020):
        async with pace.turn():
            clock.pass_s(took_s)
    assert pauses.taken_s == [REST * 0.010, REST * 0.040]


async def test_time_that_yields_to_others_does_not_count(
    pace: Pace, clock: FakeClock, pauses: Pauses
) -> None:
    async with pace.turn() as turn:
        clock.pass_s(0.010)
        with turn.aside():
            clock.pass_s(5)
        clock.pass_s(0.020)
    async with pace.turn():
        pass
    assert pauses.taken_s == [round(REST * 0.030, 3)]


async def test_a_turn_that_fails_is_followed_by_a_rest_too(
    pace: Pace, clock: FakeClock, pauses: Pauses
) -> None:
    async def work() -> None:
        async with pace.turn() as turn:
            clock.pass_s(0.010)
            with turn.aside():
                raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        await work()
    async with pace.turn():
        pass
    assert pauses.taken_s == [REST * 0.010]


async def test_no_rest_is_longer_than_callers_wait(
    pace: Pace, clock: FakeClock, pauses: Pauses
) -> None:
    async with pace.turn():
        clock.pass_s(9)
    async with pace.turn():
        pass
    assert pauses.taken_s == [REST_S_MAX]


async def test_a_late_caller_need_not_wait(
    pace: Pace, clock: FakeClock, pauses: Pauses
) -> None:
    async with pace.turn():
        clock.pass_s(0.010)
    clock.pass_s(1)
    async with pace.turn():
        pass
    assert pauses.taken_s == []


async def test_turns_are_one_at_a_time(pace: Pace, clock: FakeClock) -> None:
    """For any number of callers, a quarter of the time for all of them together."""
    having = 0
    most = 0

    async def work() -> None:
        nonlocal having, most
        for _ in range(3):
            async with pace.turn():
                having += 1
                most = max(most, having)
                clock.pass_s(0.010)
                await asyncio.sleep(0)
                having -= 1

    await asyncio.gather(*(work() for _ in range(4)))
    assert most == 1


async def test_a_caller_that_gives_up_leaves_its_turn_to_the_next(
    clock: FakeClock,
) -> None:
    """While it pauses or waits; the earlier turn costs no second pause."""
    resting = asyncio.Event()
    had = 0

    async def sleep(_seconds: float) -> None:
        resting.set()
        await asyncio.Event().wait()

    pace = Pace(clock, sleep=sleep)

    async def work() -> None:
        nonlocal had
        async with pace.turn():
            had += 1
            clock.pass_s(0.010)

    await work()
    callers = [asyncio.create_task(work()) for _ in range(3)]
    await resting.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    clock.pass_s(REST * 0.010)
    async with asyncio.timeout(60):
        await work()
    assert had == 2


async def test_turns_come_in_the_order_of_the_requests(
    pace: Pace, clock: FakeClock
) -> None:
    """No bulk issue waits while another takes one turn after the other."""
    order: list[str] = []

    async def work(name: str) -> None:
        for _ in range(3):
            async with pace.turn():
                order.append(name)
                clock.pass_s(0.010)
                await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"))
    assert order == ["a", "b"] * 3
