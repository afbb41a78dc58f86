# SPDX-License-Identifier: Apache-2.0
"""Members come and go over real gRPC, certificates and files (item 6)."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from local_cluster.cluster import free_ports

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.errors import ChangeRefusedError, RemovedError
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.replication.raft.admission import Refusal
from tests.replication import cluster
from tests.replication.cluster import (
    Node,
    member_tls,
    new_authority,
    outcome,
    ready,
)
from tests.replication.recording_state import RecordingState, proposal

pytestmark = pytest.mark.asyncio

WAIT_S = 60
N2, N3, N4 = NodeId("n2"), NodeId("n3"), NodeId("n4")


@dataclass
class Site:
    """A place where nodes are put up."""

    directory: Path
    authority: Authority
    nodes: dict[str, Node]

    def node(
        self, node_id: str, members: dict[NodeId, str], *, joins: bool = False
    ) -> Node:
        tls = member_tls(self.authority, node_id)
        node = Node(node_id, members, tls, self.directory / node_id)
        addresses = replace(node.config.addresses, joins=joins)
        node.config = replace(node.config, addresses=addresses)
        self.nodes[node_id] = node
        return node

    async def joiner(self, node_id: str) -> tuple[Node, Member]:
        """Start a new node; return it as a member."""
        known = {m.node_id: m.address for m in self.any.replicator.members()}
        address = f"127.0.0.1:{free_ports(1)[0]}"
        member = Member(node_id=NodeId(node_id), address=address)
        node = self.node(node_id, {**known, member.node_id: address}, joins=True)
        await node.start()
        return node, member

    @property
    def any(self) -> Node:
        return next(iter(self.nodes.values()))

    async def primary(self) -> Node:
        async def primary_known() -> bool:
            return self.any.replicator.primary in self.nodes

        await until(primary_known)
        return self.nodes[self.any.replicator.primary or ""]

    async def stop(self) -> None:
        nodes = self.nodes.values()
        await asyncio.gather(*(n.stop() for n in nodes), return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - of another thread.
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, new_authority(), {})
    ids = ("n1", "n2", "n3")
    ports = zip(ids, free_ports(3), strict=True)
    members = {NodeId(i): f"127.0.0.1:{port}" for i, port in ports}
    for i in ids:
        await site.node(i, members).start()
    try:
        yield site
    finally:
        await site.stop()


async def put(site: Site, request: str) -> None:
    """Commit a call through any node, once that is in contact with a quorum."""
    await ready(site.any)
    await cluster.put(site.any, request)


async def remove(site: Site, node_id: NodeId) -> None:
    calls = site.any.replicator
    await outcome(lambda: calls.remove_member(node_id, timeout_s=WAIT_S))


async def until_applied(node: Node, request: str) -> None:
    async def there() -> bool:
        return request in node.state.results

    await until(there)


async def grown(site: Site, node_id: str = "n4") -> Node:
    """Add a voter; return its node."""
    await put(site, "before")
    new, member = await site.joiner(node_id)
    calls = site.any.replicator
    await outcome(lambda: calls.add_learner(member, timeout_s=WAIT_S))
    await until_applied(new, "before")
    await outcome(lambda: calls.promote(member.node_id, timeout_s=WAIT_S))
    return new


def voters(node: Node) -> set[str]:
    members = node.replicator.members()
    return {m.node_id for m in members if m.role is MemberRole.VOTER}


async def test_a_node_joins_votes_and_serves(site: Site) -> None:
    """It was told of the others; they learn from the log where it is."""
    new = await grown(site)
    for node in site.nodes.values():

        async def known(node: Node = node) -> bool:
            return voters(node) == {"n1", "n2", "n3", "n4"}

        await until(known)
    calls = new.replicator
    leads = await outcome(lambda: calls.transfer_primary(N4, timeout_s=WAIT_S))
    assert leads == "n4"
    await put(site, "after")
    for node in site.nodes.values():
        await until_applied(node, "after")

    async def complete() -> bool:
        # The primary tells what is on whose disk, so there must be one.
        report = await calls.status(digest=False, timeout_s=WAIT_S)
        assert {(s.node_id, s.role) for s in report} == {
            (NodeId(i), MemberRole.VOTER) for i in ("n1", "n2", "n3", "n4")
        }
        return all(s.reachable and s.match_index > 1 for s in report)

    await until(complete)


async def test_a_node_takes_the_place_of_another_and_knows_it_after_a_restart(
    site: Site,
) -> None:
    """The members are those of the journal, whatever the file says (item 6)."""
    new = await grown(site)
    await remove(site, N3)
    old = site.nodes.pop("n3")
    await old.stop()
    for node in site.nodes.values():
        await node.stop()
    for node in site.nodes.values():
        await node.start()
    await put(site, "after")
    await until_applied(new, "after")
    assert voters(new) == {"n1", "n2", "n4"}


async def test_the_primary_hands_over_before_it_is_removed(site: Site) -> None:
    await put(site, "before")
    primary = await site.primary()
    calls = next(n for n in site.nodes.values() if n is not primary)
    await outcome(
        lambda: calls.replicator.remove_member(primary.node_id, timeout_s=WAIT_S)
    )
    del site.nodes[primary.node_id]
    assert (await site.primary()).node_id != primary.node_id
    await put(site, "after")
    await primary.stop()


async def test_a_removed_node_that_returns_is_refused_and_told(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await put(site, "before")
    primary = await site.primary()
    gone = next(n for n in site.nodes.values() if n is not primary)
    await remove(site, gone.node_id)
    del site.nodes[gone.node_id]
    await gone.stop()
    term = (await primary.replicator.status(digest=False, timeout_s=WAIT_S))[0].term
    await gone.start()

    async def refusal_logged() -> bool:
        causes = {getattr(record, "cause", "") for record in caplog.records}
        return any("was removed from the cluster" in cause for cause in causes)

    await until(refusal_logged)
    assert not gone.replicator.ready
    assert gone.replicator.removed
    assert not primary.replicator.removed
    with pytest.raises(RemovedError):
        await gone.replicator.propose(proposal("there"), timeout_s=WAIT_S)
    with pytest.raises(RemovedError):
        await gone.replicator.read_barrier(timeout_s=WAIT_S)
    await put(site, "after")
    [own, *_] = await primary.replicator.status(digest=False, timeout_s=WAIT_S)
    assert (own.term, own.is_primary) == (term, True)
    assert "there" not in primary.state.results
    again = Member(node_id=gone.node_id, address="127.0.0.1:1")
    with pytest.raises(ChangeRefusedError) as refused:
        await site.any.replicator.add_learner(again, timeout_s=WAIT_S)
    assert refused.value.rejected.reason is Reason.MEMBER_REMOVED
    await gone.stop()


async def test_a_node_that_is_removed_while_it_runs_says_so(site: Site) -> None:
    """By its own log: the entry reaches it before its links end."""
    await put(site, "before")
    primary = await site.primary()
    gone = next(n for n in site.nodes.values() if n is not primary)
    await remove(site, gone.node_id)
    del site.nodes[gone.node_id]

    async def knows() -> bool:
        return gone.replicator.removed

    await until(knows)
    with pytest.raises(RemovedError):
        await gone.replicator.read_barrier(timeout_s=WAIT_S)
    await gone.replicator.remove_member(gone.node_id, timeout_s=WAIT_S)
    with pytest.raises(RemovedError):
        await gone.replicator.remove_member(primary.node_id, timeout_s=WAIT_S)
    await gone.stop()


async def test_a_wiped_node_is_refused_under_its_id_and_returns_under_another(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """(audit, p12d) It has forgotten its promises, so its vote counts no more."""
    await put(site, "before")
    primary = await site.primary()

    async def named() -> bool:
        return all(m.journal_id for m in site.any.replicator.members())

    await until(named)
    wiped = next(n for n in site.nodes.values() if n is not primary)
    del site.nodes[wiped.node_id]
    await wiped.stop()
    shutil.rmtree(wiped.config.directory)
    wiped.config.directory.mkdir()
    wiped.state = RecordingState()
    await wiped.start()

    async def refusal_logged() -> bool:
        causes = {getattr(record, "cause", "") for record in caplog.records}
        return any("journal is not the one" in cause for cause in causes)

    await until(refusal_logged)
    assert not wiped.replicator.ready
    assert Refusal.ANOTHER_JOURNAL in wiped.replicator.refusals.values()
    assert not wiped.replicator.removed
    assert not primary.replicator.refusals
    assert wiped.state.applied_index <= 1
    await put(site, "meanwhile")
    assert "meanwhile" not in wiped.state.results
    await wiped.stop()
    new = await grown(site)
    await remove(site, wiped.node_id)
    await put(site, "after")
    await until_applied(new, "after")
    await until_applied(primary, "after")
    assert new.state.digest() == primary.state.digest()


async def test_all_but_one_move_at_once_and_meet_again(site: Site) -> None:
    """
    The node that stayed has the address of the log, and dials the others' new ones.

    Before that there is no leader to record the addresses. Each moved node finds the
    others once the node that all have found leads.
    """
    await put(site, "before")
    moving = [site.nodes["n2"], site.nodes["n3"]]
    for node in site.nodes.values():
        await node.stop()
    await site.nodes["n1"].start()
    for node, port in zip(moving, free_ports(2), strict=True):
        own = {node.node_id: f"127.0.0.1:{port}"}
        addresses = replace(
            node.config.addresses,
            listen=own[node.node_id],
            members={**node.config.addresses.members, **own},
        )
        node.config = replace(node.config, addresses=addresses)
        await node.start()
    await put(site, "after")
    stayed = site.nodes["n1"].replicator
    await outcome(lambda: stayed.transfer_primary(stayed.node_id, timeout_s=WAIT_S))
    for node in site.nodes.values():
        await until_applied(node, "after")
    known = {
        node.node_id: node.config.addresses.members[node.node_id]
        for node in site.nodes.values()
    }
    for node in site.nodes.values():

        async def written(node: Node = node) -> bool:
            members = node.replicator.members()
            return {m.node_id: m.address for m in members} == known

        await until(written)


async def test_a_learner_that_has_not_caught_up_does_not_vote(site: Site) -> None:
    await put(site, "before")
    absent = Member(node_id=N4, address=f"127.0.0.1:{free_ports(1)[0]}")
    calls = site.any.replicator
    await outcome(lambda: calls.add_learner(absent, timeout_s=WAIT_S))
    with pytest.raises(ChangeRefusedError) as refused:
        await outcome(lambda: calls.promote(N4, timeout_s=1))
    assert refused.value.rejected.reason is Reason.MEMBER_NOT_READY
    assert "n4 is not in contact" in refused.value.rejected.detail
    await put(site, "after")  # It counts for nothing.
