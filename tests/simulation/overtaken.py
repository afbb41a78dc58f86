# SPDX-License-Identifier: Apache-2.0
"""
Hellos that messages of the same machine have overtaken, as in whole nodes.

A node that dials another one gets the hello of that one in the answer. Meanwhile the
other one sends messages on a link of its own, and they may arrive first: then the hello
shows a position before what these messages have promised.

Only what a hello shows is another one here; all other dice stay as they are.
"""

import random
from collections import defaultdict, deque
from dataclasses import dataclass, field

from sparecode_node.replication.raft.rollback import Hello

SHARE = 0.5
"""Of the runs: in these hellos are overtaken."""
LATE_S = 0.5
"""How long an answer is under way, at most."""


@dataclass(frozen=True)
class _Shown:
    """What a machine would have shown when it sent a message."""

    at: float
    number: int
    """Of the message."""
    hello: Hello


@dataclass
class OvertakenHellos:
    """The recent hellos of all machines, in a run that has overtaken ones."""

    happen: bool = False
    _recent: defaultdict[str, deque[_Shown]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    @classmethod
    def drawn(cls, seed: str) -> "OvertakenHellos":
        """Return those of a run."""
        return cls(random.Random(seed).random() < SHARE)

    def note(self, node_id: str, hello: Hello, number: int, now: float) -> None:
        """Note the *hello* of a machine that sends a message with this *number*."""
        if not self.happen:
            return
        recent = self._recent[node_id]
        recent.append(_Shown(now, number, hello))
        while recent[0].at < now - LATE_S:
            recent.popleft()

    def answer(self, node_id: str, hello: Hello, arrived: int, now: float) -> Hello:
        """
        Return the oldest hello that a machine may have shown, instead of its present one.

        *arrived*: the newest of its messages that have arrived where the hello does.
        """
        for shown in self._recent[node_id] if self.happen else ():
            is_same_start = shown.hello.boots == hello.boots
            if is_same_start and shown.at >= now - LATE_S and shown.number < arrived:
                return shown.hello
        return hello
