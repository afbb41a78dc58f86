# SPDX-License-Identifier: Apache-2.0
"""The same, of whole nodes: what their callers are told, and when."""

from types import SimpleNamespace
from typing import Any

from sparecode_node.replication.errors import NoQuorumError
from tests.simulation.broken_runs import breaks, submission
from tests.simulation.invariants import Invariants, Read
from tests.simulation.nodes.lateness import ANSWER_LATE_S, judge_time


def answered(asked: Any, *, late_s: float, paused_until: float = 0.0) -> Invariants:
    """Return what is seen of an answer that comes so long after its deadline."""
    node: Any = SimpleNamespace(paused_until=paused_until, replicator=None)
    world: Any = SimpleNamespace(
        invariants=Invariants(), now=asked.deadline + late_s, effects={}
    )
    judge_time(world, node, asked, NoQuorumError("no"))
    result: Invariants = world.invariants
    return result


def late(asked: Any) -> Invariants:
    """Return what is seen of a late answer, and see that none is seen before that."""
    deadline, more_s = asked.deadline, ANSWER_LATE_S + 0.1
    assert not answered(asked, late_s=ANSWER_LATE_S - 0.1).violations
    assert not answered(asked, late_s=more_s, paused_until=deadline + 0.2).violations
    return answered(asked, late_s=more_s)


@breaks("answered in time")
def a_node_that_answers_a_call_late() -> Invariants:
    return late(submission())


@breaks("answered in time")
def a_node_that_answers_a_read_late() -> Invariants:
    return late(Read("n1.1.0", 10.0, floor=0))


NODE_RUNS = True
"""Importing this module adds its runs."""
