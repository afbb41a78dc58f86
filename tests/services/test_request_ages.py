# SPDX-License-Identifier: Apache-2.0
"""Request ids age by the primary's monotonic time, too: clocks may jump (Q3)."""

import pytest

from sparecode_node.domain.ids import RequestId
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.statemachine.commands import Call, UnstampedCall
from sparecode_node.statemachine.commands.cluster import PassBarrier
from tests.services.one_node import PIN, OneNode
from tests.services.two_replicas import NODE, NOW_MS

pytestmark = pytest.mark.asyncio

REQUEST = "8a3f5c1e-0b7d-4e2a-9c6f-1d2e3f4a5b6c"


def barrier(stamper: PrimaryStamper) -> Call:
    """Stamp a call that decides nothing."""
    call = UnstampedCall.of_node(NODE, PassBarrier(), RequestId("1"))
    (stamped,) = stamper.stamp([Proposal(call=call)])
    assert isinstance(stamped, Call)
    return stamped


async def test_a_jump_of_the_clocks_forgets_no_accepted_call(node: OneNode) -> None:
    """(Q2, Q3, T5) A retry was refused after its call had been accepted."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    assert await node.accepts(PIN + code, request_id=REQUEST)
    node.clock.jump_s(3600)
    for _ in range(2):
        assert await node.accepts(PIN + code, request_id=REQUEST)
    node.clock.pass_s(601)
    assert not await node.accepts(PIN + code, request_id=REQUEST)
    assert node.reasons()[-1] == "code_not_live"


async def test_another_primary_goes_on_where_the_state_is(node: OneNode) -> None:
    """(Q3) Its machine has been up for another time; nothing ages by the difference."""
    machine_ms = 5_000_000

    def another() -> PrimaryStamper:
        return PrimaryStamper(
            seeds=node.seeds,
            sealing=node.sealing,
            clock=node.clock,
            monotonic_ms=lambda: machine_ms,
        )

    await node.add_user()
    row = "SELECT value FROM meta WHERE name = 'monotonic_ms'"
    (reached,) = node.primary_db.execute(row).fetchone()
    new = another()
    first = barrier(new)
    machine_ms += 700
    assert (first.monotonic_ms, first.at_ms) == (reached + 1, NOW_MS)
    assert barrier(new).monotonic_ms == reached + 701
    machine_ms = 12
    assert barrier(another()).monotonic_ms == reached + 1


async def test_a_new_primary_has_followed_the_former_one(node: OneNode) -> None:
    """(Q3) Ids aged no further than to the last call before each election."""
    machine_ms = 5_000_000
    replica = PrimaryStamper(
        seeds=node.seeds,
        sealing=node.sealing,
        clock=node.clock,
        monotonic_ms=lambda: machine_ms,
    )
    replica.follow(40_000)
    machine_ms += 660_000
    replica.follow(40_001)  # It has arrived late.
    assert barrier(replica).monotonic_ms == 700_000
    replica.follow(700_020)
    assert barrier(replica).monotonic_ms == 700_020


async def test_below_level_2_no_monotonic_time_is_stamped(node: OneNode) -> None:
    """Release 0.1.0 does not read it."""
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE meta SET value = 1 WHERE name = 'feature_level'")
        db.commit()
    stamper = PrimaryStamper(seeds=node.seeds, sealing=node.sealing, clock=node.clock)
    assert barrier(stamper).monotonic_ms == 0
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE meta SET value = 2 WHERE name = 'feature_level'")
        db.commit()
    assert barrier(stamper).monotonic_ms > 0
