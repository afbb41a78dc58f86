# SPDX-License-Identifier: Apache-2.0
"""Waiting in the loop: for what, and with whom it is shared."""

import asyncio

import pytest

from sparecode_node.replication.calls.waiters import AppliedWaiters, Shared
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.statemachine.results import BarrierPassed

pytestmark = pytest.mark.asyncio


class Barriers:
    """Passes a barrier on demand."""

    def __init__(self) -> None:
        self.proposed: list[asyncio.Future[None]] = []

    async def pass_one(self) -> BarrierPassed:
        index = len(self.proposed)
        self.proposed.append(asyncio.get_running_loop().create_future())
        await self.proposed[index]
        return BarrierPassed(index=index, at_ms=0)


async def turn() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_barrier_is_joined_before_it_is_proposed_and_not_after() -> None:
    """Otherwise a read could miss a commit between proposal and call."""
    barriers = Barriers()
    shared = Shared(barriers.pass_one, name="barrier")
    early = [asyncio.create_task(shared.result()) for _ in range(3)]
    await turn()
    late = [asyncio.create_task(shared.result()) for _ in range(3)]
    await turn()
    assert len(barriers.proposed) == 1
    barriers.proposed[0].set_result(None)
    await turn()
    assert {task.result().index for task in early} == {0}
    assert not any(task.done() for task in late)
    barriers.proposed[1].set_result(None)
    await turn()
    assert {task.result().index for task in late} == {1}


async def test_a_failed_barrier_fails_for_its_callers_only() -> None:
    barriers = Barriers()
    shared = Shared(barriers.pass_one, name="barrier")
    early = [asyncio.create_task(shared.result()) for _ in range(2)]
    await turn()
    late = asyncio.create_task(shared.result())
    await turn()
    barriers.proposed[0].set_exception(OutcomeUnknownError("lost"))
    await turn()
    for task in early:
        with pytest.raises(OutcomeUnknownError):
            task.result()
    barriers.proposed[1].set_result(None)
    assert (await late).index == 1


async def test_a_caller_that_stops_waiting_cancels_no_other() -> None:
    barriers = Barriers()
    shared = Shared(barriers.pass_one, name="barrier")
    gone = asyncio.create_task(shared.result())
    stays = asyncio.create_task(shared.result())
    await turn()
    gone.cancel()
    await turn()
    barriers.proposed[0].set_result(None)
    assert (await stays).index == 0


async def test_an_index_is_waited_for_and_no_longer_than_allowed() -> None:
    waiters = AppliedWaiters()
    waiters.advance(3)
    await waiters.wait(3, timeout_s=0)
    waiting = asyncio.create_task(waiters.wait(5, timeout_s=10))
    await turn()
    waiters.advance(4)
    await turn()
    assert not waiting.done()
    waiters.advance(6)
    await waiting
    with pytest.raises(NoQuorumError, match="entry 7 did not arrive"):
        await waiters.wait(7, timeout_s=0.001)
    waiters.advance(8)


async def test_a_caller_that_gave_up_is_forgotten() -> None:
    """A node that hears of indexes but lacks the entries is called all the time."""
    waiters = AppliedWaiters()
    staying = [asyncio.create_task(waiters.wait(7, timeout_s=10)) for _ in range(3)]
    await turn()
    for _ in range(100):
        with pytest.raises(NoQuorumError):
            await waiters.wait(9, timeout_s=0)
    assert len(waiters._waiters) <= 2 * (len(staying) + 1)
    waiters.advance(9)
    await asyncio.gather(*staying)
    assert waiters._waiters == []
