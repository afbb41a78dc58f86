# SPDX-License-Identifier: Apache-2.0
"""
An approval is for exactly one request, and a change of a link needs one (P3, I10).

The attacks: a request that was harmless when it was made is approved after the
administrator it is about has changed; and an administrator changes another's link to a user, which
decides whose codes they may not issue.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode_node.domain.approvals import PENDING_MAX
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import (
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
)

pytestmark = pytest.mark.asyncio

HELP_DESK = pb.ADMINISTRATOR_ROLE_HELP_DESK
TEMPORARY = "another temporary password"


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node with the user Alice."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


async def needed(author: SignedIn, method: str, request: Any) -> int:
    """Make a request that needs an approval; return the approval's number."""
    refusal = await author.refused(AdministratorServiceStub, method, request)
    assert refusal.reason == "APPROVAL_NEEDED", refusal
    return int(refusal.words.rpartition("approval ")[2].split()[0].rstrip(".:;,"))


def update(name: str, **fields: Any) -> pb.UpdateAdministratorRequest:
    return pb.UpdateAdministratorRequest(request_id=new_id(), name=name, **fields)


async def test_a_request_is_void_once_its_object_has_changed(
    node: LoopbackNode,
) -> None:
    """(P3) A reset of a help desk's password is none of a super administrator's."""
    await administrator(node, "hank", HELP_DESK)
    eve = await administrator(node, "eve", SUPER_ADMIN)
    reset = pb.ChangePasswordRequest(
        request_id=new_id(), name="hank", new_password=TEMPORARY
    )
    asked = await needed(root(node), "ChangePassword", reset)
    promoted = await needed(
        root(node), "UpdateAdministrator", update("hank", role=SUPER_ADMIN)
    )
    await eve.approve(promoted)
    before = node.facts()["administrators"]
    refusal = await eve.refused(
        AdministratorServiceStub,
        "Approve",
        pb.ApproveRequest(request_id=new_id(), approval_id=asked),
    )
    assert refusal.reason == "APPROVAL_STALE"
    assert node.facts()["administrators"] == before


async def test_a_link_between_administrator_and_user_needs_two(
    node: LoopbackNode,
) -> None:
    """(P3, I10) To set it, to change it and to remove it, for another administrator."""
    await administrator(node, "hank", HELP_DESK)
    eve = await administrator(node, "eve", SUPER_ADMIN)
    for fields in ({"username": "alice"}, {"no_user": True}):
        request = update("hank", **fields)
        before = node.facts()["administrators"]
        number = await needed(root(node), "UpdateAdministrator", request)
        assert node.facts()["administrators"] == before
        await eve.approve(number)
        assert node.facts()["administrators"] != before


async def test_an_equal_request_is_the_same_request(node: LoopbackNode) -> None:
    """(P3) Twenty clicks ask once, and leave room for other requests."""
    await administrator(node, "hank", HELP_DESK)
    eve = await administrator(node, "eve", SUPER_ADMIN)
    first = await needed(
        root(node), "UpdateAdministrator", update("hank", role=SUPER_ADMIN)
    )
    for _ in range(PENDING_MAX):
        again = update("hank", role=SUPER_ADMIN)
        assert await needed(root(node), "UpdateAdministrator", again) == first
    other = update("hank", role=pb.ADMINISTRATOR_ROLE_AUDITOR)
    second = await needed(root(node), "UpdateAdministrator", other)
    assert second != first
    # Once it is decided, the same request is another one.
    await eve.approve(second)
    assert await needed(
        root(node), "UpdateAdministrator", update("hank", role=SUPER_ADMIN)
    ) not in (first, second)
