# SPDX-License-Identifier: Apache-2.0
"""The primary brings the engine's membership in line with the replicated state."""

import logging

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.errors import ChangeRefusedError
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.services.cluster.membership_sync import MembershipSync
from tests.services.one_node import OneNode
from tests.services.two_replicas import TwoReplicas

pytestmark = pytest.mark.asyncio

N4 = Member(node_id=NodeId("n4"), address="n4:7301")


class Engine(TwoReplicas):
    """An engine that obeys at once, or refuses."""

    learners: dict[NodeId, MemberRole]
    refuses = ""

    def members(self) -> tuple[Member, ...]:
        added = (
            Member(node_id=node_id, address="", role=role)
            for node_id, role in self.learners.items()
        )
        return (*super().members(), *added)

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:
        await super().add_learner(member, timeout_s=timeout_s)
        if self.refuses:
            rejected = Rejected(Reason.MEMBER_NOT_READY, self.refuses)
            raise ChangeRefusedError(rejected)
        self.learners[member.node_id] = MemberRole.LEARNER

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:
        await super().promote(node_id, timeout_s=timeout_s)
        self.learners[node_id] = MemberRole.VOTER


@pytest.fixture
def growing(node: OneNode) -> MembershipSync:
    """Return the synchronization of the node's engine."""
    node.replicator.__class__ = Engine
    assert isinstance(node.replicator, Engine)
    node.replicator.learners = {}
    return MembershipSync(node.replicator, node.state)


async def add(node: OneNode) -> None:
    await node.membership.add_member(
        node.admin("ClusterService/AddMember"), node_id="n4", address="n4:7301"
    )


async def test_an_admitted_node_is_added_and_then_votes(
    node: OneNode, growing: MembershipSync
) -> None:
    await growing.step()
    assert node.replicator.changes == []
    await add(node)
    await growing.step()
    assert node.replicator.changes == [("add_learner", N4), ("promote", "n4")]
    await growing.step()
    assert len(node.replicator.changes) == 2


async def test_a_refused_change_is_retried_and_logged_once(
    node: OneNode, growing: MembershipSync, caplog: pytest.LogCaptureFixture
) -> None:
    await add(node)
    assert isinstance(node.replicator, Engine)
    node.replicator.refuses = "another change is under way"
    with caplog.at_level(logging.WARNING):
        await growing.step()
        await growing.step()
    assert [record.message for record in caplog.records] == ["member_not_changed"]
    node.replicator.refuses = ""
    await growing.step()
    assert node.replicator.changes[-1] == ("promote", "n4")


async def test_a_removed_node_is_not_added_again(
    node: OneNode, growing: MembershipSync
) -> None:
    """A learner without a record is not forgotten: it votes when it can."""
    await add(node)
    await node.membership.remove_member(
        node.admin("ClusterService/RemoveMember"), node_id="n4"
    )
    await growing.step()
    assert node.replicator.changes == []
    assert isinstance(node.replicator, Engine)
    node.replicator.learners[NodeId("n5")] = MemberRole.LEARNER
    await growing.step()
    assert node.replicator.changes == [("promote", "n5")]


async def test_a_learner_votes_while_it_fetches_older_audit_segments(
    node: OneNode, growing: MembershipSync
) -> None:
    """(U1) After years that takes hours, and two voters survive no further failure."""
    await add(node)
    node.local_db.execute("INSERT INTO audit_segments VALUES (1, 1, 9, 7, 7, x'', x'')")
    node.local_db.commit()
    await growing.step()
    assert node.replicator.changes == [("add_learner", N4), ("promote", "n4")]
