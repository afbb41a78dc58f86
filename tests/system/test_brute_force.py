# SPDX-License-Identifier: Apache-2.0
"""Guessing at three nodes at once, while they are killed, gives no extra guess."""

import asyncio
import time
from collections import Counter
from itertools import cycle

import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import AsyncAgent, AuditFilter, Authentication, SparecodeError
from sparecode_node.domain.lockout import Lockout
from sparecode_node.domain.policy import Policy
from tests.system.estate import PIN, Estate

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

ROUNDS = 4
AT_ONCE = 24
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"


def evaluated_most(seconds: float) -> int:
    """Return the number of guesses that policy allows to be evaluated in that time."""
    policy, lockout, now_ms, count = Policy(), Lockout(), 0, 0
    while now_ms <= seconds * 1000:
        lockout = lockout.failed(now_ms, policy)
        count += 1
        now_ms = lockout.blocked_until_ms
    return count


async def guess(
    agent: AsyncAgent, username: str, passcode: str
) -> Authentication | None:
    """Return the answer; None if the node that was asked is gone."""
    try:
        return await agent.authenticate(username, passcode)
    except SparecodeError:
        return None


@pytest.mark.parametrize("factor", ["emergency", "token"])
async def test_no_more_guesses_are_evaluated_than_policy_allows(
    cluster: LocalCluster, factor: str
) -> None:
    """
    (L1-L5, A6) Twenty-four at once, at all nodes, with a node killed in each round.

    What was evaluated is counted in the audit log: no more than the ladder of waits
    allows in that time, whichever node is asked and whichever is the primary. Once it is
    locked the right passcode is refused like the others, and its code not spent.
    """
    async with Estate(cluster) as estate:
        holder = await estate.holder(f"victim-{factor}", codes=3)
        begun = time.monotonic()
        for number in range(ROUNDS):
            agents = cycle(estate.agents.values())
            node = cluster.nodes[number % len(cluster.nodes)]
            tries = [
                asyncio.create_task(
                    guess(next(agents), holder.username, wrong(factor, number, each))
                )
                for each in range(AT_ONCE)
            ]
            await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            node.kill()
            node.start()
            answers = await asyncio.gather(*tries)
            assert not any(answer and answer.accepted for answer in answers)
            await asyncio.to_thread(cluster.wait_ready)
        right = await estate.any_agent.authenticate(
            holder.username, PIN + holder.codes[0]
        )
        took_s = time.monotonic() - begun
        reasons: Counter[str] = Counter()
        page = await estate.admin.list_audit_events(
            AuditFilter(target=holder.username, action="Authenticate"), page_size=500
        )
        reasons.update(event.reason for event in page.items)
        access = await estate.admin.get_emergency_access(holder.serial)
    evaluated = reasons["wrong_passcode"] + reasons["wrong_pin"]
    assert 1 <= evaluated <= evaluated_most(took_s)
    assert reasons["locked"] >= AT_ONCE
    assert set(reasons) <= {"wrong_passcode", "wrong_pin", "locked", ""}
    if factor == "emergency" and evaluated >= Policy().lock_from_failures:
        assert not right.accepted
        assert access.live_codes == 3


def wrong(factor: str, number: int, each: int) -> str:
    """Return a new wrong guess at code and PIN."""
    if factor == "token":
        return f"{PIN}{number:03}{each:03}"
    return f"{PIN}{ALPHABET[number]}{ALPHABET[each]}ABCDEF"
