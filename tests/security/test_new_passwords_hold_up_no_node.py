# SPDX-License-Identifier: Apache-2.0
"""Judging and hashing new passwords holds up no node (P4, Q3)."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.load.rates import BURST_S, DEFAULT_LIMITS
from sparecode_node.services.secrets import password_strength
from sparecode_node.services.secrets.password_strength import (
    WAITING_MAX,
    check_new_password,
)
from tests.rpc.edge import Failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import SignedIn, administrator, root

pytestmark = pytest.mark.asyncio

AUDITOR = pb.ADMINISTRATOR_ROLE_AUDITOR
COSTLY = "a4@b8c({[<e3g69i1!|" * 50
"""Symbols that look like letters are the most costly to judge."""


class Judgements:
    """Counts the judgements, and how many there were at the same time."""

    def __init__(self) -> None:
        self.total = self.at_once = self.at_once_max = 0

    def score(self, *_: object) -> int:
        self.total += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        time.sleep(0.01)
        self.at_once -= 1
        return 0


@pytest.fixture
def judgements(monkeypatch: pytest.MonkeyPatch) -> Judgements:
    judgements = Judgements()
    monkeypatch.setattr(password_strength, "_score", judgements.score)
    return judgements


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    async with running_node(tmp_path) as node:
        yield node


async def refused(by: SignedIn, name: str) -> Failure:
    """Set a password for the administrator *name* that is refused; return the refusal."""
    return await by.refused(
        AdministratorServiceStub,
        "ChangePassword",
        pb.ChangePasswordRequest(request_id=new_id(), name=name, new_password=COSTLY),
    )


async def test_a_role_is_checked_before_the_password(
    node: LoopbackNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P1, P4, U1) An auditor may not set passwords, so none is judged or hashed."""
    auditor = await administrator(node, "auditor", AUDITOR)
    judgements = Judgements()
    monkeypatch.setattr(password_strength, "_score", judgements.score)
    for _ in range(20):
        refusal = await refused(auditor, "root")
        assert refusal.reason == "ROLE"
        assert (
            "auditor may not change another administrator's password" in refusal.words
        )
    assert judgements.total == 0
    assert ("administrator:auditor", "NoteRefusedCalls") in [
        event[:2] for event in await node.recorded_events()
    ]


async def test_setting_passwords_of_others_has_a_rate(
    node: LoopbackNode, judgements: Judgements
) -> None:
    """(P4) Changing another's password and adding administrators share it."""
    reasons = []
    for number in range(2 * BURST_S):
        reasons.append((await refused(root(node), "root2")).reason)
        new = await root(node).refused(
            AdministratorServiceStub,
            "CreateAdministrator",
            pb.CreateAdministratorRequest(
                request_id=new_id(),
                name=f"eve{number}",
                role=AUDITOR,
                password=COSTLY,
                no_user=True,
            ),
        )
        reasons.append(new.reason)
    burst = BURST_S * DEFAULT_LIMITS.sign_in
    assert reasons[:burst] == ["FIELD"] * burst
    assert reasons.count("RATE") >= burst
    assert judgements.total == reasons.count("FIELD")


async def test_passwords_are_judged_one_at_a_time(judgements: Judgements) -> None:
    """(P4) And only a few of them wait."""
    outcomes = await asyncio.gather(
        *(
            check_new_password("password", COSTLY, name="eve", second_factor=False)
            for _ in range(2 * WAITING_MAX)
        ),
        return_exceptions=True,
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(InvalidFieldError) == WAITING_MAX
    assert kinds.count(OverloadedError) == WAITING_MAX
    assert judgements.at_once_max == 1
