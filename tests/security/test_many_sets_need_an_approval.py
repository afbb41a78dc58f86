# SPDX-License-Identifier: Apache-2.0
"""
An administrator cannot issue codes for many users alone (P3a).

The attacks: a loop of single issues instead of a bulk, an approved bulk that is issued
again and again, and a token that gets another user after its bulk was approved.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import (
    administrators_pb2,
    emergency_access_pb2,
    policy_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from tests.rpc.edge import failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import (
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
)

pytestmark = pytest.mark.asyncio

HELP_DESK = administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK
TOKENS = ("11", "12", "13", "14")


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node with four users, each with a token that has no PIN."""
    async with running_node(tmp_path) as started:
        for serial in TOKENS:
            await root(started).call(
                UserServiceStub,
                "CreateUser",
                users_pb2.CreateUserRequest(
                    request_id=new_id(), username=f"user{serial}"
                ),
            )
            await root(started).call(
                TokenServiceStub,
                "EnrollToken",
                tokens_pb2.EnrollTokenRequest(
                    request_id=new_id(),
                    serial=serial,
                    algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
                    digits=6,
                    period_seconds=30,
                    seed=serial.encode() * 10,
                    pin_rule=types_pb2.PIN_RULE_NONE,
                ),
            )
            await assign(root(started), serial, f"user{serial}")
        with started.state_written() as db:
            # As if others had done it: `root` may issue for these tokens (I10).
            db.execute("DELETE FROM known_secrets")
        yield started


async def assign(author: SignedIn, serial: str, username: str) -> None:
    await author.call(
        TokenServiceStub,
        "AssignToken",
        tokens_pb2.AssignTokenRequest(
            request_id=new_id(), serial=serial, username=username
        ),
    )


def issue(serial: str) -> emergency_access_pb2.IssueTokencodesRequest:
    return emergency_access_pb2.IssueTokencodesRequest(
        request_id=new_id(), serial=serial, count=1
    )


async def issued(author: SignedIn, serial: str) -> Any:
    return await author.call(
        EmergencyAccessServiceStub, "IssueTokencodes", issue(serial)
    )


async def refused(author: SignedIn, serial: str) -> int:
    """Issue without the approval that it needs; return the request's number."""
    return number_in(
        await author.refused(
            EmergencyAccessServiceStub, "IssueTokencodes", issue(serial)
        )
    )


async def bulk(author: SignedIn, *serials: str) -> list[Any]:
    return await author.stream(
        EmergencyAccessServiceStub,
        "BulkIssueTokencodes",
        emergency_access_pb2.BulkIssueTokencodesRequest(
            request_id=new_id(),
            rows=[
                emergency_access_pb2.BulkIssueRow(row=row, serial=serial)
                for row, serial in enumerate(serials, start=1)
            ],
            count=1,
        ),
    )


async def refused_bulk(author: SignedIn, *serials: str) -> int:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await bulk(author, *serials)
    return number_in(failure(raised.value))


def number_in(refusal: Any) -> int:
    assert refusal.reason == "APPROVAL_NEEDED", refusal
    return int(refusal.words.rpartition("approval ")[2].split()[0].rstrip(".:;,"))


async def set_policy(author: SignedIn, **values: Any) -> policy_pb2.UpdatePolicyRequest:
    """Return a change of the policy in force."""
    read = await author.call(
        PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest()
    )
    return policy_pb2.UpdatePolicyRequest(
        request_id=new_id(),
        policy=policy_pb2.Policy(version=read.policy.version, **values),
    )


async def limit(node: LoopbackNode, per_hour: int, per_day: int) -> None:
    """Set the allowance, while there is no other administrator to approve it."""
    change = await set_policy(
        root(node), issued_sets_per_hour=per_hour, issued_sets_per_day=per_day
    )
    await root(node).call(PolicyServiceStub, "UpdatePolicy", change)


async def test_the_default_allowance_is_as_the_rule_says(node: LoopbackNode) -> None:
    """(P3a) Thirty an hour and a hundred a day."""
    read = await root(node).call(
        PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest()
    )
    assert read.policy.issued_sets_per_hour == 30
    assert read.policy.issued_sets_per_day == 100


async def test_a_loop_of_single_issues_ends_at_the_allowance(
    node: LoopbackNode,
) -> None:
    """(P3a) Each further set needs an approval, which it uses. Others have their own."""
    await limit(node, per_hour=2, per_day=100)
    eve = await administrator(node, "eve", SUPER_ADMIN)
    for serial in TOKENS[:2]:
        assert (await issued(root(node), serial)).codes
    before = node.rows()["code_sets"]
    number = await refused(root(node), "13")
    assert node.rows()["code_sets"] == before
    await eve.approve(number)
    assert (await issued(root(node), "13")).codes
    assert await refused(root(node), "13") != number
    assert await refused(root(node), "14") != number
    assert (await issued(eve, "14")).codes


@pytest.mark.parametrize(
    ("per_hour", "age_h", "allowed"),
    [(2, 2, True), (2, 25, True), (0, 2, False)],
)
async def test_the_allowance_of_the_hour_comes_back(
    node: LoopbackNode, per_hour: int, age_h: int, allowed: bool
) -> None:
    """(P3a) After an hour; that of the day stays used."""
    await limit(node, per_hour=per_hour, per_day=3)
    await administrator(node, "eve", SUPER_ADMIN)
    with node.state_written() as db:
        now_ms = int(
            db.execute("SELECT value FROM meta WHERE name = 'now_ms'").fetchone()[0]
        )
        age_ms = age_h * 3_600_000
        db.execute(
            "INSERT INTO allowance_counts VALUES ('issue', 'root', ?, 2, ?)",
            (now_ms - age_ms, now_ms - age_ms + 86_460_000),
        )
    if not allowed:
        await refused(root(node), "11")
        return
    assert (await issued(root(node), "11")).codes
    if age_h < 24:
        await refused(root(node), "12")
    else:
        assert (await issued(root(node), "12")).codes


async def test_raising_the_allowance_needs_another_administrator(
    node: LoopbackNode,
) -> None:
    """(P3a) It is a change of the policy."""
    await administrator(node, "eve", SUPER_ADMIN)
    change = await set_policy(
        root(node), issued_sets_per_hour=10_000, issued_sets_per_day=10_000
    )
    refusal = await root(node).refused(PolicyServiceStub, "UpdatePolicy", change)
    assert refusal.reason == "APPROVAL_NEEDED"


async def test_an_approved_bulk_is_issued_once(node: LoopbackNode) -> None:
    """(P3a) Together or one by one, for each of its tokens."""
    eve = await administrator(node, "eve", SUPER_ADMIN)
    number = await refused_bulk(root(node), *TOKENS[:3])
    await eve.approve(number)
    assert all(row.codes for row in await bulk(root(node), "11", "12"))
    again = await refused_bulk(root(node), "11", "12")
    assert again != number
    assert all(row.codes for row in await bulk(root(node), "13"))
    for serial in TOKENS[:3]:
        assert await refused_bulk(root(node), serial) != number
    await eve.approve(again)
    assert all(row.codes for row in await bulk(root(node), "11", "12"))


async def test_an_approval_is_for_the_users_it_names(node: LoopbackNode) -> None:
    """(P3a) A token that has another user since needs another approval."""
    eve = await administrator(node, "eve", SUPER_ADMIN)
    number = await refused_bulk(root(node), "11", "12")
    listed = await eve.call(
        AdministratorServiceStub,
        "ListApprovals",
        administrators_pb2.ListApprovalsRequest(),
    )
    [waiting] = [each for each in listed.approvals if each.approval_id == number]
    assert list(waiting.usernames) == ["user11", "user12"]
    await move(node, eve, "12", "user14")
    refusal = await eve.refused(
        AdministratorServiceStub,
        "Approve",
        administrators_pb2.ApproveRequest(request_id=new_id(), approval_id=number),
    )
    assert refusal.reason == "APPROVAL_STALE"
    again = await refused_bulk(root(node), "11", "12")
    await eve.approve(again)
    await move(node, eve, "11", "user13")
    assert await refused_bulk(root(node), "11", "12") != again
    assert all(row.codes for row in await bulk(root(node), "12"))


async def move(
    node: LoopbackNode, approver: SignedIn, serial: str, username: str
) -> None:
    """Give a token to another user, which needs an approval (I10)."""
    await root(node).call(
        TokenServiceStub,
        "UnassignToken",
        tokens_pb2.UnassignTokenRequest(request_id=new_id(), serial=serial),
    )
    refusal = await root(node).refused(
        TokenServiceStub,
        "AssignToken",
        tokens_pb2.AssignTokenRequest(
            request_id=new_id(), serial=serial, username=username
        ),
    )
    await approver.approve(number_in(refusal))


async def test_a_pin_set_after_the_approval_voids_it(node: LoopbackNode) -> None:
    """(P3, I10) The approver did not know that the author would know the PIN."""
    await limit(node, per_hour=0, per_day=0)
    eve = await administrator(node, "eve", SUPER_ADMIN)
    await eve.call(
        UserServiceStub,
        "CreateUser",
        users_pb2.CreateUserRequest(request_id=new_id(), username="user20"),
    )
    await eve.call(
        TokenServiceStub,
        "EnrollToken",
        tokens_pb2.EnrollTokenRequest(
            request_id=new_id(),
            serial="20",
            algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
            digits=6,
            period_seconds=30,
            seed=b"09876543210987654321",
            pin_rule=types_pb2.PIN_RULE_PREPENDED,
        ),
    )
    await assign(eve, "20", "user20")

    async def set_pin(author: SignedIn, pin: str) -> None:
        await author.call(
            TokenServiceStub,
            "SetPin",
            tokens_pb2.SetPinRequest(request_id=new_id(), serial="20", pin=pin),
        )

    await set_pin(eve, "3682")
    number = await refused(root(node), "20")
    await eve.approve(number)
    await set_pin(root(node), "9157")
    again = await refused(root(node), "20")
    assert again != number
    await set_pin(root(node), "7391")
    assert await refused(root(node), "20") != again
