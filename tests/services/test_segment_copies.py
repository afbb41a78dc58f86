# SPDX-License-Identifier: Apache-2.0
"""Copies of sealed segments, while members come, go and fetch what they lack (U1)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.segments import Holding
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.services.cluster.segment_holders import Stay, who_stays
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.services.errors import Refused
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.tables import segments
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.state import check_state
from tests.services.one_node import OneNode, one_node
from tests.services.test_notices import add_users
from tests.services.test_segments import EVENTS, discard, holder

pytestmark = pytest.mark.asyncio

REMOVE = "ClusterService/RemoveMember"
N0, N1, N3, N4 = map(NodeId, ("n0", "n1", "n3", "n4"))
ALL = Holding(through=3)
NEWEST = Holding(through=3, missing=((1, 2),))
"""Of a new voter, whose snapshot had the events of one segment."""


@pytest_asyncio.fixture
async def node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments, in a cluster with n0 and n3, which is down."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


def tell(node: OneNode, **holdings: Holding) -> None:
    """Save what members hold, on both replicas."""
    for db in (node.local_db, node.primary_db):
        for name, holding in holdings.items():
            segments.save_holding(db, NodeId(name), holding, 1)
        db.commit()


async def remove(node: OneNode, member: str) -> None:
    await node.membership.remove_member(node.admin(REMOVE), node_id=member)


async def test_a_new_voter_holds_up_no_discard(node: OneNode, tmp_path: Path) -> None:
    """(U1) It fetches what no state has any more; of newer events it has its own copy."""
    stored: list[Any] = []
    keeper = SegmentKeeper(tmp_path / "local.db", stored.append)
    holders = holder(node, keeper)
    await keeper.step()
    tell(node, n0=ALL, n1=ALL, n3=NEWEST)
    await holders.step()
    await keeper.step()
    assert stored[-1] is None, "the state has segments that n3 lacks"
    node.local_db.execute(
        "DELETE FROM audit_events WHERE sequence <= ?", (2 * EVENTS + 1,)
    )
    node.local_db.commit()
    await keeper.step()
    assert stored[-1].segment.number == 3
    keeper._file.close()


async def test_a_gap_of_a_voter_keeps_what_comes_after_it(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) Apply discards from the oldest event on, so it must end before the gap."""
    stored: list[Any] = []
    keeper = SegmentKeeper(tmp_path / "local.db", stored.append)
    holders = holder(node, keeper)
    await keeper.step()
    tell(node, n0=ALL, n1=ALL, n3=Holding(through=3, missing=((2, 2),)))
    await holders.step()
    await keeper.step()
    assert stored[-1].segment.number == 1
    keeper._file.close()


async def test_a_member_that_answers_stays_while_a_majority_lacks_its_segments(
    node: OneNode,
) -> None:
    """(U1) Then a segment survives what the cluster survives."""
    node.replicator.busy = {"n3"}
    tell(node, n0=ALL, n1=ALL, n3=NEWEST)
    with pytest.raises(Refused, match="n0 has segments 1 to 2") as refused:
        await remove(node, "n0")
    assert refused.value.rejected.reason is Reason.LAST_SEGMENT_HOLDER
    assert node.replicator.changes == []
    tell(node, n3=ALL)
    await remove(node, "n0")
    assert node.replicator.changes == [("remove_member", "n0")]


async def test_a_member_that_is_down_is_no_copy_to_count_on(node: OneNode) -> None:
    tell(node, n0=ALL, n1=ALL, n3=ALL)
    with pytest.raises(Refused, match="fewer than 2 have them"):
        await remove(node, "n0")


async def test_a_destroyed_member_is_removed_at_once(node: OneNode) -> None:
    """(U1) Otherwise the cluster would survive no further failure until all is fetched."""
    tell(node, n0=NEWEST, n1=ALL, n3=ALL)
    await remove(node, "n3")
    assert node.replicator.changes == [("remove_member", "n3")]


async def test_a_majority_is_one_of_the_voters_that_stay(node: OneNode) -> None:
    tell(node, n0=ALL)
    node.replicator.joined = tuple(
        Member(node_id=each, address=f"{each}:1", role=role)
        for each, role in (
            (N4, MemberRole.VOTER),
            (NodeId("n5"), MemberRole.VOTER),
            (NodeId("n6"), MemberRole.LEARNER),
        )
    )

    async def stay(leaving: NodeId) -> Stay:
        return await who_stays(node.replicator, node.state, leaving, timeout_s=5)

    assert await stay(N0) == Stay(members=(N1,), copies=3)
    assert await stay(N1) == Stay(), "it has told nothing"
    node.replicator.busy = {"n3"}
    assert await stay(N0) == Stay(members=(N1, N3), copies=3)


async def test_a_state_that_keeps_sealed_segments_is_named(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) A voter that is down makes the states of all others grow."""
    path = tmp_path / "local.db"
    tell(node, n0=ALL, n1=ALL, n3=Holding(through=1))
    counts = EventCounts(path)

    def kept() -> tuple[int, list[str]]:
        counts.take()
        findings = check_state(path, journal=None, ring=None)
        told = [each for each in findings if each.subject == "audit segments"]
        assert all(each.verdict is Verdict.WARN for each in told)
        return counts.segments_in_state, [each.words for each in told]

    number, (words,) = kept()
    assert number == 3
    assert words == (
        "the state keeps 3 sealed segments, and grows, until all voters have stored "
        "them; not all are stored by: n3; start or mend these members, or remove them"
    )
    await discard(node, path)
    assert kept() == (0, [])
