# SPDX-License-Identifier: Apache-2.0
"""
A second approver is needed for what an administrator could use in a user's place (I10).

The attacks: an administrator assigns a token to a user whose seed they have chosen, or a
second token that needs no PIN, and issues codes for it; or waits for a day after setting
a PIN; or issues the codes first. Then they sign in as that user.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode.v1 import (
    administrators_pb2,
    emergency_access_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from tests.rpc.loopback_node import PIN, new_id, running_node
from tests.security.administrators import (
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
)

pytestmark = pytest.mark.asyncio

REQUESTS = {
    "EnrollToken": tokens_pb2.EnrollTokenRequest,
    "AssignToken": tokens_pb2.AssignTokenRequest,
    "UnassignToken": tokens_pb2.UnassignTokenRequest,
    "ReplaceToken": tokens_pb2.ReplaceTokenRequest,
    "SetPin": tokens_pb2.SetPinRequest,
    "ClearPin": tokens_pb2.ClearPinRequest,
    "EnableToken": tokens_pb2.EnableTokenRequest,
    "DisableToken": tokens_pb2.DisableTokenRequest,
    "CreateUser": users_pb2.CreateUserRequest,
    "DeleteUser": users_pb2.DeleteUserRequest,
    "UpdateUser": users_pb2.UpdateUserRequest,
    "UnlockUser": users_pb2.UnlockUserRequest,
    "IssueTokencodes": emergency_access_pb2.IssueTokencodesRequest,
}


@dataclass(frozen=True)
class Desk:
    """Two super administrators. Alice has token 1 with a PIN, both from `root`."""

    mallory: SignedIn
    """Signed in as the first administrator."""
    eve: SignedIn

    async def change(self, who: SignedIn, method: str, **fields: Any) -> Any:
        request = REQUESTS[method](request_id=new_id(), **fields)
        return await who.call(_stub(method), method, request)

    async def enroll(
        self, who: SignedIn, serial: str, rule: Any = types_pb2.PIN_RULE_NONE
    ) -> None:
        await self.change(
            who,
            "EnrollToken",
            serial=serial,
            algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
            digits=6,
            period_seconds=30,
            seed=serial.encode().ljust(20, b"."),
            pin_rule=rule,
        )

    async def waits(self, who: SignedIn, method: str, **fields: Any) -> int:
        """Request a change that needs an approval; return the approval's number."""
        request = REQUESTS[method](request_id=new_id(), **fields)
        refusal = await who.refused(_stub(method), method, request)
        assert refusal.reason == "APPROVAL_NEEDED", refusal
        return int(refusal.words.rpartition("approval ")[2].split()[0].rstrip(".:;,"))

    async def approval_refused(self, number: int) -> str:
        """Return the reason why `eve` cannot approve a request."""
        refusal = await self.eve.refused(
            AdministratorServiceStub,
            "Approve",
            administrators_pb2.ApproveRequest(request_id=new_id(), approval_id=number),
        )
        return refusal.reason


def _stub(method: str) -> Any:
    if method == "IssueTokencodes":
        return EmergencyAccessServiceStub
    return UserServiceStub if method.endswith("User") else TokenServiceStub


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with running_node(tmp_path) as node:
        await node.populate()
        yield Desk(root(node), await administrator(node, "eve", SUPER_ADMIN))


async def test_a_token_with_a_known_seed_is_not_assigned_alone(desk: Desk) -> None:
    """(I10) Nor is any second token: the assigner may hold the device."""
    await desk.enroll(desk.mallory, "2")
    await desk.enroll(desk.eve, "3")
    for serial in ("2", "3"):
        assert await desk.waits(
            desk.mallory, "AssignToken", serial=serial, username="alice"
        )
        assert await desk.waits(
            desk.mallory, "ReplaceToken", serial="1", replacement_serial=serial
        )


async def test_the_only_token_is_not_exchanged_alone(desk: Desk) -> None:
    """(I10) A user who had a token is no new user, also not under a new id."""
    await desk.enroll(desk.mallory, "2")
    await desk.change(desk.mallory, "UnassignToken", serial="1")
    assert await desk.waits(desk.mallory, "AssignToken", serial="2", username="alice")
    await desk.change(desk.mallory, "DeleteUser", username="alice")
    await desk.change(desk.mallory, "CreateUser", username="ALICE")
    assert await desk.waits(desk.mallory, "AssignToken", serial="2", username="alice")


async def test_who_knows_a_secret_does_not_issue_alone(desk: Desk) -> None:
    """(I10) One permit is for one set; an administrator who knows nothing needs none."""
    number = await desk.waits(desk.mallory, "IssueTokencodes", serial="1", count=1)
    await desk.eve.approve(number)
    await desk.change(desk.mallory, "IssueTokencodes", serial="1", count=1)
    assert await desk.waits(desk.mallory, "IssueTokencodes", serial="1", count=1)
    await desk.change(desk.eve, "IssueTokencodes", serial="1", count=1)


async def test_who_knows_a_seed_does_not_change_the_pin_alone(desk: Desk) -> None:
    """(I10) Seed and PIN together are the token."""
    assert await desk.waits(desk.mallory, "SetPin", serial="1", pin=PIN)
    assert await desk.waits(desk.mallory, "ClearPin", serial="1")
    await desk.change(desk.mallory, "DisableToken", serial="1")
    assert await desk.waits(desk.mallory, "EnableToken", serial="1")


async def test_another_administrator_confirms_a_token(desk: Desk) -> None:
    """(I10, P3) The approval makes the change, and the author needs no other one."""
    await desk.enroll(desk.mallory, "2")
    number = await desk.waits(desk.mallory, "AssignToken", serial="2", username="alice")
    await desk.eve.approve(number)
    issued = await desk.change(desk.mallory, "IssueTokencodes", serial="2", count=1)
    assert len(issued.codes) == 1


async def test_an_approval_is_void_for_another_seed(desk: Desk) -> None:
    """(I10, P3) The token is enrolled again between the request and its approval."""
    await desk.enroll(desk.eve, "2")
    number = await desk.waits(desk.mallory, "AssignToken", serial="2", username="alice")
    deletion = tokens_pb2.DeleteTokenRequest(request_id=new_id(), serial="2")
    await desk.mallory.call(TokenServiceStub, "DeleteToken", deletion)
    await desk.enroll(desk.mallory, "2")
    assert await desk.approval_refused(number) == "APPROVAL_STALE"


async def test_a_new_user_gets_a_token_from_one_administrator(desk: Desk) -> None:
    """(I10) A new user has nothing to lose yet. Codes for the token need an approval."""
    await desk.change(desk.mallory, "CreateUser", username="newcomer")
    await desk.enroll(desk.mallory, "2")
    await desk.change(desk.mallory, "AssignToken", serial="2", username="newcomer")
    assert await desk.waits(desk.mallory, "IssueTokencodes", serial="2", count=1)


async def test_a_known_seed_is_not_for_a_user_of_another_administrator(
    desk: Desk,
) -> None:
    """(I10) Also if that user never had a token, or is deleted and created again."""
    await desk.change(desk.eve, "CreateUser", username="boss")
    await desk.enroll(desk.mallory, "2")
    assert await desk.waits(desk.mallory, "AssignToken", serial="2", username="boss")
    await desk.change(desk.mallory, "DeleteUser", username="boss")
    await desk.change(desk.mallory, "CreateUser", username="boss")
    assert await desk.waits(desk.mallory, "AssignToken", serial="2", username="boss")


async def test_codes_and_pin_are_not_got_one_after_the_other(desk: Desk) -> None:
    """(I10) Nor is the PIN guessed with the codes, unlocking the user each time."""
    await desk.change(desk.eve, "IssueTokencodes", serial="1", count=1)
    assert await desk.waits(desk.eve, "SetPin", serial="1", pin=PIN)
    assert await desk.waits(desk.eve, "ClearPin", serial="1")
    assert await desk.waits(desk.eve, "UnlockUser", username="alice")


async def test_an_own_token_is_not_brought_back_alone(desk: Desk) -> None:
    """(I10) Another administrator has disabled it, or has disabled the user."""
    await desk.change(desk.mallory, "CreateUser", username="newcomer")
    await desk.enroll(desk.mallory, "2")
    await desk.change(desk.mallory, "AssignToken", serial="2", username="newcomer")
    await desk.change(desk.eve, "DisableToken", serial="2")
    assert await desk.waits(desk.mallory, "EnableToken", serial="2")
    await desk.change(desk.eve, "UpdateUser", username="newcomer", enabled=False)
    assert await desk.waits(
        desk.mallory, "UpdateUser", username="newcomer", enabled=True
    )
    await desk.change(desk.eve, "UpdateUser", username="newcomer", enabled=True)
    assert await desk.waits(desk.mallory, "UnlockUser", username="newcomer")


async def test_an_approval_is_void_for_another_pin_rule(desk: Desk) -> None:
    """(I10, P3) The token that was approved asks for a PIN; this one does not."""
    await desk.enroll(desk.mallory, "2", rule=types_pb2.PIN_RULE_PREPENDED)
    number = await desk.waits(desk.mallory, "AssignToken", serial="2", username="alice")
    deletion = tokens_pb2.DeleteTokenRequest(request_id=new_id(), serial="2")
    await desk.mallory.call(TokenServiceStub, "DeleteToken", deletion)
    await desk.enroll(desk.mallory, "2")
    assert await desk.approval_refused(number) == "APPROVAL_STALE"


async def test_who_assigned_a_token_does_not_issue_alone(desk: Desk) -> None:
    """(I10) Without having seen its seed: the device may be in the assigner's hand."""
    await desk.enroll(desk.eve, "2")
    await desk.change(desk.mallory, "CreateUser", username="newcomer")
    await desk.change(desk.mallory, "AssignToken", serial="2", username="newcomer")
    assert await desk.waits(desk.mallory, "IssueTokencodes", serial="2", count=1)


async def test_who_set_a_pin_does_not_issue_alone(desk: Desk) -> None:
    """(I10) Neither set nor cleared, without a time limit; the seed is another's."""
    for serial, name, method, fields in (
        ("2", "newcomer", "SetPin", {"pin": "9157"}),
        ("3", "beginner", "ClearPin", {}),
    ):
        await desk.change(desk.eve, "CreateUser", username=name)
        await desk.enroll(desk.eve, serial, rule=types_pb2.PIN_RULE_PREPENDED)
        await desk.change(desk.eve, "AssignToken", serial=serial, username=name)
        await desk.change(desk.eve, "SetPin", serial=serial, pin="7391")
        await desk.change(desk.mallory, method, serial=serial, **fields)
        if method == "SetPin":
            assert await desk.waits(
                desk.mallory, "IssueTokencodes", serial=serial, count=1
            )
        await desk.change(desk.mallory, "DisableToken", serial=serial)
        assert await desk.waits(desk.mallory, "EnableToken", serial=serial)
