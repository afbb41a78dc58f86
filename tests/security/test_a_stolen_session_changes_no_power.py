# SPDX-License-Identifier: Apache-2.0
"""
A session is not enough to change power (P7).

The attacks: a stolen session, or a browser that was left open, sets a second factor,
adds an administrator, admits a member, rotates the keys, or adds a recipient of
backups. The attacker does not know the password.
"""

import base64
import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pyrage
import pytest
import pytest_asyncio
from google.protobuf import duration_pb2

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import (
    agents_pb2,
    cluster_pb2,
    moves_pb2,
    notices_pb2,
    policy_pb2,
    sessions_pb2,
    types_pb2,
)
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.moves_pb2_grpc import MoveServiceStub
from sparecode.v1.notices_pb2_grpc import NoticeServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode_node.domain.administrators import SECOND_FACTOR, Role
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.notices import CLASSES, EventClass
from sparecode_node.domain.policy import Policy, public_name
from sparecode_node.domain.tokencodes import step_at, tokencode_at
from sparecode_node.services.access import authorization
from sparecode_node.services.access.authorization import NEEDS
from sparecode_node.services.ambient import SystemClock
from sparecode_node.services.errors import Refused
from sparecode_node.services.people.administrators import Link
from sparecode_node.statemachine import power
from tests.console.desk import Desk
from tests.rpc.edge import failure
from tests.rpc.loopback_node import PASSWORD, LoopbackNode, new_id, running_node
from tests.security.administrators import SUPER_ADMIN, administrator, root
from tests.services import one_node

HELP_DESK = pb.ADMINISTRATOR_ROLE_HELP_DESK
MINUTES_MS = 60_000
RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node whose root has a session that showed its password long ago."""
    async with running_node(tmp_path) as started:
        await administrator(started, "dora", HELP_DESK)
        age(started, 6)
        yield started


def age(node: LoopbackNode, minutes: int) -> None:
    """Make every session's last password older."""
    with node.state_written() as db:
        db.execute(
            "UPDATE sessions SET proved_at_ms = proved_at_ms - ?",
            (minutes * MINUTES_MS,),
        )


def policy(**values: Any) -> policy_pb2.UpdatePolicyRequest:
    return policy_pb2.UpdatePolicyRequest(
        request_id=new_id(), policy=policy_pb2.Policy(version=1, **values)
    )


CHANGES: dict[str, tuple[Any, str, Any]] = {
    "add": (
        AdministratorServiceStub,
        "CreateAdministrator",
        pb.CreateAdministratorRequest(
            request_id=new_id(),
            name="mallory",
            role=SUPER_ADMIN,
            no_user=True,
            password="a temporary password for once",
        ),
    ),
    "promote": (
        AdministratorServiceStub,
        "UpdateAdministrator",
        pb.UpdateAdministratorRequest(
            request_id=new_id(), name="dora", role=SUPER_ADMIN
        ),
    ),
    "remove": (
        AdministratorServiceStub,
        "RemoveAdministrator",
        pb.RemoveAdministratorRequest(request_id=new_id(), name="dora"),
    ),
    "another's password": (
        AdministratorServiceStub,
        "ChangePassword",
        pb.ChangePasswordRequest(
            request_id=new_id(), name="dora", new_password="of the thief's choice"
        ),
    ),
    "second factor": (
        AdministratorServiceStub,
        "EnrollSecondFactor",
        pb.EnrollSecondFactorRequest(),
    ),
    "canceled reset": (
        AdministratorServiceStub,
        "CancelReset",
        pb.CancelResetRequest(request_id=new_id(), name="dora"),
    ),
    "member": (
        ClusterServiceStub,
        "AddMember",
        cluster_pb2.AddMemberRequest(
            request_id=new_id(), node_id="n9", address="10.0.0.9:7301"
        ),
    ),
    "removed member": (
        ClusterServiceStub,
        "RemoveMember",
        cluster_pb2.RemoveMemberRequest(request_id=new_id(), node_id="n9"),
    ),
    "archive": (
        ClusterServiceStub,
        "ConfirmArchive",
        cluster_pb2.ConfirmArchiveRequest(
            request_id=new_id(), first=1, last=1, place="a disk in a drawer"
        ),
    ),
    "withdrawn archive": (
        ClusterServiceStub,
        "WithdrawArchive",
        cluster_pb2.WithdrawArchiveRequest(
            request_id=new_id(), administrator="root", reason="a tape is lost"
        ),
    ),
    "lost segments": (
        ClusterServiceStub,
        "DeclareSegmentsLost",
        cluster_pb2.DeclareSegmentsLostRequest(
            request_id=new_id(), first=1, last=1, reason="its disk was destroyed"
        ),
    ),
    "prepared move": (
        MoveServiceStub,
        "PrepareMove",
        moves_pb2.PrepareMoveRequest(
            request_id=new_id(),
            last_slot=4095,
            source=moves_pb2.MoveKey(
                cluster_id="another", key_id=1, public_key=bytes(32)
            ),
        ),
    ),
    "frozen users": (
        MoveServiceStub,
        "FreezeUsers",
        moves_pb2.FreezeUsersRequest(
            request_id=new_id(),
            ticket=moves_pb2.MoveTicket(
                move_id="m1",
                last_slot=4095,
                source="this",
                target="another",
                source_key_id=1,
                public_key=bytes(range(32)),
                activated_lock=bytes(32),
                canceled_lock=bytes(32),
            ),
        ),
    ),
    "deleted users": (
        MoveServiceStub,
        "DeleteMovedUsers",
        moves_pb2.DeleteMovedUsersRequest(request_id=new_id(), move_id="m1"),
    ),
    "reclaimed users": (
        MoveServiceStub,
        "ReclaimMove",
        moves_pb2.ReclaimMoveRequest(
            request_id=new_id(), move_id="m1", reason="it is lost"
        ),
    ),
    "kept authorities": (
        ClusterServiceStub,
        "KeepAuthorities",
        cluster_pb2.KeepAuthoritiesRequest(
            request_id=new_id(), node_id="n9", reason="it is mine now"
        ),
    ),
    "replaced authorities": (
        ClusterServiceStub,
        "ReplaceAuthorities",
        cluster_pb2.ReplaceAuthoritiesRequest(request_id=new_id(), node_id="n9"),
    ),
    "ticket": (
        ClusterServiceStub,
        "CreateJoinTicket",
        cluster_pb2.CreateJoinTicketRequest(
            request_id=new_id(), node_id="n9", address="10.0.0.9:7301"
        ),
    ),
    "another's second factor": (
        AdministratorServiceStub,
        "RemoveSecondFactor",
        pb.RemoveSecondFactorRequest(request_id=new_id(), name="dora"),
    ),
    "agent": (
        AgentServiceStub,
        "RegisterAgent",
        agents_pb2.RegisterAgentRequest(
            request_id=new_id(), name="mine", certificate_identity="DNS:mine"
        ),
    ),
    "removed agent": (
        AgentServiceStub,
        "RemoveAgent",
        agents_pb2.RemoveAgentRequest(request_id=new_id(), name="vpn"),
    ),
    "allowed certificate": (
        AgentServiceStub,
        "AllowCertificate",
        agents_pb2.AllowCertificateRequest(request_id=new_id(), serial_number="1f"),
    ),
    "RADIUS client": (
        AgentServiceStub,
        "RegisterRadiusClient",
        agents_pb2.RegisterRadiusClientRequest(
            request_id=new_id(),
            name="wifi",
            protects=types_pb2.AGENT_PROTECTS_CLOUD,
            networks=["192.0.2.9/32"],
        ),
    ),
    "channel": (
        NoticeServiceStub,
        "RemoveChannel",
        notices_pb2.RemoveChannelRequest(request_id=new_id(), name="mail"),
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("change", CHANGES)
async def test_a_session_alone_changes_no_power(
    node: LoopbackNode, change: str
) -> None:
    """(P7) It changes nothing, and the password opens it for five minutes."""
    stub, method, request = CHANGES[change]
    before = facts(node)
    refusal = await root(node).refused(stub, method, request)
    assert refusal.reason == "REAUTHENTICATION_NEEDED"
    assert facts(node) == before
    await confirmed(node, PASSWORD)
    with contextlib.suppress(grpc.aio.AioRpcError):  # Some are refused for more.
        await root(node).call(stub, method, request)
    with contextlib.closing(sqlite3.connect(node.path)) as db:
        reasons = db.execute(
            "SELECT reason FROM audit_events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
    assert reasons != ("reauthentication_needed",)
    age(node, 6)
    refusal = await root(node).refused(stub, method, request_again(request))
    assert refusal.reason == "REAUTHENTICATION_NEEDED"


AGENT = "gateway"
GIVES_MORE: dict[str, Any] = {
    "enabled": True,
    "restricted": False,
    "protects": types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
    "add_usernames": ["alice"],
    "add_groups": ["staff"],
    "filter_id": "staff",
    "class_attribute": "staff",
    "session_timeout_seconds": 3600,
}
"""Changes that let an agent do more, or admit more users."""

REMOVES_ATTRIBUTES: dict[str, Any] = {
    "filter_id": "",
    "class_attribute": "",
    "session_timeout_seconds": 0,
}
"""Without an attribute, a gateway may give the user a role with more rights, or no end."""

TAKES_AWAY: dict[str, Any] = {
    "enabled": False,
    "restricted": True,
    "protects": types_pb2.AGENT_PROTECTS_CLOUD,
    "remove_groups": ["staff"],
}


def agent_change(**values: Any) -> Any:
    return agents_pb2.UpdateAgentRequest(request_id=new_id(), name=AGENT, **values)


def denial(serial_number: str) -> Any:
    return agents_pb2.DenyCertificateRequest(
        request_id=new_id(), serial_number=serial_number, note="stolen"
    )


@pytest.mark.asyncio
async def test_a_session_alone_gives_an_agent_nothing(node: LoopbackNode) -> None:
    """(P7) It restricts one at once, which stops an attack, and cannot undo that."""
    await confirmed(node, PASSWORD)
    await root(node).call(
        AgentServiceStub,
        "RegisterAgent",
        agents_pb2.RegisterAgentRequest(
            request_id=new_id(),
            name=AGENT,
            certificate_identity="DNS:gateway",
            filter_id="guests",
            class_attribute="guests",
            session_timeout_seconds=60,
        ),
    )
    age(node, 6)
    for name, value in TAKES_AWAY.items():
        change = agent_change(**{name: value})
        await root(node).call(AgentServiceStub, "UpdateAgent", change)
    for name, value in (*GIVES_MORE.items(), *REMOVES_ATTRIBUTES.items()):
        change = agent_change(**{name: value})
        before = facts(node)
        refusal = await root(node).refused(AgentServiceStub, "UpdateAgent", change)
        assert refusal.reason == "REAUTHENTICATION_NEEDED", name
        assert facts(node) == before
    await confirmed(node, PASSWORD)
    more = agent_change(
        **{name: GIVES_MORE[name] for name in ("enabled", "restricted")}
    )
    await root(node).call(AgentServiceStub, "UpdateAgent", more)


@pytest.mark.asyncio
async def test_a_session_alone_denies_few_certificates(node: LoopbackNode) -> None:
    """
    (P7) Denying stops an attack, so it works at once; and it keeps users out.

    So a thief of a session does not turn every agent away. Its owner still can.
    """
    for number in range(power.RESTRICTIONS_PER_HOUR):
        await root(node).call(AgentServiceStub, "DenyCertificate", denial(f"a{number}"))
    refusal = await root(node).refused(AgentServiceStub, "DenyCertificate", denial("b"))
    assert refusal.reason == "REAUTHENTICATION_NEEDED"
    with contextlib.closing(sqlite3.connect(node.path)) as db:
        (told,) = db.execute(
            "SELECT count(*) FROM audit_events "
            "WHERE action = 'DenyCertificate' AND outcome = 'applied'"
        ).fetchone()
    assert told == power.RESTRICTIONS_PER_HOUR
    assert CLASSES["DenyCertificate"] is EventClass.ADMINISTRATION
    await confirmed(node, PASSWORD)
    await root(node).call(AgentServiceStub, "DenyCertificate", denial("b"))


MINUTES = duration_pb2.Duration(seconds=10 * 60)
WEAKER: dict[str, Any] = {
    "second_approver": False,
    "administrators_second_factor": "any",
    "passkey_domain": "mallory.example.com",
    "silent_notices": "codes_issued",
    "manager_notices": "",
    "codes_by_message": True,
    "codes_to_manager": True,
    "alarm_ends_codes": True,
    "audit_retention": duration_pb2.Duration(seconds=90 * 24 * 60 * 60),
    "audit_archive_copies": 1,
    "issued_sets_per_hour": 10_000,
    "issued_sets_per_day": 10_000,
    "unlocks_per_day": 100,
    "reset_delay": MINUTES,
    "rotate_after_removal": True,
    "authorities_due_after_removal": False,
    "replace_authorities_after_removal": False,
    "backup_recipients": RECIPIENT,
    "session_lifetime": MINUTES,
    "session_idle": MINUTES,
    "session_unused": MINUTES,
    "privileged_session_lifetime": MINUTES,
    "privileged_session_idle": MINUTES,
    # What makes guesses fewer, or codes and PINs harder to guess.
    "code_length": 9,
    "code_alphabet": "23456789AB",
    "further_code_lengths": "9",
    "codes_per_set_max": 100,
    "lifetime_max": duration_pb2.Duration(seconds=365 * 24 * 60 * 60),
    "pin_length_min": 5,
    "pin_length_max": 9,
    "pin_letters": True,
    "pin_blocklist": False,
    "totp_window_steps": 2,
    "hotp_look_ahead": 50,
    "resynchronize_window_steps": 120,
    "resynchronize_look_ahead": 500,
    "next_tokencode_from_failures": 100,
    "tokens_per_user_max": 2,
    "lock_from_failures": 100,
    "lock": MINUTES,
    "lock_max": duration_pb2.Duration(seconds=60 * 60),
    "lock_until_unlocked": True,
    "factor_off_at_failures": 99,
    # What is kept of requests: repetitions, and room while an attack goes on.
    "request_retention": duration_pb2.Duration(seconds=60 * 60),
    "requests_max": 10_000,
}
"""Another value of each field of the policy that guards power, by its public name."""

ORDINARY_FIELDS: dict[str, Any] = {
    "codes_per_set_default": 9,
    "draft_lifetime": MINUTES,
    "set_low_threshold": 3,
    "former_code_retention": duration_pb2.Duration(seconds=400 * 24 * 60 * 60),
}


def test_every_field_of_the_policy_is_judged() -> None:
    """(P7) A new field guards power, or `power.py` says why it does not."""
    every = {
        public_name(field.name): field.name
        for field in dataclasses.fields(Policy)
        if field.name != "version"
    }
    assert not WEAKER.keys() & ORDINARY_FIELDS.keys()
    assert WEAKER.keys() | ORDINARY_FIELDS.keys() == every.keys()
    reasons = power.ORDINARY_POLICY_FIELDS
    assert {every[name] for name in ORDINARY_FIELDS} == reasons.keys()
    assert all(reasons.values())


@pytest.mark.asyncio
async def test_a_session_alone_weakens_no_policy(node: LoopbackNode) -> None:
    """
    (P7) No field that guards power changes without the password, not even with others.

    There is one super administrator, so no second approver protects the policy (P3).
    """
    for name, value in WEAKER.items():
        before = facts(node)
        refusal = await root(node).refused(
            PolicyServiceStub,
            "UpdatePolicy",
            policy(set_low_threshold=3, **{name: value}),
        )
        assert refusal.reason == "REAUTHENTICATION_NEEDED", name
        assert facts(node) == before


@pytest.mark.asyncio
async def test_ordinary_fields_need_no_password(node: LoopbackNode) -> None:
    """(P7) Neither do fields that guard power, if they stay as they are."""
    current = await root(node).call(
        PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest()
    )
    for name, value in ORDINARY_FIELDS.items():
        request = policy_pb2.UpdatePolicyRequest(
            request_id=new_id(), policy=current.policy
        )
        changed = policy(**{name: value}).policy
        changed.ClearField("version")
        request.policy.MergeFrom(changed)
        await root(node).call(PolicyServiceStub, "UpdatePolicy", request)
        current.policy.version += 1
    assert facts(node)["policy"][-1][0] == 1 + len(ORDINARY_FIELDS)
    await confirmed(node, PASSWORD)
    weaker = policy(second_approver=False)
    weaker.policy.version = current.policy.version
    await root(node).call(PolicyServiceStub, "UpdatePolicy", weaker)


@pytest.mark.asyncio
async def test_a_browser_left_open_weakens_no_policy(desk: Desk) -> None:
    """(P7) The console asks for the password, and then the policy changes."""
    browser = await desk.administrator()
    desk.node.clock.pass_s(6 * 60)
    await browser.open("/policy")
    page = await browser.send("Save", untick=("second_approver",))
    assert "needs your password" in page.text
    assert has_second_approver(desk)
    await browser.send("Confirm", confirm_password=one_node.PASSWORD)
    assert not has_second_approver(desk)


@pytest.mark.asyncio
async def test_a_session_alone_ends_no_other_session(node: LoopbackNode) -> None:
    """(P7) Neither one of them, nor all at once: the owner stays signed in."""
    bearer = (("authorization", f"Bearer {await node.sign_in()}"),)
    owner = dataclasses.replace(root(node), bearer=bearer)
    age(node, 6)
    listed = await owner.call(
        SessionServiceStub, "ListSessions", sessions_pb2.ListSessionsRequest()
    )
    (own,) = [each.session_id for each in listed.sessions if each.calling]
    end = sessions_pb2.EndSessionRequest(request_id=new_id(), session_id=own)
    end_all = sessions_pb2.LogoutEverywhereRequest(request_id=new_id())
    for method, request in (("EndSession", end), ("LogoutEverywhere", end_all)):
        refusal = await root(node).refused(SessionServiceStub, method, request)
        assert refusal.reason == "REAUTHENTICATION_NEEDED"
    await owner.call(SessionServiceStub, "WhoAmI", sessions_pb2.WhoAmIRequest())
    await confirmed(node, PASSWORD)
    await root(node).call(SessionServiceStub, "LogoutEverywhere", end_all)
    refusal = await owner.refused(
        SessionServiceStub, "WhoAmI", sessions_pb2.WhoAmIRequest()
    )
    assert refusal.reason == "SESSION_ENDED"


POWER = {
    "AdministratorService/CancelReset",
    "AdministratorService/ChangePassword",
    "AdministratorService/ConfirmSecondFactor",
    "AdministratorService/CreateAdministrator",
    "AdministratorService/EnrollSecondFactor",
    "AdministratorService/RemoveAdministrator",
    "AdministratorService/RemoveSecondFactor",
    "AdministratorService/UpdateAdministrator",
    "AgentService/AllowCertificate",
    "AgentService/CreateAgentKey",
    "AgentService/RegisterAgent",
    "AgentService/RegisterRadiusClient",
    "AgentService/RemoveAgent",
    "AgentService/RotateRadiusSecret",
    "AgentService/UpdateRadiusClient",
    "ClusterService/AddMember",
    "ClusterService/CreateJoinTicket",
    "ClusterService/ConfirmArchive",
    "ClusterService/DeclareSegmentsLost",
    "ClusterService/KeepAuthorities",
    "ClusterService/RemoveMember",
    "ClusterService/ReplaceAuthorities",
    "ClusterService/RotateKeys",
    "ClusterService/WithdrawArchive",
    "MoveService/ActivateMove",
    "MoveService/CancelMove",
    "MoveService/DeleteMovedUsers",
    "MoveService/EndMove",
    "MoveService/ExportMovedUsers",
    "MoveService/FreezeUsers",
    "MoveService/ImportMovedUsers",
    "MoveService/PrepareMove",
    "MoveService/ReclaimMove",
    "NoticeService/CreateChannel",
    "NoticeService/RemoveChannel",
    "NoticeService/UpdateChannel",
    "SecurityConsole/ApproveBrowserLogin",
    "SecurityConsole/RegisterPasskey",
    "SecurityConsole/RemovePasskey",
}
"""The methods that change power, whatever they are called with."""

BY_CONTENT = {
    "AdministratorService/Approve": "as what it approves",
    "AgentService/DenyCertificate": "beyond a number within an hour",
    "AgentService/UpdateAgent": "what lets it do more; and beyond that number",
    "PolicyService/UpdatePolicy": "all but a few fields of the policy",
    "SessionService/EndSession": "of another session than the calling one",
    "SessionService/Logout": "the calling session alone",
    "SessionService/LogoutEverywhere": "of all",
}
"""The methods of which some calls change power. Tests of this file show which."""

ORDINARY = {
    # The cluster gives no one access by these, or takes some away.
    "AdministratorService/Reject",
    "ClusterService/OpenCluster",
    "ClusterService/CreateBackup",
    "ClusterService/TransferPrimary",
    "NoticeService/SendNoticesAgain",
    "SecurityConsole/RefuseBrowserLogin",
    "SessionService/Reauthenticate",
    # Users and their tokens: the daily work. A second approver guards it (I10, P3).
    *(
        f"EmergencyAccessService/{each}"
        for each in (
            "BulkIssueTokencodes",
            "DisableEmergencyAccess",
            "GenerateTokencodes",
            "IssueFixedTokencode",
            "IssueTokencodes",
            "SaveEmergencyAccess",
        )
    ),
    *(each for each in NEEDS if each.startswith(("TokenService/", "UserService/"))),
}


def test_every_method_is_judged() -> None:
    """(P7) A new method is named here, and its command in `power.py` if it has power."""
    reads = set(authorization._READS)
    proposing = set(NEEDS) - reads
    assert proposing - POWER - set(BY_CONTENT) <= ORDINARY
    assert not ORDINARY & POWER
    assert proposing >= POWER
    by_name = {
        f"{service}/{each.__name__}": each
        for service, proposed in authorization._COMMANDS.items()
        for each in proposed
    } | authorization._UNDER_OTHER_NAMES
    for method in proposing - set(BY_CONTENT):
        command = object.__new__(by_name[method])
        # Only the kind of command counts: it has no content.
        assert power._changes_power(None, command) is (method in POWER), method  # type: ignore[arg-type]


def facts(node: LoopbackNode) -> dict[str, list[Any]]:
    """Return what the state holds, but for the counts of refusals."""
    rows = node.facts()
    del rows["equal_refusals"]
    return rows


def request_again(request: Any) -> Any:
    """Return the request under another id: it is not a retry."""
    again = type(request)()
    again.CopyFrom(request)
    if hasattr(again, "request_id"):
        again.request_id = new_id()
    return again


async def confirmed(node: LoopbackNode, password: str, code: str = "") -> None:
    await root(node).call(
        SessionServiceStub,
        "Reauthenticate",
        sessions_pb2.ReauthenticateRequest(
            request_id=new_id(), password=password, second_factor=code
        ),
    )


@pytest.mark.asyncio
async def test_a_session_alone_rotates_no_keys(node: LoopbackNode) -> None:
    """(P7) It is refused before a key is drawn."""
    ring = node.path.parent / "keys.json"
    assert not ring.exists()
    refusal = await root(node).refused(
        ClusterServiceStub,
        "RotateKeys",
        cluster_pb2.RotateKeysRequest(request_id=new_id()),
    )
    assert refusal.reason == "REAUTHENTICATION_NEEDED"
    assert not ring.exists()


@pytest.mark.asyncio
async def test_a_session_alone_approves_no_power(node: LoopbackNode) -> None:
    """(P3, P7) The thief's own account may have requested it."""
    await confirmed(node, PASSWORD)
    eve = await administrator(node, "eve", SUPER_ADMIN)
    change = pb.UpdateAdministratorRequest(
        request_id=new_id(), name="dora", role=SUPER_ADMIN
    )
    await eve.refused(AdministratorServiceStub, "UpdateAdministrator", change)
    age(node, 6)
    approve = pb.ApproveRequest(request_id=new_id(), approval_id=1)
    refusal = await root(node).refused(AdministratorServiceStub, "Approve", approve)
    assert refusal.reason == "REAUTHENTICATION_NEEDED"
    await confirmed(node, PASSWORD)
    await root(node).call(AdministratorServiceStub, "Approve", approve)


@pytest.mark.asyncio
async def test_guesses_at_the_password_are_slowed_and_lock_no_owner_out(
    node: LoopbackNode,
) -> None:
    """(P7, L7) Each session has a count of its own."""
    guess = sessions_pb2.ReauthenticateRequest(request_id=new_id(), password="guess")
    refusal = await root(node).refused(SessionServiceStub, "Reauthenticate", guess)
    assert refusal.reason == "WRONG_PASSWORD"
    right = sessions_pb2.ReauthenticateRequest(request_id=new_id(), password=PASSWORD)
    refusal = await root(node).refused(SessionServiceStub, "Reauthenticate", right)
    assert refusal.reason == "LOCKED"
    other = await node.sign_in()
    node.bearer = (("authorization", f"Bearer {other}"),)
    await confirmed(node, PASSWORD)


@pytest.mark.asyncio
async def test_a_known_request_id_gives_no_guess_for_nothing(
    node: LoopbackNode,
) -> None:
    """
    (P7, Q1, L7) The thief knows the id of a confirmation that its owner has made.

    The answer tells whether the content is the same, so whether the password is right.
    """
    known = new_id()

    async def confirm(password: str) -> str:
        request = sessions_pb2.ReauthenticateRequest(
            request_id=known, password=password
        )
        try:
            await root(node).call(SessionServiceStub, "Reauthenticate", request)
        except grpc.aio.AioRpcError as error:
            return failure(error).reason
        return ""

    assert await confirm(PASSWORD) == ""
    # A retry of a lost answer is answered.
    assert await confirm(PASSWORD) == ""
    assert await confirm("a guess") == "REQUEST_ID_REUSED"
    # It was counted, and while it waits the right one looks the same.
    assert {await confirm(each) for each in ("another", PASSWORD)} == {"LOCKED"}
    fresh = sessions_pb2.ReauthenticateRequest(request_id=new_id(), password=PASSWORD)
    refusal = await root(node).refused(SessionServiceStub, "Reauthenticate", fresh)
    assert refusal.reason == "LOCKED"


@pytest.mark.asyncio
async def test_a_second_factor_is_needed_too(node: LoopbackNode) -> None:
    """(P7) The password alone does not confirm its owner. A code works once."""
    await confirmed(node, PASSWORD)
    enrolled = await root(node).call(
        AdministratorServiceStub, "EnrollSecondFactor", pb.EnrollSecondFactorRequest()
    )
    seed = base64.b32decode(enrolled.secret)
    now = step_at(SystemClock().now_ms(), SECOND_FACTOR)

    def code(step: int) -> str:
        return tokencode_at(seed, SECOND_FACTOR, Moment(now + step))

    await root(node).call(
        AdministratorServiceStub,
        "ConfirmSecondFactor",
        pb.ConfirmSecondFactorRequest(
            request_id=new_id(), draft=enrolled.draft, code=code(0)
        ),
    )
    age(node, 6)
    for wrong, reason in (
        ("", "SECOND_FACTOR_NEEDED"),
        (code(0), "SECOND_FACTOR_WRONG"),
    ):
        refusal = await root(node).refused(
            SessionServiceStub,
            "Reauthenticate",
            sessions_pb2.ReauthenticateRequest(
                request_id=new_id(), password=PASSWORD, second_factor=wrong
            ),
        )
        assert refusal.reason == reason
    with node.state_written() as db:
        db.execute("DELETE FROM sign_in_waits")
    await confirmed(node, PASSWORD, code(1))


@pytest.mark.asyncio
async def test_a_browser_left_open_changes_no_power(desk: Desk) -> None:
    """(P7) The console asks, and the form goes on without being typed again."""
    await add_dora(desk)
    browser = await desk.administrator()
    desk.node.clock.pass_s(6 * 60)
    await browser.open("/administrators/dora")
    page = await browser.send("Change role", tick={"role": "operator"})
    assert page.status == 403
    assert "needs your password" in page.text
    assert role(desk) == "help_desk"
    page = await browser.send("Confirm", confirm_password="guess")
    assert "The password is wrong" in page.text
    assert role(desk) == "help_desk"
    desk.node.clock.pass_s(5)
    page = await browser.send("Confirm", confirm_password=one_node.PASSWORD)
    assert page.status == 200, page.text
    assert role(desk) == "operator"


@pytest.mark.asyncio
async def test_a_confirmation_after_the_session_leaves_no_password(
    desk: Desk,
) -> None:
    """(P7) Nothing of the form is kept: a change of power starts again."""
    await add_dora(desk)
    browser = await desk.administrator()
    desk.node.clock.pass_s(6 * 60)
    await browser.open("/administrators/dora")
    await browser.send("Change role", tick={"role": "operator"})
    await desk.node.sessions.reauthenticate(
        desk.node.admin("SessionService/Reauthenticate"), password=one_node.PASSWORD
    )
    await desk.node.sessions.logout_everywhere(
        desk.node.admin("SessionService/LogoutEverywhere")
    )
    page = await browser.send("Confirm", confirm_password=one_node.PASSWORD)
    assert "Your session has ended" in page.text
    assert "fill it in again" in page.text
    assert "kept" not in dict(page.form("/sign-in").fields)
    assert one_node.PASSWORD not in page.response.text


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/account/password", "/new/administrator"])
async def test_a_form_with_secrets_asks_before_it_is_shown(
    desk: Desk, path: str
) -> None:
    """(P7) The page that asks holds no secrets, so they would be typed twice."""
    browser = await desk.administrator()
    desk.node.clock.pass_s(6 * 60)
    page = await browser.open(path)
    assert "needs your password" in page.text
    page = await browser.send("Confirm", confirm_password=one_node.PASSWORD)
    assert page.path == path
    assert "needs your password" not in page.text


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["EnrollSecondFactor", "RotateKeys"])
async def test_an_early_refusal_is_in_the_audit_log(desk: Desk, method: str) -> None:
    """(P7, U1) These are refused before there is a command, which apply would record."""
    node = desk.node
    node.clock.pass_s(6 * 60)
    call = {
        "EnrollSecondFactor": lambda: node.second_factors.enroll(
            node.admin("AdministratorService/EnrollSecondFactor")
        ),
        "RotateKeys": lambda: node.rotation.rotate(
            node.admin("ClusterService/RotateKeys"), at_once=True, keep_old_key=False
        ),
    }[method]
    with pytest.raises(Refused, match="reauthentication_needed"):
        await call()
    await node.refusals.flush(node.replicator)
    events = node.primary_db.execute(
        "SELECT actor, target, reason FROM audit_events "
        "WHERE action = 'NoteRefusedCalls'"
    ).fetchall()
    (actor, target, reason), *more = events
    assert (actor, reason) == ("administrator:root", "reauthentication_needed")
    assert target.endswith(method)
    assert not more


async def add_dora(desk: Desk) -> None:
    await desk.node.administrators.create(
        desk.node.admin("AdministratorService/CreateAdministrator"),
        name="dora",
        role=Role.HELP_DESK,
        link=Link(""),
        password="a temporary password for once",
    )


def role(desk: Desk) -> str:
    (found,) = desk.node.primary_db.execute(
        "SELECT role FROM administrators WHERE name = 'dora'"
    ).fetchone()
    return str(found)


def has_second_approver(desk: Desk) -> bool:
    (value,) = desk.node.primary_db.execute(
        "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
    ).fetchone()
    return bool(json.loads(value)["second_approver"])
