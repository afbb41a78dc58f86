# SPDX-License-Identifier: Apache-2.0
"""The same, of whole nodes: what their callers are told, and when."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.replication.raft.read_index import ReadPoint
from sparecode_node.statemachine.results import Applied
from tests.simulation.broken_runs import breaks, submission
from tests.simulation.fault_effects import Effect
from tests.simulation.invariants import Invariants, Read
from tests.simulation.nodes.bounds import BOUND_EACH_S, BOUND_S, Bounds
from tests.simulation.nodes.fetches import BOUND_S as FETCH_BOUND_S
from tests.simulation.nodes.fetches import Fetches
from tests.simulation.nodes.lateness import ANSWER_LATE_S, judge_time
from tests.simulation.nodes.mixed import check_level
from tests.simulation.scenarios import SHORT_LOG


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


def core(*, n1: bool, n2: bool) -> Invariants:
    """Return what is seen of a core whose nodes answer, or do not answer for long."""
    bounds, seen = Bounds(), Invariants()
    bounds.begin(0.0, ["n1", "n2"])
    for name, answers in (("n1", n1), ("n2", n2)):
        outcome: Any = Applied(index=2) if answers else NoQuorumError("no")
        read = Read(f"{name}.1.0", 10.0, floor=0)
        read.outcomes.append(ReadPoint(index=2, state_ms=0))
        bounds.asked(name, submission(outcomes=[outcome]), read)
    longer = BOUND_EACH_S if n1 or n2 else BOUND_S
    bounds.take_answers(longer)
    bounds.check(seen, longer, str)
    assert not seen.violations
    bounds.check(seen, longer + 0.1, str)
    return seen


@breaks("core answers")
def a_core_that_answers_nothing() -> Invariants:
    return core(n1=False, n2=False)


@breaks("each of the core answers")
def a_core_of_which_one_node_answers() -> Invariants:
    return core(n1=True, n2=False)


@breaks("fetch ends")
def a_member_that_does_not_catch_up() -> Invariants:
    world = SimpleNamespace(
        now=0.0,
        ids=["n1", "n2"],
        raft=SHORT_LOG,
        nodes={"n2": SimpleNamespace(node_id="n2", replica=None)},
        invariants=Invariants(),
        effects=Counter[Effect](),
        faults=SimpleNamespace(mend=lambda _node: None, mend_between=lambda _ids: None),
        live=list,
        trace=lambda *_: None,
        describe=str,
    )

    def step() -> None:
        world.now += FETCH_BOUND_S / 2

    world.step = step
    Fetches(world, random.Random(1), random.Random(2)).come_back(["n2"])
    assert world.now > FETCH_BOUND_S
    return world.invariants


@breaks("members know the level")
def a_level_that_a_member_does_not_know() -> Invariants:
    seen = Invariants()
    check_level(seen, 2, [])
    assert not seen.violations
    check_level(seen, 2, ["n2"])
    return seen


NODE_RUNS = True
"""Importing this module adds its runs."""
