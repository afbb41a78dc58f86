# SPDX-License-Identifier: Apache-2.0
"""A replicator of one behaves as a cluster does."""

import asyncio

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    NoQuorumError,
)
from sparecode_node.replication.loopback import LoopbackReplicator
from sparecode_node.replication.members import Member
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import SystemClock
from sparecode_node.statemachine.results import Applied
from tests.replication.recording_state import FixedStamper, RecordingState, proposal

pytestmark = pytest.mark.asyncio


async def test_what_is_proposed_together_is_applied_together() -> None:
    state = RecordingState()
    loopback = LoopbackReplicator(state, FixedStamper(at_ms=5), clock=SystemClock())
    replicator: Replicator = loopback
    results = await asyncio.gather(
        *(replicator.propose(proposal(f"r{k}"), timeout_s=1) for k in range(3))
    )
    assert results == [Applied(index=1)] * 3
    assert [call.at_ms for call in state.entries[0][1]] == [5, 5, 5]
    assert await replicator.propose(proposal("r0"), timeout_s=1) == Applied(index=1)
    barrier = await replicator.read_barrier(timeout_s=1)
    assert (barrier.index, state.applied_index) == (3, 3)
    await replicator.wait_applied(3, timeout_s=1)
    with pytest.raises(NoQuorumError):
        await replicator.wait_applied(4, timeout_s=1)
    [status] = await replicator.status(digest=True, timeout_s=1)
    assert (status.applied_index, status.digest) == (3, state.digest())
    assert replicator.ready
    assert replicator.primary == replicator.node_id


async def test_a_broken_state_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state, report = RecordingState(), list[str]()
    replicator = LoopbackReplicator(
        state, FixedStamper(), clock=SystemClock(), on_fatal=report.append
    )
    monkeypatch.setattr(state, "apply", lambda _index, _calls: 1 // 0)
    for _ in range(2):
        with pytest.raises(NoPrimaryError):
            await replicator.propose(proposal("r"), timeout_s=1)
    assert report == ["ZeroDivisionError('integer division or modulo by zero')"]
    assert not replicator.ready


async def test_it_is_the_only_member() -> None:
    replicator = LoopbackReplicator(
        RecordingState(), FixedStamper(), clock=SystemClock()
    )
    n1, n2 = NodeId("n1"), NodeId("n2")
    assert replicator.members() == (Member(node_id=n1, address=""),)
    await replicator.promote(n1, timeout_s=1)
    refused = []
    for change in (
        replicator.add_learner(Member(node_id=n2, address="b:1"), timeout_s=1),
        replicator.remove_member(n1, timeout_s=1),
        replicator.promote(n2, timeout_s=1),
    ):
        with pytest.raises(ChangeRefusedError) as caught:
            await change
        refused.append(caught.value.rejected.reason)
    assert refused == [
        Reason.MEMBER_NOT_READY,
        Reason.MEMBER_NOT_READY,
        Reason.MEMBER_UNKNOWN,
    ]
