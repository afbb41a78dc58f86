# SPDX-License-Identifier: Apache-2.0
"""
Handing the leadership to another node, without waiting for an election timeout.

Raft thesis, 3.10: the leader stops taking proposals, waits until the target has its
whole log, and tells the target to campaign at once. The target leaves out the pre-vote,
because the others still hear a living leader. We add that all proposals are applied
first: so no caller gets "unknown" because of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    NotAppliedError,
)
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.raft.frames import HAND_OVER, Message
from sparecode_node.replication.raft.leader import Leader

HandOverOutcome: TypeAlias = str | NotAppliedError
"""The node that was told to lead, once this one does not lead any more; or an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingHandOver:
    """A request that another node shall lead."""

    target: str | None
    """None: the voter with the most of the log."""
    deadline: float
    callback: Callable[[HandOverOutcome], object]


class HandOver:
    """On a leader: at most one at a time. Belongs to the engine's thread."""

    def __init__(self, leader: Leader, journal: Journal) -> None:
        self._leader = leader
        self._journal = journal
        self._pending: PendingHandOver | None = None
        self._target = ""

    @property
    def is_under_way(self) -> bool:
        """Whether this leader takes no proposals because it hands over."""
        return self._pending is not None

    def submit(self, pending: PendingHandOver) -> None:
        """Start, or answer why not."""
        if not self._leader.is_leader():
            pending.callback(NoPrimaryError("this node does not lead"))
        elif self._pending is not None:
            pending.callback(_not_ready("the primary is already handing over"))
        elif pending.target and pending.target not in self._leader.voters():
            pending.callback(
                ChangeRefusedError(
                    Rejected(
                        Reason.MEMBER_UNKNOWN,
                        f"{pending.target} is not another voting member",
                    )
                )
            )
        else:
            self._pending = pending

    def step(self, now: float) -> None:
        """Continue; called in every tick, and only while this node leads."""
        pending = self._pending
        if pending is None:
            return
        if now >= pending.deadline:
            target = self._target or pending.target
            who = f"{target} did not take" if target else "no other member took"
            self._end(_not_ready(f"{who} over in time"))
            return
        ready = self._leader.voters_in_contact()
        last = self._journal.last_index
        if self._target or self._leader.raftLastApplied < last:
            return
        target = pending.target or max(
            ready, key=lambda voter: (ready[voter], voter), default=None
        )
        if target is not None and ready.get(target) == last:
            self._target = target
            message = {
                "type": HAND_OVER,
                "term": self._leader.raftCurrentTerm,
                "last_log_index": last,
                "last_log_term": self._journal.last_term,
            }
            reach(Point.HAND_OVER)
            self._leader.send(target, message)

    def leadership_lost(self) -> None:
        """Answer the request: this node does not lead any more."""
        reach(Point.LEADERSHIP_LOST)
        self._end(self._target or NoPrimaryError("the primary lost its leadership"))

    def stop(self) -> None:
        """Answer the request: this replica does nothing more."""
        self._end(NoPrimaryError("the node is stopping"))

    def _end(self, outcome: HandOverOutcome) -> None:
        pending, self._pending, self._target = self._pending, None, ""
        if pending is not None:
            pending.callback(outcome)


def _not_ready(detail: str) -> ChangeRefusedError:
    return ChangeRefusedError(Rejected(Reason.MEMBER_NOT_READY, detail))


def is_complete(message: Message, journal: Journal) -> bool:
    """Return whether the target of a hand-over has the leader's whole log."""
    wanted = (message["last_log_term"], message["last_log_index"])
    return (journal.last_term, journal.last_index) >= wanted
