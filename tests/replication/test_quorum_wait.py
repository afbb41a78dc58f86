# SPDX-License-Identifier: Apache-2.0
"""Callers of a node without a quorum: they wait for one, but not for long."""

import asyncio
from collections.abc import Callable

import pytest

from sparecode_node.replication.calls.quorum_wait import QuorumWait
from sparecode_node.replication.errors import NoQuorumError

pytestmark = pytest.mark.asyncio

PATIENCE_S = 0.05


async def wait_forever(
    wait: QuorumWait, *, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Wait as a caller whose answer never comes."""
    async with wait.limited():
        asyncio.get_running_loop().call_soon(meanwhile)
        await asyncio.Event().wait()


async def test_a_caller_waits_in_vain_for_a_quorum() -> None:
    """A node that starts has none, either."""
    with pytest.raises(NoQuorumError):
        await wait_forever(QuorumWait(PATIENCE_S))


async def test_a_caller_that_waits_already_is_told_of_the_loss() -> None:
    wait = QuorumWait(PATIENCE_S)
    wait.take_contact(has_contact=True)
    asyncio.get_running_loop().call_soon(lambda: wait.take_contact(has_contact=False))
    with pytest.raises(NoQuorumError):
        await wait_forever(wait)


async def test_a_quorum_that_is_back_leaves_its_callers_alone() -> None:
    wait = QuorumWait(PATIENCE_S)
    answered = False
    async with wait.limited():
        wait.take_contact(has_contact=True)
        await asyncio.sleep(3 * PATIENCE_S)
        wait.take_contact(has_contact=False)
        wait.take_contact(has_contact=True)
        await asyncio.sleep(3 * PATIENCE_S)
        answered = True
    assert answered


async def test_other_timeouts_and_cancellations_stay_what_they_are() -> None:
    wait = QuorumWait(PATIENCE_S)
    for error in (TimeoutError, asyncio.CancelledError, KeyError):
        with pytest.raises(error):
            async with wait.limited():
                raise error


async def test_contact_that_comes_back_while_a_caller_gives_up_is_too_late() -> None:
    """Its time is over, and it has not run yet."""
    wait = QuorumWait(0)
    told: list[bool] = []

    def come_back() -> None:
        wait.take_contact(has_contact=True)
        told.append(True)

    with pytest.raises(NoQuorumError):
        await wait_forever(wait, meanwhile=come_back)
    assert told
