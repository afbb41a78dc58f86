# SPDX-License-Identifier: Apache-2.0
"""Judging and hashing new passwords holds up no node (P4, Q3)."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode_node.domain.administrators import REAUTHENTICATION_MS, Role
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.errors import InvalidFieldError, RateError, Refused
from sparecode_node.services.load.rates import BURST_S, DEFAULT_LIMITS
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.secrets import password_strength
from sparecode_node.services.secrets.kdf import Lane
from sparecode_node.services.secrets.password_strength import (
    WAITING_MAX,
    check_new_password,
)
from tests.rpc.edge import Failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import SignedIn, administrator
from tests.services.one_node import one_node

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


async def reason_of(call: Awaitable[object]) -> str:
    """Await a call that must be refused; return the kind of its refusal."""
    with pytest.raises((InvalidFieldError, RateError)) as raised:
        await call
    return type(raised.value).__name__


async def test_setting_passwords_has_a_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P4) One's own, another's and a new administrator's share it, in all sessions."""
    judgements = Judgements()
    async with one_node(tmp_path, DEFAULT_LIMITS) as node:
        monkeypatch.setattr(password_strength, "_score", judgements.score)

        async def attempts() -> list[str]:
            change = functools.partial(
                node.administrators.change_password, new_password=COSTLY
            )
            changing = "AdministratorService/ChangePassword"
            create = node.administrators.create(
                node.admin("AdministratorService/CreateAdministrator"),
                name="eve",
                role=Role.AUDITOR,
                link=Link(""),
                password=COSTLY,
            )
            other = change(node.admin(changing), name="root2", old_password="")
            own = change(node.admin(changing), name="", old_password="wrong")
            return [await reason_of(each) for each in (create, other, own)]

        reasons = []
        for _ in range(5):
            reasons += await attempts()
            await node.login()
        assert reasons[:BURST_S] == ["InvalidFieldError"] * BURST_S
        assert set(reasons[BURST_S:]) == {"RateError"}
        assert judgements.total == BURST_S
        node.clock.pass_s(1)
        assert (await attempts()).count("RateError") == 2


async def test_a_session_confirms_before_the_password_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P7, U1) The refusal costs no judgement and no hash, and is in the audit log."""
    judgements = Judgements()
    async with one_node(tmp_path, DEFAULT_LIMITS) as node:
        node.clock.pass_s(REAUTHENTICATION_MS / 1000 + 1)
        monkeypatch.setattr(password_strength, "_score", judgements.score)
        hashes = node.kdf.evaluations(Lane.ISSUING)
        with pytest.raises(Refused) as raised:
            await node.administrators.change_password(
                node.admin("AdministratorService/ChangePassword"),
                name="",
                old_password="wrong",
                new_password=COSTLY,
            )
        assert raised.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED
        assert judgements.total == 0
        assert node.kdf.evaluations(Lane.ISSUING) == hashes
        await node.refusals.flush(node.replicator)
        recorded = node.primary_db.execute(
            "SELECT action, reason FROM audit_events ORDER BY sequence DESC"
        )
        assert recorded.fetchone() == (
            "NoteRefusedCalls",
            Reason.REAUTHENTICATION_NEEDED.value,
        )


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
