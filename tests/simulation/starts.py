# SPDX-License-Identifier: Apache-2.0
"""What a member relies on in its file of starts is on its disk before it goes on."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sparecode_node.replication.log import boots
from sparecode_node.replication.raft.rollback import Hello, Rollbacks
from tests.simulation.comparisons import Comparison


class JudgedRollbacks:
    """
    Judges each new start of a member when `Rollbacks` has taken it.

    A link is then accepted, or a message is heard. After a power cut the disk must still
    know that start: else an older copy of that member would be heard.
    """

    def __init__(self, node: Any, rollbacks: Rollbacks) -> None:
        """*node*: the machine whose admission asks."""
        self._node = node
        self._rollbacks = rollbacks

    def hears(self, peer: str, hello: Hello) -> bool:
        """Return whether a message counts."""
        return self._judged(peer, lambda: self._rollbacks.hears(peer, hello))

    def accepts(self, peer: str, hello: Hello, *, fresh: bool = False) -> bool:
        """Return whether a link may begin."""
        return self._judged(
            peer, lambda: self._rollbacks.accepts(peer, hello, fresh=fresh)
        )

    def _judged(self, peer: str, answer: Callable[[], bool]) -> bool:
        before = self._newest(peer)
        result = answer()
        is_member = self._node.journal.configuration.member(peer) is not None
        if is_member and self._newest(peer) != before:
            comparisons = self._node.invariants.comparisons
            comparisons[Comparison.START_SEEN] += 1
            self._node.disk.check_holds(boots.NAME)
        return result

    def _newest(self, peer: str) -> tuple[str, int, str] | None:
        seen = self._rollbacks.journal.boots.seen.get(peer)
        return seen and (seen.journal_id, seen.number, seen.nonce)


@contextlib.contextmanager
def judged_fence(node: Any) -> Iterator[None]:
    """
    Judge a machine that hears of its refusal as an older copy: it must outlast a stop.

    After a power cut the machine would else vote and acknowledge again.
    """
    was_refused = node.journal.boots.refused_by
    yield
    if node.journal.boots.refused_by != was_refused:
        node.disk.check_holds(boots.NAME)
