# SPDX-License-Identifier: Apache-2.0
"""
What a member has heard others promise is remembered, and soon in its file.

By that alone it knows a disk that went back in time (`raft/rollback.py`). Which older
copies a run puts back depends on this file, too (`rollbacks.py`): if nothing were
remembered, none would come back.
"""

from typing import TYPE_CHECKING

from sparecode_node.replication.log.boots import BootFile, Position, Seen
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.rollback import Hello
from tests.simulation.comparisons import Comparison

if TYPE_CHECKING:
    from tests.simulation.machines import Node

WRITTEN_S = 2.0
"""Twice the time that the product waits, since the clock of a machine may be off."""


def seen_in_file(node: "Node", peer: str) -> Seen | None:
    """Return what the file of a machine says of the starts of another one."""
    file = BootFile(node.disk)
    _, _, content = max(file._read(), key=lambda slot: slot[0])
    file._take(content)
    return file.seen.get(peer)


class HeardPromises:
    """What one process has heard, and since when."""

    def __init__(self, node: "Node") -> None:
        """*node*: the machine whose process this is."""
        self._node = node
        self._heard: dict[str, tuple[float, Seen]] = {}
        """By member, what was first heard of it that may not be in the file yet."""

    def on_counted(self, peer: str, message: Message, hello: Hello) -> None:
        """See that a promise is remembered, in a message that was not dropped."""
        promise = self._promise(message)
        journal = self._node.journal
        if promise is None or not hello.boots or peer not in journal.configuration.ids:
            return
        start = hello.boots[-1]
        wanted = Seen(hello.journal_id, start.number, start.nonce, promise)
        self._judge(peer, wanted, journal.boots.seen.get(peer), "in memory")
        self._heard.setdefault(peer, (self._node.sim.now, wanted))

    def _promise(self, message: Message) -> Position | None:
        match message["type"]:
            case frames.RESPONSE_VOTE:
                return message["term"], 0, 0
            case frames.NEXT_NODE_IDX if message["success"]:
                index = message["next_node_idx"] - 1
                entry_term = self._node.journal.term_at(index) or 0
                return message["term"], entry_term, index
            case frames.TELL_CLOCK:
                entry = message["entry_term"], message["entry_index"]
                return message["term"], *entry
        return None

    def on_step(self) -> None:
        """See that the file has what was heard a while ago; the engine has just worked."""
        now, ids = self._node.sim.now, self._node.journal.configuration.ids
        for peer, (since, wanted) in list(self._heard.items()):
            # Of a guest nothing is written, nor of a member that a node which catches
            # up does not know for a while: its log has earlier members before.
            if peer not in ids:
                del self._heard[peer]
            elif now - since >= WRITTEN_S:
                del self._heard[peer]
                self._judge(peer, wanted, seen_in_file(self._node, peer), "in the file")

    def _judge(self, peer: str, wanted: Seen, seen: Seen | None, where: str) -> None:
        invariants = self._node.invariants
        invariants.comparisons[Comparison.REMEMBERED] += 1
        if seen is not None and seen.journal_id != wanted.journal_id:
            return  # Another machine has this name now.
        if (
            seen is None
            or seen.number < wanted.number
            or seen.promised < wanted.promised
        ):
            what = f"{self._node.node_id} heard {wanted} of {peer}; {where}: {seen}"
            invariants.violated("promises of others are remembered", what)
