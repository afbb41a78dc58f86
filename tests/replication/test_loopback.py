# SPDX-License-Identifier: Apache-2.0
"""A replicator of one behaves as a cluster does."""

import asyncio

import pytest

from sparecode_node.replication.errors import NoPrimaryError, NoQuorumError
from sparecode_node.replication.loopback import LoopbackReplicator
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import SystemClock
from sparecode_node.statemachine.results import Applied
from tests.replication.recording import FixedStamper, RecordingState, proposal

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
    state, told = RecordingState(), list[str]()
    replicator = LoopbackReplicator(
        state, FixedStamper(), clock=SystemClock(), on_fatal=told.append
    )
    monkeypatch.setattr(state, "apply", lambda _index, _calls: 1 // 0)
    for _ in range(2):
        with pytest.raises(NoPrimaryError):
            await replicator.propose(proposal("r"), timeout_s=1)
    assert told == ["ZeroDivisionError('integer division or modulo by zero')"]
    assert not replicator.ready
