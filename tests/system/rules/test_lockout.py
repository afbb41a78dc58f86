# SPDX-License-Identifier: Apache-2.0
"""Lockout (L): failures at one node make every node wait."""

import asyncio
import time
from dataclasses import replace

import pytest

from sparecode_client import AdministratorRole, NotSignedIn
from tests.system.estate import PATIENCE, PIN
from tests.system.rules.stage import OWN, Person, Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

MINUTE_S = 60
DAY_S = 24 * 3600
WRONG = "ABCDEFGH"


async def fail(stage: Stage, person: Person, *, times: int, at: int = 0) -> None:
    """Cause counted failures, one node after the other, each after its wait."""
    for number in range(times):
        before = (await stage.failures(0, person))[1]
        assert not await stage.accepts((at + number) % 3, person, PIN + WRONG)
        assert (await stage.failures(2, person))[1] == before + 1
        if number < times - 1:
            await stage.later(6)


async def test_every_node_waits_after_failures_at_any(stage: Stage) -> None:
    """
    (L1-L3, L5) One second, one, five, five, fifteen minutes, thirty; at all nodes.

    In the wait the right passcode is refused at the other two, not evaluated, not
    spent and not counted; after it, a wrong one is counted.
    """
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not await assert_every_node_waits(stage):
            pass  # The machine was busy, and a wait had really ended.


async def assert_every_node_waits(stage: Stage) -> bool:
    """Judge all waits of a new person; return False if one ended before its calls did."""
    person = await stage.person()
    codes = await stage.issued(person, count=10)
    waits = (1, 1, 5, 5, 15 * MINUTE_S, 30 * MINUTE_S)
    for number, wait_s in enumerate(waits):
        node = number % 3
        began_s = time.monotonic()
        assert not await stage.accepts(node, person, PIN + WRONG)
        counted = await stage.failures((node + 1) % 3, person)
        assert counted == (0, number + 1)
        if wait_s > 1:  # A second is over before two nodes have been asked.
            await stage.later(wait_s - 2)
            for other in range(3):
                is_accepted = await stage.accepts(other, person, PIN + codes[0])
                if is_accepted and time.monotonic() - began_s >= 2:
                    return False
                assert not is_accepted
            assert await stage.failures(node, person) == counted
            assert await stage.live(node, person) == 10
            assert (await stage.why(node, person))[-3:] == ["locked"] * 3
        await stage.later(3)
    assert await stage.accepts(0, person, PIN + codes[0])
    assert await stage.failures(2, person) == (0, 0)
    return True


async def test_a_factor_that_is_off_is_off_on_every_node(stage: Stage) -> None:
    """(L4, R2) Until it is unlocked at any node; its codes are void by then."""
    person = await stage.person()
    (code, *_) = await stage.issued(person, at=1)
    policy = await stage.admins[0].get_policy()
    few = replace(policy, factor_off_at_failures=5, next_tokencode_from_failures=0)
    await stage.admins[0].update_policy(few)
    try:
        await fail(stage, person, times=5)
        for _ in range(3):
            await stage.later(DAY_S)
            assert await stage.everywhere(person, PIN + code) == [False] * 3
        assert await stage.failures(1, person) == (0, 5)
        assert (await stage.why(2, person))[-1] == "locked"
        assert await stage.live(2, person) == 0
        noted = await stage.noted(1, person)
        ((action, cause),) = noted
        assert action == "CODES_VOIDED"
        assert cause.endswith("too many failures: 3 codes")
        await stage.admins[2].unlock_user(person.name)
        assert not await stage.accepts(0, person, PIN + code)
        (code, *_) = await stage.issued(person, at=0)
        assert await stage.accepts(1, person, PIN + code)
    finally:
        now = await stage.admins[1].get_policy()
        await stage.admins[1].update_policy(replace(policy, version=now.version))


async def test_what_clears_failures_clears_them_everywhere(stage: Stage) -> None:
    """(L6) Success, and an administrator; a day clears the ladder, but not the count."""
    person = await stage.person()
    codes = await stage.issued(person, at=2, count=3)
    await fail(stage, person, times=2, at=1)
    await stage.later(2)
    assert await stage.accepts(0, person, PIN + codes[0])
    assert [await stage.failures(node, person) for node in range(3)] == [(0, 0)] * 3
    await fail(stage, person, times=5)
    assert not await stage.accepts(1, person, PIN + codes[1])
    await stage.admins[1].unlock_user(person.name)
    assert await stage.accepts(2, person, PIN + codes[1])
    await fail(stage, person, times=4)
    await stage.later(DAY_S)
    await fail(stage, person, times=1, at=2)
    assert await stage.failures(1, person) == (0, 5)
    await stage.later(2)  # Not fifteen minutes.
    assert await stage.accepts(0, person, PIN + codes[2])


async def test_administrators_wait_on_every_node_and_are_never_locked(
    stage: Stage,
) -> None:
    """
    (L7) Wrong passwords at one node make the others wait; never for long.

    A known device waits at no node, whichever node it has signed in at.
    """
    async with stage.administrator("hasty", AdministratorRole.AUDITOR) as own:
        strangers = [await stage.visitor(node) for node in range(3)]
        cookie = own[2].device_cookie
        for number in range(8):
            with pytest.raises(NotSignedIn):
                await strangers[number % 3].login("hasty", f"a wrong password {number}")
            if number > 3:
                with pytest.raises(NotSignedIn):
                    await strangers[(number + 1) % 3].login("hasty", OWN)
                await own[number % 3].login("hasty", OWN, device_cookie=cookie)
            await stage.later(61)  # It doubles up to a minute.
        await strangers[1].login("hasty", OWN)
