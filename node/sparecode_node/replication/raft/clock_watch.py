# SPDX-License-Identifier: Apache-2.0
"""
Whether this node's clock may stamp: only while it agrees with a quorum's (T5).

Every member asks the others for the time about once a second. The moment of the
question, the moment of the answer, and the answer itself give bounds of the other
clock, relative to this node's own *monotonic* clock (Cristian, 1989). So a step of its
own wall clock shows at once, before the next call is stamped, and not only with the
next answer.
"""

import enum
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sparecode_node.replication.log.boots import NOWHERE, Position
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.settings import MAX_CLOCK_OFFSET_S

log = logging.getLogger(__name__)

ASK_S = 1.0
"""Between two questions."""

ASK_SOON_S = 0.1
"""As long as it is unknown whether this clock agrees with a quorum's."""

ANSWER_S = 1.0
"""A later answer is too inexact: its time may be as old as that."""

FRESH_S = 5.0
"""An older answer does not count any more."""

ROUNDS_KEPT = 16
"""Questions whose answers may still arrive."""


class Agreement(enum.Enum):
    """What is known of this node's clock."""

    YES = "the primary's clock agrees with a quorum's"
    NO = "the primary's clock differs from a quorum's"
    UNKNOWN = "the primary does not know enough clocks yet"


@dataclass(frozen=True, slots=True)
class _Bounds:
    """A peer's wall clock minus this node's monotonic clock, in seconds."""

    least: float
    most: float
    seen_at: float


@dataclass(slots=True)
class ClockWatch:
    """The clocks of the other members. Belongs to the engine's thread."""

    send: Callable[[str, Message], object]
    wall_ms: Callable[[], int]
    """This node's wall clock, which it would stamp with."""
    promise: Callable[[], Position] = lambda: NOWHERE
    """What this node must never lose; the others remember it (`rollback`)."""
    _round: int = 0
    _asked_at: dict[int, float] = field(default_factory=dict)
    """When each round was asked."""
    _next_at: float = float("-inf")
    _bounds: dict[str, _Bounds] = field(default_factory=dict)
    _known: Agreement = Agreement.UNKNOWN

    def ask(self, others: Collection[str], now: float) -> None:
        """Ask for the time if it is due; called in each tick."""
        if now < self._next_at:
            return
        known = self.agreement(others, now) is Agreement.YES
        self._next_at = now + (ASK_S if known else ASK_SOON_S)
        self._round += 1
        self._asked_at[self._round] = now
        self._asked_at.pop(self._round - ROUNDS_KEPT, None)
        for other in sorted(others):
            self.send(other, {"type": frames.ASK_CLOCK, "round": self._round})

    def answer(self, peer: str, message: Message) -> None:
        """Tell a member this node's time, and what it has promised."""
        term, entry_term, entry_index = self.promise()
        self.send(
            peer,
            {
                "type": frames.TELL_CLOCK,
                "round": message["round"],
                "at_ms": self.wall_ms(),
                "term": term,
                "entry_term": entry_term,
                "entry_index": entry_index,
            },
        )

    def take_answer(self, peer: str, message: Message, now: float) -> None:
        """Record the time of a member; an answer to no question is ignored."""
        asked_at = self._asked_at.get(message["round"])
        if asked_at is None or now - asked_at > ANSWER_S:
            return
        clock_s = message["at_ms"] / 1000
        # The peer read its clock after the question, and before this moment.
        self._bounds[peer] = _Bounds(clock_s - now, clock_s - asked_at, now)

    def agreement(self, others: Collection[str], now: float) -> Agreement:
        """Return whether this clock agrees with a quorum's; this node counts for it."""
        offset = self.wall_ms() / 1000 - now
        heard = [
            bounds
            for peer in others
            if (bounds := self._bounds.get(peer)) and now - bounds.seen_at <= FRESH_S
        ]
        agreeing = sum(_is_near(offset, bounds) for bounds in heard)
        quorum = (len(others) + 1) // 2 + 1
        if 1 + agreeing >= quorum:
            known = Agreement.YES
        elif 1 + len(heard) >= quorum:
            known = Agreement.NO
        else:
            known = Agreement.UNKNOWN
        self._tell(known, offset)
        return known

    def _tell(self, known: Agreement, offset: float) -> None:
        """Log a change between yes and no, for the operator who must set the clock."""
        if known is self._known or known is Agreement.UNKNOWN:
            return
        self._known = known
        offsets_ms = {
            peer: round(((bounds.least + bounds.most) / 2 - offset) * 1000)
            for peer, bounds in sorted(self._bounds.items())
        }
        if known is Agreement.NO:
            log.error("clock_differs", extra={"offsets_ms": offsets_ms})
        else:
            log.info("clock_agrees", extra={"offsets_ms": offsets_ms})


def _is_near(offset: float, bounds: _Bounds) -> bool:
    """Return whether the two clocks may be within the allowed offset of each other."""
    return (
        bounds.least - MAX_CLOCK_OFFSET_S <= offset <= bounds.most + MAX_CLOCK_OFFSET_S
    )
