# SPDX-License-Identifier: Apache-2.0
"""Whether callers of whole nodes are answered in time, and what ended their calls."""

from typing import Any

from sparecode_node.replication.cluster_replicator import RETRY_S
from sparecode_node.replication.errors import ProposeError
from tests.simulation.fault_effects import Effect
from tests.simulation.invariants import Read, Submission

ANSWER_LATE_S = 0.6
"""Of an answer: the product's grace, on a clock that runs two in a hundred slow."""


def judge_time(world: Any, node: Any, asked: Submission | Read, outcome: Any) -> None:
    """See that an answer is not late: a pause excuses it, a busy engine does not."""
    world.invariants.check_late(asked, world.now, ANSWER_LATE_S, node.paused_until)
    is_over = world.now >= asked.deadline - RETRY_S
    if is_over and isinstance(outcome, ProposeError) and node.replicator is not None:
        has_contact = node.replicator.replica_status.has_contact
        world.effects[Effect.ENDED_BY_DEADLINE] += has_contact
