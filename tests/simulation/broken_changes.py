# SPDX-License-Identifier: Apache-2.0
"""The same, of changes of members that were called not applied, and are made."""

from types import SimpleNamespace

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.replication.raft.membership_changes import Remove
from tests.simulation.broken_runs import THREE, breaks, node
from tests.simulation.changes import Wish
from tests.simulation.invariants import Invariants

NO = NoQuorumError("no")


def removed(leader: str, *told: object, travels: bool = False) -> Invariants:
    """Return what is seen of a removal, and what those were told that n1 was asked by."""
    change = Remove(NodeId("n3"))
    wishes = [
        Wish(f"n1.1.{k}", 0.0, change=change, travels=travels) for k in range(len(told))
    ]
    seen = Invariants(wishes=wishes)
    journal = SimpleNamespace(configuration=THREE, last_index=4)
    appends = node(leader, 3, leads=True, life=1, journal=journal)
    seen.changes.on_append(appends, THREE.without(change.node_id), wishes)
    for wish, outcome in zip(wishes, told, strict=True):
        seen.on_wish(wish, outcome)
    seen.check_applied()
    assert not seen.violations  # No one has committed it yet.
    seen.on_apply("n2", 3, 5, [], entry_term=3)
    seen.check_applied()
    return seen


@breaks("changes not applied")
def a_removal_that_was_called_not_applied() -> Invariants:
    # It may be for the one that was told nothing else than that it is not known.
    assert not removed("n1", NO, OutcomeUnknownError("who knows?")).violations
    assert not removed("n2", NO).violations  # It was not asked.
    return removed("n1", NO, NO)


@breaks("changes not applied")
def a_removal_by_a_node_that_another_one_has_asked() -> Invariants:
    return removed("n2", NO, travels=True)


CHANGED_RUNS = True
"""Importing this module adds its runs."""
