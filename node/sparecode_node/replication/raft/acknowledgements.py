# SPDX-License-Identifier: Apache-2.0
"""
Which acknowledgements are worth a message.

Each one costs both nodes about as much as applying a call. An acknowledgement that
covers an earlier one replaces it, and one that was just sent is not repeated.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.raft.frames import Message


@dataclass(slots=True)
class Acknowledgements:
    """The last acknowledgement to each peer. The guard decides what is on disk."""

    repeat_s: float
    """
    After this time, the same is sent again: the leader must hear that this node lives.
    """
    _sent: dict[str, tuple[Message, float]] = field(default_factory=dict)

    def worth_sending(
        self, held: Iterable[tuple[str, Message]], now: float
    ) -> list[tuple[str, Message]]:
        """Return the acknowledgements with news for their leader; they count as sent."""
        kept: list[tuple[str, Message]] = []
        for peer, ack in held:
            if kept and kept[-1][0] == peer and _covers(ack, kept[-1][1]):
                kept.pop()
            kept.append((peer, ack))
        reach(Point.ACKNOWLEDGE)
        return [each for each in kept if self._is_news(*each, now)]

    def _is_news(self, peer: str, ack: Message, now: float) -> bool:
        previous, at = self._sent.get(peer, (None, now))
        if ack["success"] and ack == previous and now - at < self.repeat_s:
            return False
        self._sent[peer] = ack, now
        return True

    def forget(self, peer: str) -> None:
        """Forget what was sent to *peer*: it may be lost, because there is another link."""
        self._sent.pop(peer, None)


def _covers(later: Message, earlier: Message) -> bool:
    """Return whether *later* confirms all that *earlier* does, and in the same term."""
    return bool(
        later["success"]
        and earlier["success"]
        and later["term"] == earlier["term"]
        and later["next_node_idx"] >= earlier["next_node_idx"]
    )
