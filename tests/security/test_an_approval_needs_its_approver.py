# SPDX-License-Identifier: Apache-2.0
"""
An approval is another's, and does not outlive the right of its approver to give it (P3).

The attacks: an administrator approves the own request, in another session or for the
own user. Or an accomplice approves what an administrator will do later. The accomplice
is found out, and is disabled, removed, or given another role. The approval was good for
a day all the same.
"""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import emergency_access_pb2, tokens_pb2, types_pb2, users_pb2
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import (
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
)

pytestmark = pytest.mark.asyncio

HELP_DESK = pb.ADMINISTRATOR_ROLE_HELP_DESK

ENDS: dict[str, tuple[str, Any]] = {
    "disabled": (
        "UpdateAdministrator",
        pb.UpdateAdministratorRequest(name="eve", enabled=False),
    ),
    "removed": ("RemoveAdministrator", pb.RemoveAdministratorRequest(name="eve")),
    "another role": (
        "UpdateAdministrator",
        pb.UpdateAdministratorRequest(name="eve", role=HELP_DESK),
    ),
}


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node with a user who has a token without a PIN."""
    async with running_node(tmp_path) as started:
        await root(started).call(
            UserServiceStub,
            "CreateUser",
            users_pb2.CreateUserRequest(request_id=new_id(), username="alice"),
        )
        await root(started).call(
            TokenServiceStub,
            "EnrollToken",
            tokens_pb2.EnrollTokenRequest(
                request_id=new_id(),
                serial="11",
                algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
                digits=6,
                period_seconds=30,
                seed=b"12345678901234567890",
                pin_rule=types_pb2.PIN_RULE_NONE,
            ),
        )
        await root(started).call(
            TokenServiceStub,
            "AssignToken",
            tokens_pb2.AssignTokenRequest(
                request_id=new_id(), serial="11", username="alice"
            ),
        )
        yield started


def bulk() -> tuple[Any, str, Any]:
    """Return a call that issues codes in bulk."""
    request = emergency_access_pb2.BulkIssueTokencodesRequest(
        request_id=new_id(),
        rows=[emergency_access_pb2.BulkIssueRow(row=1, serial="11")],
        count=1,
    )
    return EmergencyAccessServiceStub, "BulkIssueTokencodes", request


@pytest.mark.parametrize("end", ENDS)
async def test_an_approval_ends_with_its_approver(node: LoopbackNode, end: str) -> None:
    """(P3) Disabled, removed or of another role: another one has to approve."""
    frank = await administrator(node, "frank", SUPER_ADMIN)
    eve = await administrator(node, "eve", SUPER_ADMIN, approver=frank)
    number = await root(node).needs_approval(*bulk())
    await eve.approve(number)
    method, request = ENDS[end]
    change = type(request)(request_id=new_id())
    change.MergeFrom(request)
    await root(node).approve(
        await frank.needs_approval(AdministratorServiceStub, method, change)
    )
    again = await root(node).needs_approval(*bulk())
    assert again != number
    await frank.approve(again)
    assert [row.codes for row in await root(node).stream(*bulk())]


async def test_an_author_approves_nothing_of_their_own(node: LoopbackNode) -> None:
    """(P3) Neither a change nor a permit, and not in another session of theirs."""
    eve = await administrator(node, "eve", SUPER_ADMIN)
    add = pb.CreateAdministratorRequest(
        request_id=new_id(),
        name="mallory",
        role=SUPER_ADMIN,
        no_user=True,
        password="a temporary password for once",
    )
    other = await node.sign_in()
    again = dataclasses.replace(
        root(node), bearer=(("authorization", f"Bearer {other}"),)
    )
    for call in ((AdministratorServiceStub, "CreateAdministrator", add), bulk()):
        number = await root(node).needs_approval(*call)
        before = facts(node)
        for author in (root(node), again):
            assert await refused_approval(author, number) == "SELF_SERVICE_FORBIDDEN"
        assert facts(node) == before
        await eve.approve(number)


@pytest.mark.parametrize("kind", ["permit", "change"])
async def test_no_one_approves_what_is_about_their_own_user(
    node: LoopbackNode, kind: str
) -> None:
    """(I10) Eve is Alice, and would approve codes for her, or her other token."""
    link = pb.UpdateAdministratorRequest(
        request_id=new_id(), name="eve", username="alice"
    )
    eve = await administrator(node, "eve", SUPER_ADMIN)
    frank = await administrator(node, "frank", SUPER_ADMIN, approver=eve)
    await frank.approve(
        await root(node).needs_approval(
            AdministratorServiceStub, "UpdateAdministrator", link
        )
    )
    enable = tokens_pb2.EnableTokenRequest(request_id=new_id(), serial="11")
    call = bulk() if kind == "permit" else (TokenServiceStub, "EnableToken", enable)
    number = await root(node).needs_approval(*call)
    before = facts(node)
    assert await refused_approval(eve, number) == "SELF_SERVICE_FORBIDDEN"
    assert facts(node) == before
    await frank.approve(number)


def facts(node: LoopbackNode) -> dict[str, list[Any]]:
    """Return what the state holds, but for the counts of refusals."""
    rows = node.facts()
    del rows["equal_refusals"]
    return rows


async def refused_approval(approver: SignedIn, number: int) -> str:
    """Return why an administrator cannot approve a request."""
    refusal = await approver.refused(
        AdministratorServiceStub,
        "Approve",
        pb.ApproveRequest(request_id=new_id(), approval_id=number),
    )
    return refusal.reason
