# SPDX-License-Identifier: Apache-2.0
"""The same, of the agreement about sealed segments."""

import random
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.segments import Holding
from sparecode_node.services.cluster.segment_plan import Plan
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.tables.segments import Segment
from tests.simulation.agreement import Agreement
from tests.simulation.broken_runs import breaks
from tests.simulation.invariants import Invariants
from tests.simulation.rules import CodeRules
from tests.simulation.sealed import SealedFile

SEGMENT = Segment(
    number=1,
    first_sequence=1,
    last_sequence=2,
    first_at_ms=1,
    last_at_ms=2,
    hash_before=bytes(32),
    hash_after=bytes([1]) * 32,
)


class BoastfulFile(SealedFile):
    """A file without events that counts the segment as stored."""

    def stored(self) -> dict[int, bytes]:
        return {SEGMENT.number: SEGMENT.hash_after}


def agreement(rules: CodeRules) -> Agreement:
    """Return an agreement of nodes that have no leader."""
    return Agreement(random.Random(1), rules, lambda: None, lambda *_: None)


@breaks("proved before it counts as stored")
def a_segment_that_counts_and_has_no_events() -> Invariants:
    rules = CodeRules()
    db = SimpleNamespace(all_sealed=lambda: [SEGMENT])
    store: Any = SimpleNamespace(db=db, sealed=BoastfulFile())
    agreement(rules).see_stored("n1", store)
    return rules


@breaks("stored by all voters before it is discarded")
def a_discard_of_what_no_voter_has_stored() -> Invariants:
    rules = CodeRules()
    plan = Plan(holding=Holding(), stored=Stored(segment=SEGMENT, first=1))
    voters = frozenset({"n1", "n2"})
    agreement(rules)._see_discarded("n1", voters, plan, [SEGMENT])
    return rules


SEGMENT_RUNS = True
"""Importing this module adds its runs."""
