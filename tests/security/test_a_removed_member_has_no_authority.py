# SPDX-License-Identifier: Apache-2.0
"""
A removed member has had the authorities' keys: the cluster insists on other ones (P6a).

With these keys, a machine that left, or was stolen, makes a certificate for any member
and any agent. Certificates are files that operators own, so no node replaces them. But
the removal is on record, and the reminder ends with the authorities, not with patience.
"""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import KEYS_MAX, AuthorityKey
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.queries.authorities import DueAuthority
from sparecode_node.replication.replicator import MemberStatus, Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.authority_watch import AuthorityWatch
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.membership import (
    AnnounceAuthority,
    NoteAuthorityKeys,
    RetireAuthority,
)
from sparecode_node.statemachine.feature_level import FIRST
from sparecode_node.statemachine.results import Result
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import SUPER_ADMIN, administrator, root
from tests.security.test_a_joiner_gets_what_its_ticket_says import (
    AUTHORITIES,
    cluster,
)
from tests.services.one_node import OneNode, one_node
from tests.services.two_replicas import NODE

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Start a node, n1, of a cluster with n0 and n3; n3 does not answer."""
    async with one_node(tmp_path) as started:
        yield started


async def remove(node: OneNode, node_id: str, *, rotate_keys: bool = False) -> None:
    """Remove a member; the others are in contact."""
    await node.membership.remove_member(
        node.admin("ClusterService/RemoveMember"),
        node_id=node_id,
        rotate_keys=rotate_keys,
    )
    node.replicator.gone.add(node_id)


def commit(
    node: OneNode,
    command: NoteAuthorityKeys | AnnounceAuthority | RetireAuthority,
    caller: str = "",
) -> Result:
    """Commit a command of a member, or of another *caller*."""
    request_id = RequestId(new_id())
    if not isinstance(command, RetireAuthority):
        caller = caller or command.node_id
    call = UnstampedCall.of_node(NodeId(caller), command, request_id)
    (result,) = node.replicator.commit([Proposal(call=call)])
    return result


async def due(node: OneNode) -> tuple[DueAuthority, ...]:
    """Return what the cluster's status says."""
    status = await node.cluster.status(node.admin("ClusterService/GetStatus"))
    return status.due_authorities


def watch(
    node: OneNode,
    keys: tuple[AuthorityKey, ...],
    own: tuple[AuthorityKey, ...] = AUTHORITIES,
) -> AuthorityWatch:
    """Return what a node with these files runs. *own*: the authorities it trusts."""
    return AuthorityWatch(
        replicator=node.replicator,
        state=node.state,
        entropy=SystemEntropy(),
        keys=lambda: keys,
        trusted=lambda: own,
    )


def last_event(node: OneNode) -> tuple[str, str, str]:
    row: tuple[str, str, str] = node.primary_db.execute(
        "SELECT action, target, detail FROM audit_events ORDER BY sequence DESC"
    ).fetchone()
    return row


async def test_a_ticket_with_the_keys_is_on_record(tmp_path: Path) -> None:
    """(P6a) The commit that admits the node records it, whatever the node does later."""
    async with cluster(tmp_path) as running:
        await running.join(await running.ticket(with_authority=True))
        await remove(running.node, "n4")
        assert {
            (each.authority, each.fingerprint) for each in await due(running.node)
        } == {(key.authority, key.fingerprint) for key in AUTHORITIES}
        action, target, detail = last_event(running.node)
        assert (action, target) == ("RemoveMember", "n4")
        assert "members aaaaaaaaaaaaaaaa, agents bbbbbbbbbbbbbbbb" in detail


async def test_a_ticket_without_the_keys_leaves_nothing_due(tmp_path: Path) -> None:
    """(P6a) A reminder without a cause would be ignored like the next one."""
    async with cluster(tmp_path) as running:
        await running.join(await running.ticket())
        await remove(running.node, "n4", rotate_keys=True)
        assert await due(running.node) == ()


async def test_the_keys_of_a_founder_are_recorded_once(node: OneNode) -> None:
    """(P6a) Of authorities that it trusts; others sign nothing that anyone accepts."""
    stray = dataclasses.replace(AUTHORITIES[0], fingerprint="cc" * 32)
    for _ in range(3):
        await watch(node, (*AUTHORITIES, stray)).step()
    events = node.primary_db.execute(
        "SELECT actor, target, detail FROM audit_events "
        "WHERE action = 'NoteAuthorityKeys'"
    ).fetchall()
    assert events == [
        (f"node:{NODE}", NODE, "members aaaaaaaaaaaaaaaa, agents bbbbbbbbbbbbbbbb")
    ]


@pytest_asyncio.fixture
async def removal(node: OneNode) -> OneNode:
    """Return the node after the removal of n3, which has had the keys."""
    commit(node, NoteAuthorityKeys(node_id=NodeId("n3"), keys=AUTHORITIES))
    await remove(node, "n3")
    assert len(await due(node)) == len(AUTHORITIES)
    node.replicator.leads = True
    return node


async def test_authorities_are_due_until_no_member_trusts_them(
    removal: OneNode,
) -> None:
    """(P6a) One member that still trusts them lets the removed one in."""
    newer = tuple(
        dataclasses.replace(each, fingerprint="dd" * 32) for each in AUTHORITIES
    )
    trust = removal.replicator.authorities
    here = watch(removal, (), newer)
    for theirs in (AUTHORITIES, (*AUTHORITIES, *newer), (newer[0], AUTHORITIES[1])):
        trust.update({NODE: newer, "n0": theirs})
        await here.step()
        assert AUTHORITIES[1].fingerprint in {
            each.fingerprint for each in await due(removal)
        }
    trust["n0"] = newer
    await here.step()
    assert await due(removal) == ()
    action, target, detail = last_event(removal)
    assert (action, target.split()[0]) == ("RetireAuthority", "agents")
    assert detail == "no member trusts it; n3 had its key"


def announce(node: OneNode) -> AuthorityKey:
    """Let a member announce the successor of the first authority; return its key."""
    announcement = AnnounceAuthority(
        node_id=NodeId(NODE),
        authority=AUTHORITIES[0].authority,
        replaces=AUTHORITIES[0].fingerprint,
        fingerprint="dd" * 32,
        certificate=b"certificate",
        proof=b"proof",
    )
    commit(node, NoteAuthorityKeys(node_id=NodeId(NODE), keys=AUTHORITIES))
    commit(node, announcement)
    return AuthorityKey(
        authority=announcement.authority, fingerprint=announcement.fingerprint
    )


async def test_a_successor_that_no_member_trusts_yet_stays(removal: OneNode) -> None:
    """(P6a) Members look at the state in turns; its maker may be removed meanwhile."""
    successor = announce(removal)
    retired = commit(
        removal,
        RetireAuthority(
            authority=successor.authority, fingerprint=successor.fingerprint
        ),
        NODE,
    )
    assert isinstance(retired, Rejected)
    assert retired.detail.endswith("is announced, and not in place yet")
    row = removal.primary_db.execute(
        "SELECT node_id FROM authority_keys WHERE fingerprint = ?",
        (successor.fingerprint,),
    ).fetchone()
    assert row == (NODE,)


async def test_the_primary_waits_until_a_successor_is_in_place(
    removal: OneNode,
) -> None:
    """(P6a) Until then it asks for nothing that the state would refuse."""
    announce(removal)
    removal.replicator.authorities.update({NODE: AUTHORITIES, "n0": AUTHORITIES})
    before = len(removal.replicator.entries)
    await watch(removal, AUTHORITIES).step()
    assert len(removal.replicator.entries) == before


async def test_a_silent_member_may_still_trust_them(removal: OneNode) -> None:
    """(P6a) Neither silence nor another node's word ends it."""
    newer = tuple(
        dataclasses.replace(each, fingerprint="dd" * 32) for each in AUTHORITIES
    )
    removal.replicator.authorities.update({NODE: newer})
    await watch(removal, (), newer).step()
    assert len(await due(removal)) == len(AUTHORITIES)
    # An admitted node that has not made contact has the certificates of its ticket.
    removal.replicator.authorities["n0"] = newer
    await removal.membership.add_member(
        removal.admin("ClusterService/AddMember"), node_id="n7", address="n7:7301"
    )
    await watch(removal, (), newer).step()
    assert len(await due(removal)) == len(AUTHORITIES)
    removal.replicator.leads = False
    await remove(removal, "n7")
    await watch(removal, (), newer).step()
    assert len(await due(removal)) == len(AUTHORITIES)
    removal.replicator.leads = True
    await watch(removal, (), newer).step()
    assert await due(removal) == ()


async def test_a_machine_that_is_stolen_later_is_reported(node: OneNode) -> None:
    """(P6a) Its removal was long ago, and the policy did not ask for it then."""
    commit(node, NoteAuthorityKeys(node_id=NodeId("n3"), keys=AUTHORITIES))
    policy = await node.policies.get(node.admin("PolicyService/GetPolicy"))
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=policy.value.version,
        values={"authorities_due_after_removal": False},
    )
    await remove(node, "n3")
    assert await due(node) == ()
    await remove(node, "n3", rotate_keys=True)
    assert {each.cause for each in await due(node)} == {"request"}


async def test_a_super_administrator_alone_keeps_no_authority(tmp_path: Path) -> None:
    """(P3, P6a) Another one reads the reason, and the audit log names both."""
    async with running_node(tmp_path) as running:
        add = pb.AddMemberRequest(request_id=new_id(), node_id="n4", address="n4:7301")
        await root(running).call(ClusterServiceStub, "AddMember", add)
        eve = await administrator(running, "eve", SUPER_ADMIN)
        note(running, "n4")
        removed = await root(running).call(
            ClusterServiceStub,
            "RemoveMember",
            pb.RemoveMemberRequest(request_id=new_id(), node_id="n4"),
        )
        assert removed.due_authorities == ["members", "agents"]
        keep = pb.KeepAuthoritiesRequest(
            request_id=new_id(), node_id="n4", reason="its disk was shredded"
        )
        number = await root(running).needs_approval(
            ClusterServiceStub, "KeepAuthorities", keep
        )
        assert await due_of(running) == ["members", "agents"]
        await eve.approve(number)
        assert await due_of(running) == []
        again = pb.KeepAuthoritiesRequest(
            request_id=new_id(), node_id="n4", reason="its disk was shredded"
        )
        refusal = await root(running).refused(
            ClusterServiceStub, "KeepAuthorities", again
        )
        assert refusal.reason == "AUTHORITY_NOT_DUE"
        details = [row[8] for row in running.rows()["audit_events"]]
        assert any(
            "its disk was shredded; requested by root, approved by eve" in each
            for each in details
        )


def note(node: LoopbackNode, node_id: str) -> None:
    """Record the keys of a member, as the member would."""
    with node.state_written() as db:
        db.executemany(
            "INSERT INTO authority_keys VALUES (?, ?, ?, 0)",
            [(node_id, key.authority.value, key.fingerprint) for key in AUTHORITIES],
        )


async def due_of(node: LoopbackNode) -> list[str]:
    """Return what the cluster's status says."""
    status = await root(node).call(
        ClusterServiceStub, "GetStatus", pb.GetStatusRequest()
    )
    return [each.authority for each in status.due_authorities]


async def test_keeping_authorities_needs_a_reason(removal: OneNode) -> None:
    """(P6a) An auditor reads it later."""
    with pytest.raises(InvalidFieldError, match="reason"):
        await removal.membership.keep_authorities(
            removal.admin("ClusterService/KeepAuthorities"), node_id="n3", reason=""
        )
    with pytest.raises(Refused):
        await removal.membership.keep_authorities(
            removal.admin("ClusterService/KeepAuthorities"),
            node_id="n0",
            reason="never used",
        )
    assert len(await due(removal)) == len(AUTHORITIES)


async def test_a_member_without_a_status_may_still_trust_them(
    removal: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P6a) The list of those that answer is not the list of members."""
    newer = tuple(
        dataclasses.replace(each, fingerprint="dd" * 32) for each in AUTHORITIES
    )
    removal.replicator.authorities.update({NODE: newer, "n0": newer})
    statuses = await removal.replicator.status(digest=False, timeout_s=1)

    async def without_n0(**_: object) -> tuple[MemberStatus, ...]:
        return tuple(each for each in statuses if each.node_id != "n0")

    monkeypatch.setattr(removal.replicator, "status", without_n0)
    await watch(removal, (), newer).step()
    assert len(await due(removal)) == len(AUTHORITIES)


async def test_invented_keys_do_not_push_out_the_true_ones(node: OneNode) -> None:
    """(P6a) Nor can one member speak for another."""
    true, *_ = AUTHORITIES
    commit(node, NoteAuthorityKeys(node_id=NodeId("n3"), keys=(true,)))
    for number in range(2 * KEYS_MAX):
        invented = dataclasses.replace(true, fingerprint=f"{number:064x}")
        for caller in ("n3", "n0"):
            commit(
                node,
                NoteAuthorityKeys(node_id=NodeId("n3"), keys=(invented,)),
                caller=caller,
            )
    await remove(node, "n3")
    fingerprints = {each.fingerprint for each in await due(node)}
    assert true.fingerprint in fingerprints
    assert len(fingerprints) == KEYS_MAX


async def test_a_node_with_a_full_record_does_not_ask_again(node: OneNode) -> None:
    """(P6a) It would ask every ten seconds."""
    keys = tuple(
        dataclasses.replace(AUTHORITIES[0], fingerprint=f"{number:064x}")
        for number in range(KEYS_MAX)
    )
    await watch(node, keys, keys).step()
    before = len(node.replicator.entries)
    await watch(node, AUTHORITIES).step()
    assert len(node.replicator.entries) == before


async def test_only_members_of_a_raised_cluster_record_keys(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P6a) The older release does not know the command; a removed node is refused."""

    async def first(_: object) -> int:
        return FIRST

    before = len(node.replicator.entries)
    with monkeypatch.context() as below:
        below.setattr("sparecode_node.queries.cluster.feature_level", first)
        await watch(node, AUTHORITIES).step()
    node.replicator.gone.add(NODE)
    await watch(node, AUTHORITIES).step()
    assert len(node.replicator.entries) == before
    node.replicator.gone.clear()
    await watch(node, AUTHORITIES).step()
    assert len(node.replicator.entries) == before + 1


async def test_a_report_keeps_the_time_of_the_removal(removal: OneNode) -> None:
    """(P6a) And says that a person asked for it."""
    removed_ms = {each.since_ms for each in await due(removal)}
    removal.clock.pass_s(60)
    await remove(removal, "n3", rotate_keys=True)
    assert {each.since_ms for each in await due(removal)} == removed_ms
    assert {each.cause for each in await due(removal)} == {"request"}
