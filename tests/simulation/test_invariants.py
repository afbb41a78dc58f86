# SPDX-License-Identifier: Apache-2.0
"""Every check of the simulation sees what it is for: each is shown a broken run, by hand."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Promote,
    Remove,
)
from tests.simulation import sqlite_store
from tests.simulation.broken_changes import CHANGED_RUNS
from tests.simulation.broken_codes import NO_TIMES, log_again, used
from tests.simulation.broken_disks import DISK_RUNS
from tests.simulation.broken_new_clusters import NEW_CLUSTER_RUNS
from tests.simulation.broken_nodes import NODE_RUNS
from tests.simulation.broken_outbox import OUTBOX_RUNS
from tests.simulation.broken_promises import PROMISED_RUNS
from tests.simulation.broken_reads import READ_RUNS
from tests.simulation.broken_returns import RETURNED_RUNS
from tests.simulation.broken_rotations import ROTATED_RUNS
from tests.simulation.broken_runs import (
    BROKEN,
    THREE,
    Broken,
    install,
    invariants_of,
    members,
    memberships,
)
from tests.simulation.broken_segments import SEGMENT_RUNS
from tests.simulation.invariants import Invariants
from tests.simulation.people import (
    HURRIED,
    IssuedSet,
)


@pytest.mark.parametrize(
    ("change", "kept", "lost"),
    [
        (Remove(NodeId("n3")), THREE.without(NodeId("n3")), THREE),
        (
            Promote(NodeId("n4")),
            members(n1="VOTER", n4="VOTER"),
            members(n1="VOTER", n4="LEARNER"),
        ),
        (
            AddLearner(Member(node_id=NodeId("n4"), address="")),
            members(n1="VOTER", n4="LEARNER"),
            THREE,
        ),
        (Promote(NodeId("n3")), THREE.without(NodeId("n3")), members(n1="VOTER")),
    ],
)
def test_an_acknowledged_change_of_members_is_there_in_the_end(
    change: Any, kept: Configuration, lost: Configuration
) -> None:
    """Or a later one: a promoted member may have been removed since."""
    for configuration, violations in ((kept, set()), (lost, {"changes kept"})):
        result = memberships(configuration)
        result.acknowledged.append(change)
        result.check()
        assert invariants_of(result).violations.keys() == violations


def test_a_snapshot_that_is_newer_committed_and_whole_is_none_of_these() -> None:
    assert not install(before=5, index=6, committed=9, digest="d").violations


def test_a_code_of_the_newest_set_before_its_end_is_none_of_these() -> None:
    hurried = IssuedSet(HURRIED, 1, 3, lifetime_ms=100)
    times_ms = {**NO_TIMES, 3: 1000, 5: 1099}
    later = {3: hurried.set_id, 6: IssuedSet(HURRIED, 2, 3).set_id}
    sets = [hurried, IssuedSet(HURRIED, 2, 3)]
    assert not used(sets, 5, log_again(later, times_ms)).violations


@pytest.mark.parametrize(
    ("kind", "make"),
    [(kind, make) for kind, makes in BROKEN.items() for make in makes],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_broken_by_hand_is_seen(kind: str, make: Broken) -> None:
    assert make().violations.keys() == {kind}


def test_no_check_is_left_out_here() -> None:
    text = "".join(
        path.read_text()
        for path in Path(__file__).parent.rglob("*.py")
        # Planted bugs show that those of clusters that share users notice.
        if not path.name.startswith("test_") and path.parent.name != "groups"
    )
    kinds = set(re.findall(r'violated\(\s*"([^"]+)"', text))
    kinds |= {"starts unaided", "no halt"}  # Chosen between, in `run_on`.
    assert len(kinds) > 25
    assert kinds == BROKEN.keys()
    assert CHANGED_RUNS
    assert DISK_RUNS
    assert NEW_CLUSTER_RUNS
    assert NODE_RUNS
    assert OUTBOX_RUNS
    assert PROMISED_RUNS
    assert READ_RUNS
    assert RETURNED_RUNS
    assert ROTATED_RUNS
    assert SEGMENT_RUNS


def test_states_that_are_damaged_alike_are_not_equal() -> None:
    """A state that cannot be read has the digest of no other one."""
    nodes: list[Any] = [
        SimpleNamespace(
            node_id=name, store=SimpleNamespace(digest=lambda: sqlite_store.DAMAGED)
        )
        for name in ("n1", "n2")
    ]
    invariants = Invariants()
    invariants.check_digests(nodes)
    assert invariants.violations.keys() == {"equal digests"}
