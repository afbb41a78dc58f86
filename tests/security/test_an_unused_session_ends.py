# SPDX-License-Identifier: Apache-2.0
"""
A session that is not used ends on every node: in a browser, a program, or a profile (P2).

A thief of the profile of `sparecode` had up to 12 hours, because only the console ended
unused sessions. Super administrators' sessions end earlier, used or not.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import policy_pb2
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.policy import HOUR_MS, MINUTE_MS
from sparecode_node.services.ambient import SystemClock
from sparecode_node.services.errors import NotSignedInError
from sparecode_node.services.people.administrators import Link
from tests.rpc.edge import failure
from tests.rpc.loopback_node import running_node
from tests.services.one_node import PASSWORD, OneNode, one_node

pytestmark = pytest.mark.asyncio

HELPER = "hank"
HELPERS_PASSWORD = "a long one of the help desk"
PRIVILEGED_IDLE_S = 15 * 60
IDLE_S = 30 * 60


class MovedClock(SystemClock):
    """The machine's clocks, which a test moves on."""

    def __init__(self) -> None:
        self._later_s = 0

    def now_ms(self) -> int:
        return super().now_ms() + 1000 * self._later_s

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self._later_s

    def pass_s(self, seconds: int) -> None:
        self._later_s += seconds


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with an administrator of the help desk."""
    async with one_node(tmp_path) as node:
        await node.administrators.create(
            node.admin("AdministratorService/CreateAdministrator"),
            name=HELPER,
            role=Role.HELP_DESK,
            password="a temporary one of root",
            link=Link(""),
        )
        await node.login(name=HELPER, password="a temporary one of root")
        await node.administrators.change_password(
            node.admin("AdministratorService/ChangePassword"),
            name="",
            old_password="a temporary one of root",
            new_password=HELPERS_PASSWORD,
        )
        yield node


async def works(node: OneNode, *, stale_ok: bool = False) -> bool:
    """Return whether the session may still read, and record its use."""
    context = replace(node.admin("PolicyService/GetPolicy"), request_id="")
    try:
        await node.policies.get(context, stale_ok=stale_ok)
    except NotSignedInError:
        return False
    await node.session_use.flush(node.replicator)
    return True


@pytest.mark.parametrize(
    ("name", "password", "idle_s"),
    [
        ("root", PASSWORD, PRIVILEGED_IDLE_S),
        (HELPER, HELPERS_PASSWORD, IDLE_S),
    ],
)
async def test_an_unused_session_ends_without_a_browser(
    node: OneNode, name: str, password: str, idle_s: int
) -> None:
    """(P2) Calls of the API and of `sparecode` have no cookie that could end it."""
    await node.login(name=name, password=password)
    for _ in range(3):
        node.clock.pass_s(idle_s - 1)
        assert await works(node)
    node.clock.pass_s(idle_s)
    assert not await works(node)


async def test_a_bearer_that_was_not_used_is_refused_by_grpc(tmp_path: Path) -> None:
    """(P2) What the thief of a profile gets from the listener for administrators."""
    clock = MovedClock()
    async with running_node(tmp_path, clock=clock) as node:
        read = (PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest())
        await node.call(*read)
        clock.pass_s(PRIVILEGED_IDLE_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await node.call(*read)
    refusal = failure(refused.value)
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert refusal.reason == "SESSION_ENDED"


async def test_a_super_administrators_session_ends_after_four_hours(
    node: OneNode,
) -> None:
    """(P2) However much it is used; the help desk's goes on to the general limit."""
    for name, password, lifetime_ms in (
        ("root", PASSWORD, 4 * HOUR_MS),
        (HELPER, HELPERS_PASSWORD, 12 * HOUR_MS),
    ):
        await node.login(name=name, password=password)
        left_ms = lifetime_ms
        while left_ms > 10 * MINUTE_MS:
            node.clock.pass_s(10 * 60)
            left_ms -= 10 * MINUTE_MS
            assert await works(node)
        node.clock.pass_s(10 * 60)
        # Also by this node's state alone, which no entry has told the time.
        assert not await works(node, stale_ok=True)
        assert not await works(node)


async def test_the_policy_cannot_make_privileged_sessions_the_longer_ones(
    node: OneNode,
) -> None:
    """(P2) The lower of both limits counts."""
    await node.login()
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"session_idle_ms": 5 * MINUTE_MS},
    )
    node.clock.pass_s(5 * 60 - 1)
    assert await works(node)
    node.clock.pass_s(5 * 60)
    assert not await works(node)
