# SPDX-License-Identifier: Apache-2.0
"""A session that is not used ends sooner; use is recorded (P2)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import SessionId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import MINUTE_MS
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.access.session_use import SESSIONS_MAX
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import (
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.people.administrators import Link
from sparecode_node.statemachine.commands.sessions import TouchSessions
from sparecode_node.statemachine.digest import digest
from tests.services.one_node import OneNode, initialize, one_node

pytestmark = pytest.mark.asyncio

IDLE_MS = 10 * MINUTE_MS


def reading(node: OneNode) -> CallContext:
    return replace(node.admin("PolicyService/GetPolicy"), request_id="")


async def works(node: OneNode, *, stale_ok: bool = False) -> bool:
    """Return whether the session may still read, and record its use."""
    try:
        await node.policies.get(reading(node), stale_ok=stale_ok)
    except NotSignedInError:
        return False
    await node.session_use.flush(node.replicator)
    return True


async def let_sessions_end_unused(node: OneNode) -> None:
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"session_unused_ms": IDLE_MS},
    )


def touches(node: OneNode) -> int:
    """Return the number of recorded uses of a session in the log."""
    return len(node.replicator.commands(TouchSessions))


async def test_one_command_holds_a_bounded_number_of_sessions(node: OneNode) -> None:
    """The others are recorded at their next use."""
    node.clock.pass_s(3600)
    for number in range(SESSIONS_MAX + 50):
        node.session_use.record(SessionId(f"{number:064d}"), 0)
    await node.session_use.flush(node.replicator)
    (command,) = node.replicator.commands(TouchSessions)
    assert len(command.session_ids) == SESSIONS_MAX


async def test_use_of_a_session_is_recorded_once_a_minute(node: OneNode) -> None:
    """(P2) However busy it is. The audit log, which people read, has none of it."""
    for _ in range(12):
        for _ in range(5):
            assert await works(node)
        node.clock.pass_s(15)
    assert touches(node) == 2
    events = node.primary_db.execute(
        "SELECT 1 FROM audit_events WHERE action = 'TouchSessions'"
    ).fetchall()
    assert events == []
    assert digest(node.primary_db) == digest(node.local_db)


async def test_session_lives_as_long_as_it_is_used(node: OneNode) -> None:
    """(P2) Reads count as use."""
    await let_sessions_end_unused(node)
    for _ in range(6):
        node.clock.pass_s(IDLE_MS / 1000 / 2)
        assert await works(node)
    node.clock.pass_s(IDLE_MS / 1000 - 1)
    assert await works(node)
    node.clock.pass_s(IDLE_MS / 1000)
    assert not await works(node)


async def test_unused_session_changes_nothing(node: OneNode) -> None:
    """(P1, P2) Also where the called node has not checked it: apply refuses it."""
    await let_sessions_end_unused(node)
    node.clock.pass_s(IDLE_MS / 1000)
    with pytest.raises(NotSignedInError):
        await node.users.create(
            node.admin("UserService/CreateUser"),
            username="alice",
            display_name="",
            email="",
        )
    assert node.primary_db.execute("SELECT 1 FROM users").fetchall() == []


async def test_without_a_quorum_a_session_does_not_end_unused(node: OneNode) -> None:
    """(P2) Its use cannot be recorded, and no one could sign in again."""
    await let_sessions_end_unused(node)
    node.clock.pass_s(IDLE_MS / 1000)
    assert await works(node, stale_ok=True)
    assert not await works(node)


async def test_without_a_quorum_the_chain_is_verified_in_an_unused_session(
    node: OneNode,
) -> None:
    """(P2, U1) As long as the caller accepts this node's own log."""
    await let_sessions_end_unused(node)
    node.clock.pass_s(IDLE_MS / 1000)
    node.replicator.down = NoQuorumError("down")
    context = replace(node.admin("AuditService/VerifyChain"), request_id="")
    read = await node.audit.verify_chain(context, stale_ok=True)
    assert read.value.verified_sequence > 0
    with pytest.raises(NoQuorumError):
        await node.audit.verify_chain(context)


async def test_use_is_recorded_later_after_a_failure(node: OneNode) -> None:
    """(P2) The call neither waits nor fails, and the retry is not immediate."""
    propose, attempts = node.replicator.propose, 0

    async def fails(proposal, *, timeout_s):
        nonlocal attempts
        if isinstance(proposal.call.command, TouchSessions):
            attempts += 1
            raise NoQuorumError
        return await propose(proposal, timeout_s=timeout_s)

    node.clock.pass_s(61)
    node.replicator.propose = fails
    assert await works(node)
    assert await works(node)
    assert attempts == 1
    node.replicator.propose = propose
    assert await works(node)
    assert touches(node) == 0
    node.clock.pass_s(61)
    assert await works(node)
    assert touches(node) == 1


async def test_a_look_at_the_sessions_of_others_is_recorded(node: OneNode) -> None:
    """(U1, P1) Like every refusal. The help desk may list its own sessions alone."""
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name="desk",
        role=Role.HELP_DESK,
        link=Link(""),
        password="a temporary one of root",
    )
    await node.login(name="desk", password="a temporary one of root")
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword"),
        name="",
        old_password="a temporary one of root",
        new_password="a long one of the desk",
    )
    await node.login(name="desk", password="a long one of the desk")
    context = replace(node.admin("SessionService/ListSessions"), request_id="")
    assert len((await node.open_sessions.list(context)).value.items) == 1
    with pytest.raises(NotPermittedError, match="the sessions of others"):
        await node.open_sessions.list(context, administrator="root")
    await node.refusals.flush(node.replicator)
    events = node.primary_db.execute(
        "SELECT actor, target FROM audit_events WHERE action = 'NoteRefusedCalls'"
    ).fetchall()
    assert events == [("administrator:desk", "SessionService/ListSessions")]


async def test_the_founder_is_not_refused_while_the_cluster_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A sign-in that began before the cluster is told so, and may be repeated.

    It found no administrators: decided later, it was refused as an unknown name (P4).
    """
    async with one_node(tmp_path, founded=False) as node:
        derive = node.kdf.derive

        async def begin_first(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(node.kdf, "derive", derive)
            await initialize(node)
            return await derive(*arguments, **options)

        monkeypatch.setattr(node.kdf, "derive", begin_first)
        with pytest.raises(Refused) as refused:
            await node.login()
        assert refused.value.rejected.reason is Reason.NOT_INITIALIZED

        monkeypatch.setattr(node.kdf, "derive", derive)
        await initialize(node)
        await node.login()
        assert await works(node)
