# SPDX-License-Identifier: Apache-2.0
"""
An approval does not outlive the right of its approver to give it (P3).

The attack: an accomplice approves what an administrator will do later. The accomplice
is found out, and is disabled, removed, or given another role. The approval was good for
a day all the same.
"""

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
