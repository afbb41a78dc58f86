# SPDX-License-Identifier: Apache-2.0
"""
Root on one node does not become an administrator unseen.

The attacker has root on a node's machine: an operator who had a node admitted, or a
thief of one machine. They call the local socket, and sign in as anyone can.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from sparecode_node.daemon import local_socket
from sparecode_node.daemon.local_socket import LocalSocket, LocalSocketError
from sparecode_node.daemon.metrics.census import Census
from sparecode_node.daemon.metrics.collector import NodeCollector, Sources
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NodeId
from sparecode_node.queries.resets import pending as resets_pending
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.errors import ApprovalNeededError, Refused
from sparecode_node.services.load.condition import Condition
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.secrets.kdf import Lane
from sparecode_node.statemachine.commands.membership import AddMember
from tests.console.desk import Desk, desk
from tests.console.test_second_factor import enrolled
from tests.services.one_node import PASSWORD, ROOT, OneNode, call_of

pytestmark = pytest.mark.asyncio

TEMPORARY = "what the attacker has chosen"
OWN = "a password of their own"
HOUR_S = 3600
EVE = "eve"


@pytest_asyncio.fixture(name="running")
async def _running(tmp_path: Path) -> AsyncIterator[Desk]:
    """Return a console, with the node's local socket in *tmp_path*."""
    async with desk(tmp_path) as running:
        listening = LocalSocket(tmp_path, running.node.resets)
        await listening.start()
        yield running
        await listening.stop()


async def reset(folder: Path, name: str = ROOT, *, second_factor: bool = False) -> int:
    """Request a reset as root on the node's machine; return when it takes effect."""
    return await asyncio.to_thread(
        local_socket.reset_administrator,
        folder,
        name,
        TEMPORARY,
        second_factor=second_factor,
    )


async def signs_in(node: OneNode, name: str = ROOT, password: str = TEMPORARY) -> bool:
    """Return whether a password opens a session."""
    try:
        await node.login(name=name, password=password)
    except Refused:
        return False
    return True


async def second_super_administrator(running: Desk) -> None:
    """Add Eve, who has chosen her own password."""
    node = running.node
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name=EVE,
        role=Role.SUPER_ADMIN,
        link=Link(""),
        password="a temporary password",
    )
    await node.login(name=EVE, password="a temporary password")
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword"),
        name="",
        old_password="a temporary password",
        new_password=OWN,
    )
    await node.login()


def events(db: sqlite3.Connection, action: str) -> list[tuple[str, str, str]]:
    """Return target, outcome and detail of the events of an action."""
    return db.execute(
        "SELECT target, outcome, detail FROM audit_events WHERE action = ? "
        "ORDER BY sequence",
        (action,),
    ).fetchall()


def resets(db: sqlite3.Connection) -> int:
    """Return the number of requested resets."""
    (count,) = db.execute("SELECT count(*) FROM administrator_resets").fetchone()
    return int(count)


def resets_in_metrics(node: OneNode, folder: Path) -> float | None:
    """Return the number of requested resets that a scrape of the called node shows."""
    condition = Condition(
        replicator=node.replicator,
        initialized=lambda: True,
        data_dir=folder,
        certificates=dict,
        clock=node.clock,
    )
    sources = Sources(
        version="1",
        replica=ReplicaStatus,
        peers=list,
        condition=condition,
        kdf=node.kdf,
        events=EventCounts(folder / "local.db"),
        census=Census(node.replicator, node.clock),
        certificates=dict,
        security=SecurityLog(node.clock),
        radius_packets=dict,
        deliveries=dict,
    )
    registry = CollectorRegistry()
    registry.register(NodeCollector(sources, channel_names=False))
    return registry.get_sample_value("sparecode_administrator_resets_pending")


async def test_a_reset_is_announced_for_an_hour_before_it_is_in_force(
    running: Desk, tmp_path: Path
) -> None:
    """(P4) In the audit log, on every page of the console, in the status, in the metrics."""
    node = running.node
    browser = await running.administrator()
    assert resets_in_metrics(node, tmp_path) == 0
    due_at_ms = await reset(tmp_path)
    assert resets_in_metrics(node, tmp_path) == 1
    assert due_at_ms == node.clock.now + HOUR_S * 1000
    ((target, outcome, detail),) = events(node.primary_db, "ResetAdministrator")
    assert (target, outcome) == (ROOT, "pending")
    assert "by user id" in detail
    assert "on node n1; in force in 60 minutes" in detail
    for path in ("/", "/tokens", "/policy", "/account", "/audit"):
        page = await browser.open(path)
        assert f"Reset of administrator {ROOT} requested." in page.text, path
    (pending,) = (
        await node.cluster.status(node.admin("ClusterService/GetStatus"))
    ).pending_resets
    assert (pending.administrator, pending.node_id) == (ROOT, "n1")
    assert not pending.second_factor
    node.clock.pass_s(HOUR_S - 60)
    assert not await signs_in(node)
    assert resets(node.primary_db) == 1
    node.clock.pass_s(10)
    assert await signs_in(node, password=PASSWORD)  # This cancels the reset.
    assert resets_in_metrics(node, tmp_path) == 0


async def test_a_reset_that_enables_a_disabled_administrator_says_so(
    running: Desk, tmp_path: Path
) -> None:
    """(P4) In the audit log, and in what the console and the status show."""
    node = running.node
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE administrators SET enabled = 0")
    await reset(tmp_path)
    ((_, _, detail),) = events(node.primary_db, "ResetAdministrator")
    assert "on node n1, enables the administrator; in force" in detail
    async with node.state.transaction() as transaction:
        (pending,) = await resets_pending(transaction)
    assert pending.enables


async def test_a_cluster_without_its_only_password_recovers_after_the_delay(
    running: Desk, tmp_path: Path
) -> None:
    """(P4) No one signs in, so it is not canceled; earlier sessions have ended."""
    node = running.node
    browser = await running.administrator()
    await reset(tmp_path)
    node.clock.pass_s(HOUR_S)
    assert await signs_in(node)
    with pytest.raises(Refused, match="password_change_needed"):
        await node.users.list(node.admin("UserService/ListUsers"))
    assert (await browser.open("/tokens")).path == "/sign-in"
    assert not await signs_in(node, password=PASSWORD)
    ((target, outcome, detail),) = events(node.primary_db, "RESET_IN_FORCE")
    assert (target, outcome) == (ROOT, "applied")
    assert "by user id" in detail
    assert resets(node.primary_db) == 0


async def test_a_super_administrator_who_signs_in_cancels_a_reset(
    running: Desk, tmp_path: Path
) -> None:
    """(P4) The attacker's password never becomes valid."""
    node = running.node
    await second_super_administrator(running)
    await reset(tmp_path)
    assert await signs_in(node, EVE, OWN)
    ((target, _, detail),) = events(node.primary_db, "RESET_CANCELED")
    assert target == ROOT
    assert detail.endswith("eve signed in")
    node.clock.pass_s(2 * HOUR_S)
    assert not await signs_in(node)
    node.clock.pass_s(60)
    assert await signs_in(node, password=PASSWORD)


async def test_other_roles_do_not_cancel_a_reset_by_signing_in(
    running: Desk, tmp_path: Path
) -> None:
    node = running.node
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name="otto",
        role=Role.OPERATOR,
        link=Link(""),
        password=OWN,
    )
    await reset(tmp_path)
    await node.login(name="otto", password=OWN)
    assert resets(node.primary_db) == 1
    with pytest.raises(Refused):
        await node.administrators.cancel_reset(
            node.admin("AdministratorService/CancelReset"), name=ROOT
        )


async def test_a_super_administrator_cancels_a_reset_from_any_page(
    running: Desk, tmp_path: Path
) -> None:
    """(P4) With a session that was open before the request."""
    node = running.node
    browser = await running.administrator()
    await reset(tmp_path)
    await browser.open("/tokens")
    page = await browser.send("Cancel the reset", action=f"/administrators/{ROOT}")
    assert "The reset is canceled." in page.text
    assert "requested." not in (await browser.open("/tokens")).text
    ((target, outcome, _),) = events(node.primary_db, "CancelReset")
    assert (target, outcome) == (ROOT, "applied")
    node.clock.pass_s(HOUR_S)
    assert not await signs_in(node)


@pytest.mark.parametrize("second_factor", [False, True])
async def test_the_second_factor_goes_only_if_the_announcement_says_so(
    running: Desk, tmp_path: Path, *, second_factor: bool
) -> None:
    """(P4) A thief of one machine still needs the code of the administrator's app."""
    node = running.node
    browser = await running.administrator()
    await enrolled(running, browser)
    await reset(tmp_path, second_factor=second_factor)
    page = await browser.open("/tokens")
    assert ("and to remove the second factor" in page.text) is second_factor
    ((_, _, detail),) = events(node.primary_db, "ResetAdministrator")
    assert (", with the second factor" in detail) is second_factor
    node.clock.pass_s(HOUR_S)
    assert await signs_in(node) is second_factor


async def test_a_member_of_today_resets_nobody(running: Desk, tmp_path: Path) -> None:
    """(P4) An operator who has a machine admitted waits for a day, in the audit log."""
    node = running.node
    command = AddMember(node_id=NodeId("n1"), address="n1:7301")
    node.replicator.commit([Proposal(call=call_of(node, command))])
    with pytest.raises(LocalSocketError, match="older member"):
        await reset(tmp_path)
    assert resets(node.primary_db) == 0
    node.clock.pass_s(24 * HOUR_S)
    await node.login()
    await reset(tmp_path)
    assert resets(node.primary_db) == 1


async def test_a_flood_of_local_requests_fills_nothing(
    running: Desk, tmp_path: Path
) -> None:
    """(P4, Q3) One request is kept; the rest costs no hash, no row and no event."""
    node = running.node
    await reset(tmp_path)

    def size() -> tuple[int, int]:
        (remembered,) = node.primary_db.execute(
            "SELECT count(*) FROM requests"
        ).fetchone()
        (recorded,) = node.primary_db.execute(
            "SELECT count(*) FROM audit_events"
        ).fetchone()
        return remembered, recorded

    before, computed = size(), node.kdf.load(Lane.ISSUING).computed
    for name in (ROOT, "unknown") * 20:
        with pytest.raises(LocalSocketError):
            await reset(tmp_path, name)
    assert size() == before
    assert node.kdf.load(Lane.ISSUING).computed == computed


async def test_the_delay_cannot_be_set_to_nothing(running: Desk) -> None:
    """(P4) Ten minutes is the least."""
    node = running.node
    with pytest.raises(Refused, match="reset_delay must be 10m to 7d"):
        await node.policies.update(
            node.admin("PolicyService/UpdatePolicy"),
            version=1,
            values={"reset_delay_ms": 1000},
        )


async def test_a_reset_leaves_no_administrator_who_needs_no_approval(
    running: Desk, tmp_path: Path
) -> None:
    """(P3, P4) The other one can still approve, once she has chosen a password."""
    node = running.node
    await second_super_administrator(running)
    await reset(tmp_path, EVE)
    node.clock.pass_s(HOUR_S)
    await node.login()

    async def promote(name: str) -> None:
        await node.administrators.create(
            node.admin("AdministratorService/CreateAdministrator"),
            name=name,
            role=Role.SUPER_ADMIN,
            link=Link(""),
            password="a temporary password",
        )

    with pytest.raises(ApprovalNeededError) as needed:
        await promote("mallory")
    await node.login(name=EVE, password=TEMPORARY)
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword"),
        name="",
        old_password=TEMPORARY,
        new_password=OWN,
    )
    await node.login(name=EVE, password=OWN)
    await node.approvals.approve(
        node.admin("AdministratorService/Approve"),
        approval_id=needed.value.approval_id,
    )
