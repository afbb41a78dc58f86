# SPDX-License-Identifier: Apache-2.0
"""
A machine that has lost nothing is refused by no one (`raft/rollback.py`).

An engine refuses a link or a message of a machine whose journal is another one, or that
has gone back in time. Such a refusal may pass, and then a run shows nothing else of it.
"""

from typing import Any

from sparecode_node.replication.raft.admission import Admission, Refusal
from sparecode_node.replication.raft.rollback import REPEATED, Rollbacks
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants
from tests.simulation.starts import JudgedRollbacks

OF_LOST_MEMORY = {Refusal.ANOTHER_JOURNAL, Refusal.ROLLED_BACK}


def check_refused(invariants: Invariants, by: str, peer: str, why: str | None) -> None:
    """See that a machine has lost something, if it is refused because of that."""
    if why not in OF_LOST_MEMORY:
        return
    invariants.comparisons[Comparison.REFUSED_RETURNED] += 1
    if peer not in invariants.promises.returned:
        seen = f"{by} refuses {peer}: {why}"
        invariants.violated("intact members are not refused", seen)


class JudgedAdmission(Admission):
    """Lets each refusal of another journal be judged."""

    def __init__(self, node: Any, admission: Admission) -> None:
        """*node*: the machine whose admission this is; it has not heard any yet."""
        rollbacks: Any = JudgedRollbacks(node, admission.rollbacks)
        super().__init__(admission.journal, rollbacks)
        self._node = node

    def _refusal(self, peer: str, journal_id: str) -> Refusal | None:
        why = super()._refusal(peer, journal_id)
        check_refused(self._node.invariants, self._node.node_id, peer, why)
        return why


class JudgedTimes(dict[str, tuple[int, float]]):
    """
    How often `Rollbacks` has refused each machine, and when; each time is judged.

    Calls may come late in runs of whole nodes, and are then refused. There only refusals
    that operators are told of are judged.
    """

    def __init__(self, node: Any) -> None:
        """*node*: the machine that refuses."""
        super().__init__()
        self._node = node

    def __setitem__(self, peer: str, refused: tuple[int, float]) -> None:
        node, why = self._node, Refusal.ROLLED_BACK
        if refused[0] >= (REPEATED if node.late_calls else 1):
            check_refused(node.invariants, node.node_id, peer, why)
        super().__setitem__(peer, refused)


def judge_refusals(node: Any) -> None:
    """Let all refusals of a process that has just started be judged."""
    guard = node.running.guard
    rollbacks: Rollbacks = guard.rollbacks
    rollbacks._refused = JudgedTimes(node)
    guard.admission = JudgedAdmission(node, guard.admission)
