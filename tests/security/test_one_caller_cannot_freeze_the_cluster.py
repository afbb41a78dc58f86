# SPDX-License-Identifier: Apache-2.0
"""
One caller floods; all others work, and a super administrator stops the flood (Q3).

The table of request ids is small here, so that a flood that lasts fills it in seconds.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import (
    agents_pb2,
    authentication_pb2,
    emergency_access_pb2,
    notices_pb2,
    policy_pb2,
    sessions_pb2,
    users_pb2,
)
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.authentication_pb2_grpc import AuthenticationServiceStub
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.notices_pb2_grpc import NoticeServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from sparecode_client import certificate_fingerprint
from sparecode_node.domain import policy
from sparecode_node.services.load.rates import RateLimits
from tests.rpc.edge import AGENTS, NOW, failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.services.one_node import UNLIMITED

pytestmark = pytest.mark.asyncio

ROOM = 160
"""The size of the table."""
FLOOD = 2 * ROOM
AT_ONCE = 16
OWN = "a password of my own"
RESET_TO = "a password that root has chosen"
CHANNEL = "siem"
REFUSED = authentication_pb2.AUTHENTICATION_DECISION_REFUSED
STOLEN = AGENTS.issue_agent("stolen", now=NOW)

Bearer = tuple[tuple[str, str], ...]


@dataclass
class Stage:
    """A node with a small table, two super administrators, and other callers."""

    node: LoopbackNode
    admin: grpc.aio.Channel
    vpn: grpc.aio.Channel
    stolen: grpc.aio.Channel
    bearers: dict[str, Bearer] = field(default_factory=dict)

    async def call(self, stub: Any, method: str, request: Any, *, by: str) -> Any:
        """Call a method as the administrator *by*."""
        return await getattr(stub(self.admin), method)(
            request, timeout=60, metadata=self.bearers[by]
        )

    async def sign_in(self, name: str, password: str = OWN) -> None:
        """Open a session of an administrator."""
        answer = await SessionServiceStub(self.admin).Login(
            sessions_pb2.LoginRequest(
                request_id=new_id(), administrator=name, password=password
            ),
            timeout=60,
        )
        self.bearers[name] = (("authorization", f"Bearer {answer.session}"),)

    async def add_administrator(self, name: str, role: Any) -> None:
        """Add an administrator with an own password, who signs in."""
        await self.call(
            AdministratorServiceStub,
            "CreateAdministrator",
            pb.CreateAdministratorRequest(
                request_id=new_id(),
                name=name,
                role=role,
                password="to be changed first",
                no_user=True,
            ),
            by="root",
        )
        await self.sign_in(name, "to be changed first")
        await self.call(
            AdministratorServiceStub,
            "ChangePassword",
            pb.ChangePasswordRequest(
                request_id=new_id(),
                old_password="to be changed first",
                new_password=OWN,
            ),
            by=name,
        )
        await self.sign_in(name)

    async def authenticate(self, channel: grpc.aio.Channel, username: str) -> int:
        """Return the decision on a wrong passcode."""
        answer = await AuthenticationServiceStub(channel).Authenticate(
            authentication_pb2.AuthenticateRequest(
                request_id=new_id(), username=username, passcode="0000ABCD2345"
            ),
            timeout=60,
        )
        return int(answer.decision)

    async def add_user(self, name: str, *, by: str) -> None:
        """Create a user."""
        request = users_pb2.CreateUserRequest(request_id=new_id(), username=name)
        await self.call(UserServiceStub, "CreateUser", request, by=by)

    async def add_channel(self) -> None:
        """Create a channel of notices, which an operator may send again."""
        request = notices_pb2.CreateChannelRequest(
            request_id=new_id(),
            name=CHANNEL,
            kind=notices_pb2.CHANNEL_KIND_WEBHOOK,
            address="https://siem.example/in",
            classes=[notices_pb2.EVENT_CLASS_UPKEEP],
            secret="whsec_" + "A" * 32,
        )
        await self.call(NoticeServiceStub, "CreateChannel", request, by="root")

    async def work(self, name: str) -> None:
        """Let the other callers work: an agent, an administrator, and one who signs in."""
        for number in range(3):
            assert await self.authenticate(self.vpn, "alice") == REFUSED
            await self.add_user(f"{name}-{number}", by="root")
        await self.sign_in("second")

    def counts(self) -> tuple[int, int]:
        """Return the rows of the table, and of the audit log."""
        with contextlib.closing(sqlite3.connect(self.node.path)) as db:
            return tuple(  # type: ignore[return-value]
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                for table in ("requests", "audit_events")
            )


async def reasons_of(calls: Callable[[int], Any], count: int) -> set[str]:
    """Make calls, several at once; return the reasons of those that fail."""
    reasons = set()

    async def make(numbers: range) -> None:
        for number in numbers:
            try:
                await calls(number)
            except grpc.aio.AioRpcError as error:
                reasons.add(failure(error).reason)

    async with asyncio.TaskGroup() as group:
        for start in range(AT_ONCE):
            group.create_task(make(range(start, count, AT_ONCE)))
    return reasons


@contextlib.asynccontextmanager
async def on_stage(
    folder: Path, limits: RateLimits, room: int, desks: Sequence[str] = ("desk",)
) -> AsyncIterator[Stage]:
    """Set the stage, with a table of *room* rows and a second super administrator."""
    async with running_node(folder, limits) as node:
        await node.populate()
        async with (
            node.admin() as admin,
            node.agents() as vpn,
            node.agents(STOLEN) as stolen,
        ):
            stage = Stage(node=node, admin=admin, vpn=vpn, stolen=stolen)
            stage.bearers["root"] = node.bearer
            await stage.call(
                AgentServiceStub,
                "RegisterAgent",
                agents_pb2.RegisterAgentRequest(
                    request_id=new_id(),
                    name="stolen",
                    certificate_identity="sparecode://agent/stolen",
                ),
                by="root",
            )
            await stage.add_channel()
            await stage.add_administrator("auditor", pb.ADMINISTRATOR_ROLE_AUDITOR)
            await stage.add_administrator("operator", pb.ADMINISTRATOR_ROLE_OPERATOR)
            for desk in desks:
                await stage.add_administrator(desk, pb.ADMINISTRATOR_ROLE_HELP_DESK)
            read = await stage.call(
                PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest(), by="root"
            )
            read.policy.requests_max = room
            await stage.call(
                PolicyServiceStub,
                "UpdatePolicy",
                policy_pb2.UpdatePolicyRequest(request_id=new_id(), policy=read.policy),
                by="root",
            )
            await stage.add_administrator("second", pb.ADMINISTRATOR_ROLE_SUPER_ADMIN)
            yield stage


@pytest_asyncio.fixture
async def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Return the stage. No rate slows the flood: the table alone must withstand it."""
    monkeypatch.setitem(policy.BOUNDS, "requests_max", (100, 5_000_000))
    async with on_stage(tmp_path, UNLIMITED, ROOM) as stage:
        yield stage


async def test_an_auditor_floods_and_leaves_no_trace_in_the_table(stage: Stage) -> None:
    """(Q3, P1, U1) Rejecting needs a permission, and equal refusals share an event."""
    rows, events = stage.counts()

    async def reject(number: int) -> None:
        await stage.call(
            AdministratorServiceStub,
            "Reject",
            pb.RejectRequest(request_id=new_id(), approval_id=number + 1),
            by="auditor",
        )

    assert await reasons_of(reject, FLOOD) == {"ROLE"}
    await stage.node.recorded_events()
    assert stage.counts()[0] <= rows + 2
    assert stage.counts()[1] <= events + 2
    await stage.work("auditor")


@pytest.mark.parametrize(
    ("name", "service", "method", "request_of"),
    [
        (
            "desk",
            UserServiceStub,
            "UnlockUser",
            lambda: users_pb2.UnlockUserRequest(request_id=new_id(), username="alice"),
        ),
        (
            "operator",
            NoticeServiceStub,
            "SendNoticesAgain",
            lambda: notices_pb2.SendNoticesAgainRequest(
                request_id=new_id(), channel=CHANNEL
            ),
        ),
    ],
    ids=["help desk", "operator"],
)
async def test_an_administrator_floods_and_the_next_one_stops_it(
    stage: Stage, name: str, service: Any, method: str, request_of: Callable[[], Any]
) -> None:
    """
    (Q3, P4) The flood ends at the caller's share; the reserve lets others stop it.

    Root on the node can request a reset meanwhile.
    """

    async def flood(_: int) -> None:
        await stage.call(service, method, request_of(), by=name)

    # No dead letter waits, so sending again is refused as long as it is judged.
    judged = {"NOTICE_UNKNOWN"} if method == "SendNoticesAgain" else set()
    assert await reasons_of(flood, FLOOD) == {"OVERLOADED", *judged}
    assert stage.counts()[0] < ROOM
    await stage.work(name)
    reset = await stage.node.resets.reset_administrator("auditor", RESET_TO, uid=0)
    assert reset is not None
    assert reset.administrator == "auditor"
    await stage.call(
        AdministratorServiceStub,
        "UpdateAdministrator",
        pb.UpdateAdministratorRequest(request_id=new_id(), name=name, enabled=False),
        by="second",
    )
    assert await reasons_of(flood, 1) == {"SESSION_ENDED"}


async def test_an_agent_floods_and_its_certificate_is_turned_away(stage: Stage) -> None:
    """(Q3, A4) Once denied, its calls cost no hash and no entry in the log."""

    async def guess(number: int) -> None:
        await stage.authenticate(stage.stolen, f"user {number}")

    assert await reasons_of(guess, FLOOD) == {"OVERLOADED"}
    await stage.work("agent")
    await stage.call(
        AgentServiceStub,
        "DenyCertificate",
        agents_pb2.DenyCertificateRequest(
            request_id=new_id(),
            fingerprint=certificate_fingerprint(STOLEN.certificate),
        ),
        by="second",
    )
    before, events = stage.node.facts(), stage.counts()[1]
    assert await reasons_of(guess, FLOOD) == {"CERTIFICATE_REFUSED"}
    assert stage.node.facts() == before
    assert (await stage.node.recorded_events())[-1] == (
        *("agent:sparecode://agent/stolen", "NoteRefusedCalls"),
        *("AuthenticationService/Authenticate", "refused", "certificate_denied"),
    )
    assert stage.counts()[1] <= events + 2
    await stage.work("after")


async def test_strangers_flood_and_administrators_sign_in(stage: Stage) -> None:
    """(Q3, L7, U1) Sign-ins under unknown names and unknown sessions are not remembered."""
    rows, events = stage.counts()

    async def sign_in(number: int) -> None:
        await stage.sign_in(f"name {number}", "a wrong password")

    async def unknown_session(_: int) -> None:
        await stage.add_user("mallory", by="stranger")

    assert await reasons_of(sign_in, FLOOD) == {"SIGN_IN_REFUSED"}
    stage.bearers["stranger"] = (("authorization", f"Bearer {'A' * 43}"),)
    assert await reasons_of(unknown_session, FLOOD) == {"SESSION_ENDED"}
    assert stage.counts()[0] <= rows + 2
    assert stage.counts()[1] <= events + 5
    await stage.work("strangers")


async def test_signing_in_and_ending_sessions_work_beside_a_stolen_session(
    stage: Stage,
) -> None:
    """(Q3, P2) The owner of the flooding session signs in elsewhere and ends it."""

    async def disable(_: int) -> None:
        request = users_pb2.UpdateUserRequest(
            request_id=new_id(), username="alice", enabled=False
        )
        await stage.call(UserServiceStub, "UpdateUser", request, by="root")

    async def enable(_: int) -> None:
        request = users_pb2.UpdateUserRequest(
            request_id=new_id(), username="alice", enabled=True
        )
        await stage.call(UserServiceStub, "UpdateUser", request, by="root")

    for flood in (enable, disable):
        assert await reasons_of(flood, FLOOD) == {"OVERLOADED"}
    stolen = stage.bearers["root"]
    await stage.sign_in("root", "correct horse battery")
    request = sessions_pb2.LogoutEverywhereRequest(request_id=new_id())
    await stage.call(SessionServiceStub, "LogoutEverywhere", request, by="root")
    stage.bearers["root"] = stolen
    assert await reasons_of(disable, 1) == {"SESSION_ENDED"}


async def test_many_stolen_sessions_shed_no_agent_through_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(Q3) Rows of the reserve are counted apart, so they take no room of the others."""
    monkeypatch.setitem(policy.BOUNDS, "requests_max", (100, 5_000_000))
    # Enough of them to take the whole table if the reserve's rows counted there.
    desks = ("desk", *(f"desk {number}" for number in range(10)))
    room = 3 * ROOM
    async with on_stage(tmp_path, UNLIMITED, room, desks) as stage:

        async def unlock(_: int) -> None:
            request = users_pb2.UnlockUserRequest(request_id=new_id(), username="alice")
            await stage.call(UserServiceStub, "UnlockUser", request, by="desk")

        async def disable(number: int) -> None:
            request = emergency_access_pb2.DisableEmergencyAccessRequest(
                request_id=new_id(), serial="1"
            )
            await stage.call(
                EmergencyAccessServiceStub,
                "DisableEmergencyAccess",
                request,
                by=desks[number % len(desks)],
            )

        assert await reasons_of(unlock, room) == {"OVERLOADED"}
        flood = await reasons_of(disable, 2 * room)
        assert flood == {"NO_EMERGENCY_ACCESS", "OVERLOADED"}
        assert await stage.authenticate(stage.vpn, "alice") == REFUSED
        await stage.sign_in("second")
        await stage.add_user("bob", by="second")
        assert stage.counts()[0] < room


@pytest.mark.parametrize(
    ("service", "method", "unknown", "reason"),
    [
        (
            UserServiceStub,
            "UnlockUser",
            lambda number: users_pb2.UnlockUserRequest(
                request_id=new_id(), username=f"name {number}"
            ),
            "USER_UNKNOWN",
        ),
        (
            SessionServiceStub,
            "EndSession",
            lambda number: sessions_pb2.EndSessionRequest(
                request_id=new_id(), session_id=f"{number:016x}"
            ),
            "SESSION_UNKNOWN",
        ),
    ],
    ids=["names", "sessions"],
)
async def test_what_does_not_exist_takes_no_room(
    stage: Stage,
    service: Any,
    method: str,
    unknown: Callable[[int], Any],
    reason: str,
) -> None:
    """
    (Q3, U1, P2) A flood of names or sessions leaves no row, and shares its audit events.

    Ids of sessions are as endless as names, and the reserve is for such calls.
    """
    rows, events = stage.counts()

    async def call(number: int) -> None:
        await stage.call(service, method, unknown(number), by="desk")

    assert await reasons_of(call, FLOOD) == {reason}
    assert stage.counts()[0] <= rows
    assert stage.counts()[1] <= events + 40
    await stage.work("names")


async def test_each_session_and_certificate_has_a_rate(tmp_path: Path) -> None:
    """(Q3, L7) A faster caller is told when to try again, and others are not slowed."""
    limits = replace(UNLIMITED, session=10, agent=10)
    async with on_stage(tmp_path, limits, 10_000) as stage:

        async def read(_: int) -> None:
            await stage.call(
                PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest(), by="desk"
            )

        async def guess(number: int) -> None:
            await stage.authenticate(stage.stolen, f"user {number}")

        assert await reasons_of(read, 150) == {"RATE"}
        assert await reasons_of(guess, 150) == {"RATE"}
        await stage.work("rates")
