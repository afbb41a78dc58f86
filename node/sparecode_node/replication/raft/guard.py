# SPDX-License-Identifier: Apache-2.0
"""
Fences around PySyncObj: nothing reaches it or leaves it unchecked.

`Guard` is the `Transport` that PySyncObj knows; behind it is a `Wire`, the real
network. DESIGN.md lists the reason for each fence. Runs in the engine's thread.

A leader's entries come in through these steps:

1. `receive` lets `admission` judge the sender, by the link that the message came over.
2. `_receive_append` refuses an earlier term, and lets `follower` rewrite the message so
   that PySyncObj cuts off only what conflicts.
3. PySyncObj appends the entries to the journal, in memory, and acknowledges them.
4. `send` does not send the acknowledgement: `_hold_ack` keeps it, with its term.
5. `flush`, in the next tick, syncs the journal once and sends what was kept.
"""

import collections
import logging
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from pysyncobj import SyncObj, syncobj
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.log.boots import NOWHERE, Position
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.raft import frames, handover, prevote
from sparecode_node.replication.raft.acknowledgements import Acknowledgements
from sparecode_node.replication.raft.admission import Admission, Refusal
from sparecode_node.replication.raft.campaign import Campaign
from sparecode_node.replication.raft.clock_watch import ClockWatch
from sparecode_node.replication.raft.follower import (
    FollowerLog,
    MalformedEntriesError,
    Verdict,
)
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.progress import Followers, Progress
from sparecode_node.replication.raft.read_index import ReadIndex, Word
from sparecode_node.replication.raft.retention import Retention
from sparecode_node.replication.raft.rollback import Hello, Rollbacks

log = logging.getLogger(__name__)


class Wire(Protocol):
    """Carries messages between members, in order, each at most once."""

    def send(self, peer: str, message: Message) -> None:
        """Send without waiting; a message that cannot be sent is dropped with its link."""


class PeerNode(Node):
    """Another node. Its hash is the same in every process, so that runs repeat."""

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())

    __eq__ = Node.__eq__


class Guard(Transport):
    """Stands between the engine and the wire."""

    def __init__(
        self,
        engine: SyncObj,
        journal: Journal,
        wire: Wire,
        wall_ms: Callable[[], int],
        rollbacks: Rollbacks,
        retention: Retention,
    ) -> None:
        super().__init__(None, None, ())
        self._engine = engine
        self._journal = journal
        self._wire = wire
        self.differs: Callable[[str, Hello], bool] = lambda _peer, _hello: False
        """Whether a member has skipped other entries than this node (E3)."""
        self._log = FollowerLog(journal)
        self._held: list[tuple[str, Message]] = []
        self._next_ack: int | None = None
        self._acks = Acknowledgements(engine.conf.appendEntriesPeriod / 2)
        self._followers = Followers(journal)
        self.rollbacks = rollbacks
        self.retention = retention
        self._own_promise: Position = NOWHERE
        """The last acknowledgement of this node, as a follower."""
        self.admission = Admission(journal, rollbacks)
        self.reads = ReadIndex(wire.send)
        self.clocks = ClockWatch(wire.send, wall_ms, self._promise)
        self.campaign = Campaign(
            engine,
            journal,
            self.clocks,
            prevote.PreVote(wire.send, engine._SyncObj__generateRaftTimeout),
            engine.conf.raftMinTimeout,
        )
        self.leader_commit = 0
        """The commit index that the leader of this term has announced."""
        self._offer: tuple[str, int] = ("", 0)
        """
        A leader, and the first index of its log, which is beyond this node's last one.
        """
        self.dropped: collections.Counter[str] = collections.Counter()
        """The number of refused messages by cause."""
        self._receivers: dict[str, Callable[[Node, Message], None]] = {
            frames.REQUEST_VOTE: self._receive_request_vote,
            frames.RESPONSE_VOTE: self._receive_vote,
            frames.APPEND_ENTRIES: self._receive_append,
            frames.NEXT_NODE_IDX: self._receive_ack,
            frames.PRE_VOTE: self._receive_pre_vote,
            frames.PRE_VOTE_ANSWER: self._receive_pre_vote_answer,
            frames.STALE_TERM: self._receive_stale_term,
            frames.ASK_TO_CONFIRM: self._receive_ask_to_confirm,
            frames.CONFIRM: self._receive_confirm,
            frames.OFFER_SNAPSHOT: self._receive_offer,
            frames.ASK_CLOCK: self._receive_ask_clock,
            frames.TELL_CLOCK: self._receive_tell_clock,
            frames.HAND_OVER: self._receive_hand_over,
            frames.KEEP_LOG: self._receive_keep_log,
        }

    # --- The transport, as PySyncObj sees it

    @property
    def ready(self) -> bool:
        """True: messages can be sent without waiting."""
        return True

    def setOnUtilityMessageCallback(self, message: str, callback: object) -> None:
        """Do not connect PySyncObj's administration: no caller may reach it."""

    def setOnReadonlyNodeConnectedCallback(self, callback: object) -> None:
        """Do not connect read-only nodes: PySyncObj would stream the state to them."""

    def setOnReadonlyNodeDisconnectedCallback(self, callback: object) -> None:
        """Do not connect read-only nodes."""

    def send(self, node: Node, message: Message) -> bool:
        """Send a message of the engine, once what it promises is on disk."""
        match message["type"]:
            case frames.NEXT_NODE_IDX:
                self._hold_ack(node.id, message)
            case frames.REQUEST_VOTE | frames.RESPONSE_VOTE:
                self._sync_before_vote()
                self._wire.send(node.id, message)
            case frames.OFFER_SNAPSHOT | frames.HAND_OVER:
                self._wire.send(node.id, message)
            case frames.APPEND_ENTRIES if "entries" in message:
                self._wire.send(node.id, message)
            case kind:
                raise Fatal(f"the engine tried to send {kind}: {sorted(message)}")
        return True

    def destroy(self) -> None:
        """Forget the held acknowledgements: no node has seen them."""
        self._held.clear()

    # --- Durability first

    def _hold_ack(self, peer: str, message: Message) -> None:
        """Hold an acknowledgement until the journal is on disk."""
        ack = {**message, "term": self._engine.raftCurrentTerm}
        if self._next_ack is not None:
            ack["next_node_idx"] = self._next_ack
        self._held.append((peer, ack))

    def flush(self) -> None:
        """
        Sync once for everything that the last poll brought, then acknowledge it.

        Called at the beginning of each tick.
        """
        if not self._held:
            return
        self._sync_before_acks()
        held, self._held = self._held, []
        for _, ack in held:
            self._record_own(ack)
        for peer, ack in self._acks.worth_sending(held, syncobj.monotonicTime()):
            self._wire.send(peer, ack)

    def _record_own(self, ack: Message) -> None:
        """Record what this node acknowledges, and so must never lose."""
        if ack["success"]:
            promise = self._position(ack["term"], ack["next_node_idx"] - 1)
            self._own_promise = max(self._own_promise, promise)

    def _promise(self) -> Position:
        """Return what this node must never lose; a leader has counted its own log."""
        term = self._engine.raftCurrentTerm
        if self._engine._isLeader():
            return self._position(term, self._journal.durable_index)
        return max(self._own_promise, (term, 0, 0))

    def _position(self, term: int, index: int) -> Position:
        return term, self._journal.term_at(index) or 0, index

    def _sync_before_acks(self) -> None:
        self._journal.sync()

    def _sync_before_vote(self) -> None:
        self._journal.sync()

    # --- From the wire

    def connected(self, peer: str, hello: Hello) -> Refusal | None:
        """
        Record that messages reach *peer*, which has shown *hello*.

        Return why not, if the node is not to be sent any. *hello* may have been
        overtaken by messages on the link of *peer* to this node.
        """
        self._acks.forget(peer)
        if self.differs(peer, hello):
            return Refusal.OTHER_STATE
        cause = self.admission.refusal_of_link(peer, hello, fresh=False)
        if cause is not Refusal.ROLLED_BACK:
            self.admission.link_began(peer, hello.journal_id)
            self.retention.tell_again()
        return cause

    def hear_nothing(self, member: str) -> None:
        """
        Take no part any more: *member* knows of promises that this node has lost.

        It neither votes nor acknowledges, also after a restart, and it does not lead.
        """
        self.rollbacks.refuse_itself(member)
        self._held.clear()

    def disconnected(self, peer: str) -> None:
        """Record that the link to *peer* has ended."""
        self.admission.link_ended(peer)

    def receive(self, peer: str, message: Message, hello: Hello) -> None:
        """
        Take a message from *peer*; the wire vouches for the sender.

        *hello* is what *peer* showed when the link of this message began.
        """
        receiver = self._receivers.get(message["type"])
        if self.rollbacks.refused_by:
            self._drop(peer, "this node is an older copy")
        elif receiver is None:
            self._drop(peer, "unknown type")
        elif cause := self.admission.why_not(
            peer, message["type"], hello, has_leader=self._has_another_leader(peer)
        ):
            self._drop(peer, cause)
        else:
            receiver(PeerNode(peer), message)

    def _has_another_leader(self, peer: str) -> bool:
        leader = self._engine._getLeader()
        is_this = leader is not None and leader.id == peer
        return self._election_state().leader_is_alive and not is_this

    def _drop(self, peer: str, cause: str) -> None:
        self.dropped[cause] += 1
        log.debug("message_dropped", extra={"peer": peer, "cause": cause})

    def _pass(self, node: Node, message: Message) -> None:
        self._onMessageReceived(node, message)

    def _adopt_term(self, node: Node, term: int) -> None:
        """Make the engine adopt a newer term, by a request for a vote that it must refuse."""
        self._pass(
            node,
            {
                "type": frames.REQUEST_VOTE,
                "term": term,
                "last_log_index": 0,
                "last_log_term": -1,
            },
        )

    # --- As a voter

    def _receive_request_vote(self, node: Node, message: Message) -> None:
        """
        Pass the request to the engine, unless a non-voter would depose a live leader.

        The candidate may be a voter by a configuration that has not arrived here yet.
        """
        if not self._is_voter(node) and self._election_state().leader_is_alive:
            self._drop(
                node.id, "candidate that is not a voter, while a leader is alive"
            )
        else:
            self._pass(node, message)

    def _is_voter(self, node: Node) -> bool:
        return node.id in self.campaign.voters()

    # --- As a candidate

    def _receive_vote(self, node: Node, message: Message) -> None:
        """Count a voter once, and only in the current term."""
        if cause := self.campaign.why_not_counted(node.id, message["term"]):
            self._drop(node.id, cause)
        else:
            self.rollbacks.promised(node.id, (message["term"], 0, 0))
            for voter in self.campaign.to_pass(node.id):
                self._pass(PeerNode(voter), message)

    def _election_state(self) -> prevote.ElectionState:
        return self.campaign.election_state(syncobj.monotonicTime())

    def _receive_pre_vote(self, node: Node, message: Message) -> None:
        self._wire.send(node.id, prevote.answer(message, self._election_state()))

    def _receive_pre_vote_answer(self, node: Node, message: Message) -> None:
        if message["current_term"] > self._engine.raftCurrentTerm:
            self._adopt_term(node, message["current_term"])
        else:
            self.campaign.count_pre_vote(node.id, message)

    # --- As a leader

    def progress(self, follower: str) -> Progress:
        """Return the progress of a follower in this term."""
        return self._followers.progress(follower, self._engine.raftCurrentTerm)

    def _receive_ack(self, node: Node, message: Message) -> None:
        """
        Count what a follower has on disk, if it answers this leadership.

        An answer to an earlier leadership may be about entries that the follower has
        cut off since.
        """
        if not (self._engine._isLeader() and self._is_of_this_term(message)):
            self._drop(node.id, "acknowledgement of another term")
            return
        progress = self.progress(node.id)
        progress.heard_at = syncobj.monotonicTime()
        wanted = message["next_node_idx"]
        beyond = wanted - 1 > self._journal.last_index
        if beyond and (message["success"] or not message["reset"]):
            self._drop(node.id, "acknowledgement beyond the log")
            return
        if message["success"]:
            progress.acknowledge(wanted - 1)
            promise = self._position(message["term"], wanted - 1)
            self.rollbacks.promised(node.id, promise)
        next_index = self._engine._SyncObj__raftNextIndex
        before = next_index.get(node, 0)
        if message["reset"]:
            wanted = self._followers.bounded_reset(
                progress,
                wanted,
                under_way=before,
                now=syncobj.monotonicTime(),
                heartbeat_s=self._engine.conf.appendEntriesPeriod,
            )
        if not self._is_voter(node):  # A learner: PySyncObj does not count it.
            next_index[node] = wanted if message["reset"] else max(before, wanted)
            return
        self._pass(
            node,
            {
                "type": frames.NEXT_NODE_IDX,
                "next_node_idx": wanted,
                "reset": message["reset"],
                "success": message["success"],
            },
        )
        if not message["reset"]:
            # PySyncObj goes back to the acknowledged index, and would send again
            # everything in flight.
            next_index[node] = max(before, next_index.get(node, 0))

    def _is_of_this_term(self, message: Message) -> bool:
        return bool(message["term"] == self._engine.raftCurrentTerm)

    def hears(self, word: Word) -> bool:
        """Return whether a member's word is listened to, as its confirmation would be."""
        cause = self.admission.why_not(
            word.member, frames.CONFIRM, word.hello, has_leader=False
        )
        if cause:
            self._drop(word.member, cause)
        return cause is None

    def _receive_confirm(self, node: Node, message: Message) -> None:
        """Count a member that knows of no newer term, for the leadership that has asked."""
        counts = self._is_voter(node) and self._engine._isLeader()
        if counts and self._is_of_this_term(message):
            members = len(self._engine.otherNodes) + 1
            self.reads.confirm(node.id, message["round"], members=members)
        else:
            self._drop(node.id, "confirmation of another term")

    # --- As a follower

    def _receive_append(self, node: Node, message: Message) -> None:
        term, current = message["term"], self._engine.raftCurrentTerm
        if term < current:
            # PySyncObj does not answer, and the sender would go on leading alone.
            self._refuse_earlier_term(node, "entries of an earlier term")
            return
        if term == current and self._engine._isLeader():
            raise Fatal(f"{node.id} leads in term {term}, and so does this node")
        try:
            verdict = self._judge(node, message)
        except MalformedEntriesError:
            log.exception("entries_refused", extra={"leader": node.id})
            self._drop(node.id, "malformed entries")
            return
        if term > current:
            self.leader_commit = 0
        self.campaign.heard_at = syncobj.monotonicTime()
        self.leader_commit = max(self.leader_commit, message["commit_index"])
        self.campaign.prevote.forget()
        self._next_ack = verdict.next_ack
        try:
            self._pass(node, verdict.message)
        finally:
            self._next_ack = None

    def _judge(self, node: Node, message: Message) -> Verdict:
        return self._log.judge(node.id, message, self._engine.raftCommitIndex)

    def _refuse_earlier_term(self, node: Node, cause: str) -> None:
        term = self._engine.raftCurrentTerm
        self._drop(node.id, cause)
        self._wire.send(node.id, {"type": frames.STALE_TERM, "term": term})

    def _receive_ask_to_confirm(self, node: Node, message: Message) -> None:
        """Confirm that this node knows of no newer term: it has not voted in one."""
        current = self._engine.raftCurrentTerm
        if message["term"] < current:
            self._refuse_earlier_term(node, "question of an earlier term")
        elif message["term"] > current:
            self._drop(node.id, "question of an unknown term")
        else:
            self._wire.send(node.id, {**message, "type": frames.CONFIRM})

    def _receive_offer(self, node: Node, message: Message) -> None:
        """Record that the leader's log no longer reaches back to the end of this one."""
        if message["term"] < self._engine.raftCurrentTerm:
            self._refuse_earlier_term(node, "offer of an earlier term")
        elif self._engine._getLeader() == node:
            self._offer = (node.id, message["index"])
            self.retention.offered(message["index"], node.id)
        else:
            self._drop(node.id, "offer of a node that does not lead")

    def _receive_keep_log(self, node: Node, message: Message) -> None:
        index, progress = message["index"], message["progress"]
        self.retention.take(node.id, index=index, progress=progress)

    def keepers(self) -> Iterator[str]:
        """Yield the voters that can keep the log for this node: not release 0.1.0."""
        for voter in sorted(self.campaign.voters()):
            hello = self.admission.hello(voter)
            if self.admission.is_linked(voter) and hello is not None and hello.boots:
                yield voter

    def _receive_hand_over(self, node: Node, message: Message) -> None:
        """Take over, if the leader says so and this node has the leader's whole log."""
        is_leaders = (
            self._is_of_this_term(message) and self._engine._getLeader() == node
        )
        if is_leaders and handover.is_complete(message, self._journal):
            self.campaign.call_up()
        else:
            self._drop(node.id, "hand-over by a node that does not lead")

    def snapshot_source(self) -> str | None:
        """Return the node with the snapshot that this node cannot go on without."""
        leader, index = self._offer
        return leader if index > self._engine.raftCommitIndex else None

    @property
    def offer(self) -> tuple[str, int]:
        """The leader that has offered a snapshot, and the first index of its log."""
        return self._offer

    def snapshot_installed(self) -> None:
        """Forget what concerned the log that a snapshot has replaced."""
        self._log = FollowerLog(self._journal)
        self._offer = ("", 0)

    def _receive_ask_clock(self, node: Node, message: Message) -> None:
        self.clocks.answer(node.id, message)

    def _receive_tell_clock(self, node: Node, message: Message) -> None:
        self.clocks.take_answer(node.id, message, syncobj.monotonicTime())
        promise = message["term"], message["entry_term"], message["entry_index"]
        self.rollbacks.promised(node.id, promise)

    def _receive_stale_term(self, node: Node, message: Message) -> None:
        if message["term"] > self._engine.raftCurrentTerm:
            self._adopt_term(node, message["term"])
