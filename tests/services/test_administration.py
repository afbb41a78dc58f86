# SPDX-License-Identifier: Apache-2.0
"""Administrators manage users, tokens, agents and the cluster (P)."""

import functools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.queries.audit import AuditFilter
from sparecode_node.queries.views import AgentView, TokenView, UserView
from sparecode_node.replication.errors import (
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
    RemovedError,
)
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.access.authorization import NEEDS
from sparecode_node.services.context import Anonymous, CallContext, SessionCaller
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotSignedInError,
    Refused,
)
from sparecode_node.statemachine.commands.notices import SaveChannel
from sparecode_node.statemachine.commands.permissions import PERMISSIONS
from sparecode_node.statemachine.commands.sessions import CloseSession
from sparecode_node.statemachine.results import Result, SessionOpened
from tests.services.one_node import PIN, SEED, SERIAL, OneNode
from tests.services.two_replicas import NOW_MS

pytestmark = pytest.mark.asyncio

TOKEN = {
    "serial": "T-1",
    "algorithm": Algorithm.TOTP,
    "hash_name": HashName.SHA256,
    "digits": 8,
    "period_s": 60,
    "counter": 0,
    "seed": SEED,
    "pin_rule": PinRule.PREPENDED,
    "expires_at_ms": NOW_MS + 1000,
}
SECURID = {
    "serial": "000612345678",
    "algorithm": Algorithm.SECURID,
    "hash_name": HashName.SHA1,
    "seed": b"x" * 16,
}


async def create(node: OneNode, username: str, request_id: str = "") -> None:
    await node.users.create(
        node.admin("UserService/CreateUser", request_id),
        username=username,
        display_name="A User",
        email="user@example.com",
    )


async def enroll(node: OneNode, request_id: str = "", **fields: object) -> None:
    await node.tokens.enroll(
        node.admin("TokenService/EnrollToken", request_id),
        **{**TOKEN, **fields},  # type: ignore[arg-type]
    )


async def test_user_is_found_in_any_case(node: OneNode) -> None:
    await create(node, "Ålice")
    read = await node.users.get(node.admin("UserService/GetUser"), "åLICE")
    assert read.value == UserView(
        username="Ålice",
        display_name="A User",
        email="user@example.com",
        enabled=True,
        token_serials=(),
        token_failures=0,
        emergency_failures=0,
        locked=False,
    )
    assert (read.node_id, read.stale) == ("n1", False)
    assert read.applied_index == len(node.replicator.entries)


async def test_user_is_changed_in_what_is_given(node: OneNode) -> None:
    await create(node, "alice")
    method = "UserService/UpdateUser"
    await node.users.update(node.admin(method), username="ALICE", email="")
    await node.users.update(node.admin(method), username="alice", enabled=False)
    read = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert read.value.display_name == "A User"
    assert read.value.email == ""
    assert not read.value.enabled


async def test_user_is_deleted(node: OneNode) -> None:
    await create(node, "alice")
    await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
    with pytest.raises(Refused, match="alice") as raised:
        await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert raised.value.rejected.reason is Reason.USER_UNKNOWN


async def test_user_is_unlocked(node: OneNode) -> None:
    """(L6)."""
    await node.add_user()
    assert not await node.accepts("0000000000")
    await node.users.unlock(node.admin("UserService/UnlockUser"), username="alice")
    read = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert (read.value.token_failures, read.value.locked) == (0, False)
    assert await node.accepts(PIN + node.tokencode())


async def test_locked_user_is_shown_while_the_wait_lasts(node: OneNode) -> None:
    """(L1) The primary's clock decides."""
    await node.add_user()
    await node.accepts("0000000000")
    method = "UserService/GetUser"
    assert (await node.users.get(node.admin(method), "alice")).value.locked
    node.clock.pass_s(2)
    assert not (await node.users.get(node.admin(method), "alice")).value.locked


async def test_users_are_listed_in_pages(node: OneNode) -> None:
    for name in ("carol", "Bob", "alice", "bo%b", "bo_b"):
        await create(node, name)
    method = "UserService/ListUsers"
    first = await node.users.list(node.admin(method), page_size=2)
    second = await node.users.list(
        node.admin(method), page_size=2, page_token=first.value.next_page_token
    )
    third = await node.users.list(
        node.admin(method), page_size=2, page_token=second.value.next_page_token
    )
    pages = [
        [user.username for user in read.value.items] for read in (first, second, third)
    ]
    assert pages == [["alice", "bo%b"], ["bo_b", "Bob"], ["carol"]]
    assert third.value.next_page_token == ""
    chosen = await node.users.list(node.admin(method), username_prefix="BO%")
    assert [user.username for user in chosen.value.items] == ["bo%b"]


@pytest.mark.parametrize("search", ["özil", "ÖZIL", "straße", "STRASSE", "mesut ö"])
async def test_search_ignores_case_in_any_language(node: OneNode, search: str) -> None:
    """SQLite alone folds ASCII: a name typed as it is shown would not be found."""
    await node.add_user("alice")
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="m",
        display_name="Mesut ÖZIL",
        email="Straße@Example.org",
    )
    await node.enroll("700001", pin_rule=PinRule.NONE)
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="700001", username="m"
    )
    users = await node.users.list(node.admin("UserService/ListUsers"), search=search)
    assert [user.username for user in users.value.items] == ["m"]
    tokens = await node.tokens.list(
        node.admin("TokenService/ListTokens"), search=search
    )
    assert [token.username for token in tokens.value.items] == ["m"]


async def test_users_are_filtered(node: OneNode) -> None:
    """By name, e-mail and state. A user must match every filter."""
    await node.add_user("alice")
    for name, shown, email in (
        ("bob", "Robert Ash", "r@example.com"),
        ("carol", "", "CAROL@corp.example"),
    ):
        await node.users.create(
            node.admin("UserService/CreateUser"),
            username=name,
            display_name=shown,
            email=email,
        )
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="bob", enabled=False
    )
    assert not await node.accepts("4719000000")

    async def usernames(**filters: object) -> list[str]:
        read = await node.users.list(
            node.admin("UserService/ListUsers"),
            **filters,  # type: ignore[arg-type]
        )
        return [user.username for user in read.value.items]

    assert await usernames() == ["alice", "bob", "carol"]
    assert await usernames(search="ASH") == ["bob"]
    assert await usernames(search="carol@CORP") == ["carol"]
    assert await usernames(search="_") == []
    assert await usernames(search="bo", enabled=False) == ["bob"]
    assert await usernames(locked=True) == ["alice"]
    assert await usernames(locked=False) == ["bob", "carol"]
    node.clock.pass_s(2)
    assert await usernames(locked=True) == []


@pytest.mark.parametrize("token", ["%", "x", "AAAA=", "\u2603", "_w", "A" * 2000])
async def test_malformed_page_token_is_named(node: OneNode, token: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        await node.users.list(node.admin("UserService/ListUsers"), page_token=token)
    assert raised.value.field == "page_token"


@pytest.mark.parametrize("size", [-1, 501])
@pytest.mark.parametrize("what", ["Agent", "User", "Token", "AuditEvent"])
async def test_page_size_beyond_its_bound_is_named(
    node: OneNode, what: str, size: int
) -> None:
    lists: dict[str, Callable[..., Awaitable[object]]] = {
        "Agent": node.agents.list,
        "User": node.users.list,
        "Token": node.tokens.list,
        "AuditEvent": functools.partial(node.audit.list, criteria=AuditFilter()),
    }
    method = f"{what.removesuffix('Event')}Service/List{what}s"
    with pytest.raises(InvalidFieldError, match="1 to 500") as raised:
        await lists[what](node.admin(method), page_size=size)
    assert raised.value.field == "page_size"


async def test_token_is_shown_without_its_seed(node: OneNode) -> None:
    await enroll(node)
    read = await node.tokens.get(node.admin("TokenService/GetToken"), "T-1")
    assert read.value == TokenView(
        serial="T-1",
        algorithm=Algorithm.TOTP,
        hash_name=HashName.SHA256,
        digits=8,
        period_s=60,
        pin_rule=PinRule.PREPENDED,
        pin_set=False,
        username="",
        enabled=True,
        expires_at_ms=NOW_MS + 1000,
        lost=False,
        live_codes=0,
    )


async def test_tokens_are_filtered(node: OneNode) -> None:
    await node.add_user("alice", serial="A-1")
    await node.add_user("bob", serial="A-2")
    await enroll(
        node, serial="B-1", algorithm=Algorithm.HOTP, period_s=0, counter=5, digits=6
    )
    await node.issue("A-2")

    async def serials(**filters: object) -> list[str]:
        read = await node.tokens.list(
            node.admin("TokenService/ListTokens"),
            **filters,  # type: ignore[arg-type]
        )
        return [token.serial for token in read.value.items]

    assert await serials() == ["A-1", "A-2", "B-1"]
    assert await serials(serial_prefix="A") == ["A-1", "A-2"]
    assert await serials(serial_prefix="_") == []
    assert await serials(username="ALICE") == ["A-1"]
    assert await serials(username="nobody") == []
    assert await serials(algorithm=Algorithm.HOTP) == ["B-1"]
    assert await serials(enabled=False) == []
    assert await serials(in_emergency_access=True) == ["A-2"]
    assert await serials(in_emergency_access=False, enabled=True) == ["A-1", "B-1"]
    read = await node.tokens.list(node.admin("TokenService/ListTokens"), page_size=2)
    assert [token.live_codes for token in read.value.items] == [0, 3]
    assert await serials(page_token=read.value.next_page_token) == ["B-1"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"serial": ""}, "serial"),
        ({"serial": "x" * 65}, "serial"),
        ({"serial": "1 2"}, "serial"),
        ({"serial": "\u0661"}, "serial"),
        ({"digits": 7}, "digits"),
        ({"period_s": 45}, "period_seconds"),
        ({"period_s": 0}, "period_seconds"),
        ({"counter": 1}, "counter"),
        ({"algorithm": Algorithm.HOTP}, "period_seconds"),
        ({"algorithm": Algorithm.HOTP, "period_s": 0, "counter": -1}, "counter"),
        ({"algorithm": Algorithm.HOTP, "period_s": 0, "counter": 2**63}, "counter"),
        (SECURID | {"period_s": 0}, "period_seconds"),
        (SECURID | {"counter": 1}, "counter"),
        (SECURID | {"serial": "A-1"}, "serial"),
        (SECURID | {"seed": b"x" * 20}, "seed"),
        ({"seed": b"x" * 15}, "seed"),
        ({"seed": b"x" * 65}, "seed"),
        ({"expires_at_ms": -1}, "expire_time"),
    ],
)
async def test_token_s_field_beyond_its_bound_is_named(
    node: OneNode, fields: dict[str, object], field: str
) -> None:
    entries = len(node.replicator.entries)
    with pytest.raises(InvalidFieldError) as raised:
        await enroll(node, **fields)
    assert raised.value.field == field
    assert len(node.replicator.entries) == entries


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": "   "}, "username"),
        ({"username": "x" * 129}, "username"),
        ({"username": "a\nb"}, "username"),
        ({"username": "x y"}, "username"),
        ({"email": "not-an-email"}, "email"),
        ({"email": "a@"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "a@example.com, b@example.com"}, "email"),
        ({"display_name": "x" * 257}, "display_name"),
        ({"email": "x" * 255}, "email"),
    ],
)
async def test_user_s_field_beyond_its_bound_is_named(
    node: OneNode, fields: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        await node.users.create(
            node.admin("UserService/CreateUser"),
            **{"username": "a", "display_name": "", "email": "", **fields},
        )
    assert raised.value.field == field


@pytest.mark.parametrize("pin", ["", "123", "123456789", "12a4", "\u0661" * 4])
async def test_pin_beyond_its_form_is_named_without_it(node: OneNode, pin: str) -> None:
    """(K2)."""
    await node.add_user()
    with pytest.raises(InvalidFieldError, match="4 to 8 digits") as raised:
        await node.tokens.set_pin(
            node.admin("TokenService/SetPin"), serial=SERIAL, pin=pin
        )
    assert raised.value.field == "pin"
    assert not pin or pin not in str(raised.value)


async def test_pin_of_an_unassigned_token_is_refused(node: OneNode) -> None:
    await enroll(node)
    for serial, reason in [
        ("T-1", Reason.TOKEN_NOT_ASSIGNED),
        ("none", Reason.TOKEN_UNKNOWN),
    ]:
        with pytest.raises(Refused) as raised:
            await node.tokens.set_pin(
                node.admin("TokenService/SetPin"), serial=serial, pin=PIN
            )
        assert raised.value.rejected.reason is reason


async def test_retry_of_a_change_is_the_same_change(node: OneNode) -> None:
    """(Q1) The id is refused with any other field."""
    request_id = str(uuid.uuid4())
    await create(node, "alice", request_id)
    await create(node, "alice", request_id)
    await enroll(node, request_id)
    for other in (
        create(node, "bob", request_id),
        enroll(node, request_id, seed=PIN.encode() * 5),
    ):
        with pytest.raises(Refused) as raised:
            await other
        assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


async def test_agents_are_listed(node: OneNode) -> None:
    await node.agents.register(
        node.admin("AgentService/RegisterAgent"),
        name="Gate",
        identity="gate.example",
        protects=Protects.CLOUD,
    )
    read = await node.agents.list(node.admin("AgentService/ListAgents"), page_size=1)
    assert read.value.items == (
        AgentView(
            name="Gate", identity="gate.example", protects=Protects.CLOUD, enabled=True
        ),
    )
    rest = await node.agents.list(
        node.admin("AgentService/ListAgents"), page_token=read.value.next_page_token
    )
    assert [agent.name for agent in rest.value.items] == ["spiffe://example/vpn"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"identity": ""}, "certificate_identity"),
        ({"identity": "x" * 257}, "certificate_identity"),
        ({"identity": "a b"}, "certificate_identity"),
    ],
)
async def test_agent_s_field_beyond_its_bound_is_named(
    node: OneNode, fields: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        await node.agents.register(
            node.admin("AgentService/RegisterAgent"),
            protects=Protects.CLOUD,
            **{"name": "a", "identity": "b", **fields},
        )
    assert raised.value.field == field


async def test_status_shows_every_member(node: OneNode) -> None:
    """In the order of node ids, with clock offsets and the newest index."""
    node.replicator.lags = True
    await create(node, "alice")
    status = await node.cluster.status(
        node.admin("ClusterService/GetStatus"), digest=True
    )
    ahead, this, gone = status.members
    assert (status.node_id, status.primary, status.quorum) == ("n1", "n2", True)
    assert status.cluster_id == node.ring.cluster_id
    assert [member.node_id for member in status.members] == ["n0", "n1", "n3"]
    assert ahead.is_primary
    assert (ahead.lag, this.lag) == (0, 1)
    assert ahead.clock_offset_ms == 250
    assert len(this.digest) == 64
    assert not gone.reachable


async def test_status_shows_the_heads_of_the_audit_logs(node: OneNode) -> None:
    """(U1)."""
    status = await node.cluster.status(node.admin("ClusterService/GetStatus"))
    row = node.local_db.execute(
        "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    heads = [(each.audit_sequence, each.audit_head) for each in status.members]
    assert heads == [(row[0], row[1].hex())] * 2 + [(0, "")]


async def test_status_and_stale_reads_need_no_quorum(node: OneNode) -> None:
    """(P2) They say that they are stale. Other reads fail without a quorum."""
    await create(node, "alice")
    node.replicator.down = NoQuorumError()
    status = await node.cluster.status(node.admin("ClusterService/GetStatus"))
    assert not status.quorum
    method = "UserService/GetUser"
    read = await node.users.get(node.admin(method), "alice", stale_ok=True)
    assert read.stale
    assert read.value.username == "alice"
    with pytest.raises(NoQuorumError):
        await node.users.get(node.admin(method), "alice")


async def test_removed_node_answers_no_read(node: OneNode) -> None:
    """Its state ends with the removal, and no caller learns how old it is."""
    await create(node, "alice")
    node.replicator.down = RemovedError("n1")
    with pytest.raises(RemovedError):
        await node.users.get(node.admin("UserService/GetUser"), "alice", stale_ok=True)
    with pytest.raises(RemovedError):
        await node.cluster.status(node.admin("ClusterService/GetStatus"))
    context = node.admin("ClusterService/ListMembers")
    with pytest.raises(RemovedError):
        await node.cluster.members(context, stale_ok=True)


async def test_read_sees_what_was_committed_before_it(node: OneNode) -> None:
    node.replicator.lags = True
    await create(node, "alice")
    method = "UserService/GetUser"
    with pytest.raises(Refused):
        await node.users.get(node.admin(method), "alice", stale_ok=True)
    read = await node.users.get(node.admin(method), "alice")
    assert read.value.username == "alice"


async def test_call_without_time_is_not_begun(node: OneNode) -> None:
    entries = len(node.replicator.entries)
    context = replace(node.admin("UserService/GetUser"), deadline_s=0)
    with pytest.raises(OverloadedError):
        await node.users.get(context, "alice")
    assert len(node.replicator.entries) == entries


# --- Sessions and roles ------------------------------------------------------


async def test_session_is_whose_it_is(node: OneNode) -> None:
    view = await node.sessions.who_am_i(node.admin("SessionService/WhoAmI"))
    assert (view.administrator, view.role) == ("root", "super_admin")
    assert view.ends_at_ms == NOW_MS + 4 * 3_600_000


@pytest.mark.parametrize(
    ("name", "password"),
    [("root", "wrong"), ("nobody", "correct horse battery"), ("root", "")],
)
async def test_wrong_sign_in_costs_the_same_and_reveals_nothing(
    node: OneNode, name: str, password: str
) -> None:
    """(L7) One hash for any name."""
    before = node.kdf.evaluations()
    with pytest.raises(Refused) as raised:
        await node.login(name=name, password=password)
    assert raised.value.rejected.reason is Reason.SIGN_IN_REFUSED
    assert node.kdf.evaluations() - before == 1


async def test_sign_in_whose_answer_got_lost_inside_the_cluster_gets_its_session(
    node: OneNode,
) -> None:
    """(Q1) Its node proposes it again, and then it is no repeated sign-in."""
    propose, tries = node.replicator.propose, []

    async def twice(proposal: Proposal, *, timeout_s: float) -> Result:
        tries.append(await propose(proposal, timeout_s=timeout_s))
        return await propose(proposal, timeout_s=timeout_s)

    node.replicator.propose = twice  # type: ignore[method-assign]
    await node.login()
    assert isinstance(tries[-1], SessionOpened)
    view = await node.sessions.who_am_i(node.admin("SessionService/WhoAmI"))
    assert view.administrator == "root"


async def test_session_of_another_node_is_known_behind_a_barrier(
    node: OneNode,
) -> None:
    """(P2) The next call may reach a node that has not applied the login yet."""
    node.replicator.lags = True
    await node.login()
    with pytest.raises(NotSignedInError):
        await node.users.get(node.admin("UserService/GetUser"), "alice", stale_ok=True)
    await create(node, "alice")
    names = node.primary_db.execute("SELECT username FROM users").fetchall()
    assert names == [("alice",)]


async def test_ended_session_is_refused(node: OneNode) -> None:
    """(P2) After logout, or past its end."""
    before = node.bearer
    await node.login()
    await node.sessions.logout(node.admin("SessionService/Logout"))
    with pytest.raises(NotSignedInError):
        await create(node, "alice")
    node.bearer = before
    await create(node, "alice")
    node.clock.pass_s(12 * 3600)
    for stale_ok in (True, False):
        with pytest.raises(NotSignedInError):
            await node.users.get(
                node.admin("UserService/GetUser"), "alice", stale_ok=stale_ok
            )


async def test_session_that_ended_elsewhere_is_refused(node: OneNode) -> None:
    """(P2) This node has not applied the logout yet; WhoAmI reads behind a barrier."""
    node.replicator.lags = True
    await node.login()
    context = node.admin("SessionService/WhoAmI")
    await node.sessions.who_am_i(context)
    await node.sessions.logout(node.admin("SessionService/Logout"))
    await node.sessions.who_am_i(context, stale_ok=True)
    with pytest.raises(NotSignedInError):
        await node.sessions.who_am_i(context)


async def test_session_that_ended_elsewhere_changes_nothing(node: OneNode) -> None:
    """(P2) This node has not applied the logout yet, but apply refuses the command."""
    bearer = node.bearer
    await node.login()
    node.replicator.lags = True
    await node.sessions.logout_everywhere(node.admin("SessionService/LogoutEverywhere"))
    node.bearer = bearer
    with pytest.raises(NotSignedInError):
        await create(node, "alice")


@pytest.mark.parametrize(
    "caller", [Anonymous(), SessionCaller(bearer=""), SessionCaller(bearer="x" * 43)]
)
async def test_caller_without_a_session_changes_nothing(
    node: OneNode, caller: Anonymous | SessionCaller
) -> None:
    context = CallContext(
        caller=caller,
        request_id=str(uuid.uuid4()),
        method="UserService/UnlockUser",
        deadline_s=10,
    )
    with pytest.raises(NotSignedInError):
        await node.users.unlock(context, username="alice")
    with pytest.raises(NotSignedInError):
        await node.users.get(replace(context, method="UserService/GetUser"), "alice")


async def test_every_command_has_a_method(node: OneNode) -> None:
    """(P1) The method needs the permission that apply checks."""
    needs = {method.partition("/")[2]: need for method, need in NEEDS.items()}
    calls = {
        {
            "IssueTokencodesInBulk": "BulkIssueTokencodes",
            "RequestBulkIssue": "BulkIssueTokencodes",
            "ActivateKey": "RotateKeys",
            "FinishAuthorities": "ReplaceAuthorities",
            "SetSecondFactor": "ConfirmSecondFactor",
        }.get(command.__name__, command.__name__): permission
        for command, permission in PERMISSIONS.items()
        if command not in (CloseSession, SaveChannel)
    }
    for name in ("CreateChannel", "UpdateChannel"):
        calls[name] = PERMISSIONS[SaveChannel]
    assert calls.items() <= needs.items()


async def test_outcome_unknown_reaches_the_caller(node: OneNode) -> None:
    """(A7) The change may have been applied; only the caller can retry it."""
    node.replicator.down = OutcomeUnknownError()
    with pytest.raises(OutcomeUnknownError):
        await create(node, "alice")
