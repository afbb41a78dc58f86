# SPDX-License-Identifier: Apache-2.0
"""
A help desk administrator does not find out a user's PIN by guessing (A5, I10, P3a).

The attack: issue codes for the user, void them, and type guesses of the PIN with a void
code at an agent: a wrong PIN was charged, and a right one was not. When the factor is
locked, unlock the user and go on; with an accomplice, if the author of the codes may not.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode.v1 import (
    administrators_pb2,
    emergency_access_pb2,
    policy_pb2,
    users_pb2,
)
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from tests.rpc.loopback_node import PIN, LoopbackNode, new_id, running_node
from tests.security.administrators import (
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
)

pytestmark = pytest.mark.asyncio

HELP_DESK = administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK
DAY_MS = 86_400_000
LOCKED = ("emergency", 7, 7, 4_000_000_000_000, 1, 0)
"""A lockout: factor, failures, rung, its end in 2096, the last failure, not off."""


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node on which Alice has a token with a PIN."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


def lock(node: LoopbackNode) -> None:
    """Lock Alice's emergency codes, as wrong passcodes would."""
    with node.state_written() as db:
        (user_id,) = db.execute("SELECT user_id FROM users").fetchone()
        db.execute(
            "INSERT OR REPLACE INTO lockouts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (user_id, *LOCKED),
        )


def is_locked(node: LoopbackNode) -> bool:
    return node.rows()["lockouts"] != []


def unlocking() -> Any:
    return users_pb2.UnlockUserRequest(request_id=new_id(), username="alice")


async def unlock(author: SignedIn) -> None:
    lock(author.node)
    await author.call(UserServiceStub, "UnlockUser", unlocking())
    assert not is_locked(author.node)


async def waits(author: SignedIn) -> int:
    """Request an unlock that needs an approval; return the approval's number."""
    lock(author.node)
    number = await author.needs_approval(UserServiceStub, "UnlockUser", unlocking())
    assert is_locked(author.node)
    return number


async def void_code(author: SignedIn) -> str:
    """Issue a code and void it."""
    issued = await author.call(
        EmergencyAccessServiceStub,
        "IssueTokencodes",
        emergency_access_pb2.IssueTokencodesRequest(
            request_id=new_id(), serial="1", count=1
        ),
    )
    await author.call(
        EmergencyAccessServiceStub,
        "DisableEmergencyAccess",
        emergency_access_pb2.DisableEmergencyAccessRequest(
            request_id=new_id(), serial="1"
        ),
    )
    return str(issued.codes[0].code)


async def test_a_void_code_tells_no_pin(node: LoopbackNode) -> None:
    """(A5, U3) No count, reason or answer differs between right and wrong PINs."""
    eve = await administrator(node, "eve", HELP_DESK)
    code = await void_code(eve)
    answers = {await node.authenticate(pin + code) for pin in (PIN, "9175", "", PIN)}
    assert len(answers) == 1
    assert not is_locked(node)
    explained = await eve.call(
        UserServiceStub, "ExplainUser", users_pb2.ExplainUserRequest(username="alice")
    )
    assert [each.reason for each in explained.attempts] == ["code_not_live"] * 4


async def test_the_author_of_codes_unlocks_no_one_alone(node: LoopbackNode) -> None:
    """(I10) Live or void: with the next codes, each unlock would allow more guesses."""
    eve = await administrator(node, "eve", HELP_DESK)
    await administrator(node, "boss", SUPER_ADMIN)
    await void_code(eve)
    await waits(eve)
    with node.state_written() as db:
        db.execute(
            "UPDATE code_sets SET issued_at_ms = issued_at_ms - ?", (30 * DAY_MS,)
        )
    await unlock(eve)
    assert not is_locked(node)


async def test_accomplices_share_the_unlocks_of_a_day(node: LoopbackNode) -> None:
    """(P3a, P3) By default three, of any role. An approved one is made, and not counted."""
    desk = [await administrator(node, name, HELP_DESK) for name in ("eve", "mallory")]
    boss = await administrator(node, "boss", SUPER_ADMIN)
    for author in (*desk, desk[0]):
        await unlock(author)
    # Nothing is lifted, so nothing is counted or needs an approval.
    await desk[0].call(UserServiceStub, "UnlockUser", unlocking())
    numbers = [await waits(author) for author in (*desk, boss)]
    assert len(set(numbers)) == len(numbers)
    await boss.approve(numbers[0])
    assert not is_locked(node)
    await waits(desk[1])
    with node.state_written() as db:
        db.execute(
            "UPDATE allowance_counts SET minute_ms = minute_ms - ?", (DAY_MS + 60_000,)
        )
    await unlock(desk[1])


async def test_the_allowance_of_unlocks_is_not_raised_alone(node: LoopbackNode) -> None:
    """(P3a) It is a change of the policy, and so is to turn the second approver off."""
    await administrator(node, "boss", SUPER_ADMIN)
    read = await root(node).call(
        PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest()
    )
    assert read.policy.unlocks_per_day == 3
    for change in ({"unlocks_per_day": 100}, {"second_approver": False}):
        policy = policy_pb2.Policy(version=read.policy.version, **change)
        await root(node).needs_approval(
            PolicyServiceStub,
            "UpdatePolicy",
            policy_pb2.UpdatePolicyRequest(request_id=new_id(), policy=policy),
        )
