# SPDX-License-Identifier: Apache-2.0
"""
Which acknowledgements are worth a message.

Each costs both nodes about as much as applying a call does. One that covers an
earlier one says all that it would, and so does one that was just sent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sparecode_node.replication.raft.frames import Message


@dataclass(slots=True)
class Acknowledgements:
    """What was acknowledged to whom. Says nothing of what is on disk: the guard does."""

    repeat_s: float
    """After that the same is previous again: the leader wants to hear that we live."""
    _sent: dict[str, tuple[Message, float]] = field(default_factory=dict)

    def worth_sending(
        self, held: Iterable[tuple[str, Message]], now: float
    ) -> list[tuple[str, Message]]:
        """Return those that tell their leader anything; they count as sent."""
        kept: list[tuple[str, Message]] = []
        for peer, ack in held:
            if kept and kept[-1][0] == peer and _covers(ack, kept[-1][1]):
                kept.pop()
            kept.append((peer, ack))
        return [each for each in kept if self._is_news(*each, now)]

    def _is_news(self, peer: str, ack: Message, now: float) -> bool:
        previous, at = self._sent.get(peer, (None, now))
        if ack["success"] and ack == previous and now - at < self.repeat_s:
            return False
        self._sent[peer] = ack, now
        return True

    def forget(self, peer: str) -> None:
        """Take note that what was sent may be lost: there is another link to *peer*."""
        self._sent.pop(peer, None)


def _covers(later: Message, earlier: Message) -> bool:
    """Say whether *later* confirms all that *earlier* does, and in the same term."""
    return bool(
        later["success"]
        and earlier["success"]
        and later["term"] == earlier["term"]
        and later["next_node_idx"] >= earlier["next_node_idx"]
    )
