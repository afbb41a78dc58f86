# SPDX-License-Identifier: Apache-2.0
"""One replica on a bench: the test is its network, its clock and its disk."""

import random
from typing import Any

import pytest
from pysyncobj import syncobj

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.codec import encode_entry
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import CONFIGURATION, Journal
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.proposals import Outcome
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.replica import Replica, ReplicaConfig
from tests.replication.recording_state import (
    FixedStamper,
    RecordingState,
    call,
    proposal,
)
from tests.simulation.disk import Disk

ME = "n1"


def entry(index: int, term: int, request_id: str = "") -> Entry:
    """Return an entry that carries one call."""
    calls = (call(request_id or f"{index}.{term}").stamped(0),)
    return (b"\x00" + encode_entry(calls), index, term)


def compact(journal: Journal, index: int) -> None:
    """Drop the entries before *index* at once; a node does it in steps."""
    shortening = journal.shorten(index)
    shortening.write()
    journal.take(shortening)


class Bench:
    """The replica n1 of a cluster of a given size."""

    def __init__(self, patch: pytest.MonkeyPatch, members: int = 3) -> None:
        self.now = 1000.0
        self.members = [f"n{i + 1}" for i in range(members)]
        self.others = self.members[1:]
        self.clock_s = 1_800_000_000.0
        """Where its wall clock lies beside the monotonic one."""
        self.clocks_s = dict.fromkeys(self.others, self.clock_s)
        """The same, of the others' clocks; one that is missing is not told."""
        self.disk = Disk(ME, random.Random(1))
        self.state = RecordingState()
        self.sent: list[tuple[str, Message]] = []
        self.names = dict.fromkeys(self.others, "")
        """The journals of the others, as they show them."""
        patch.setattr(syncobj, "monotonicTime", lambda: self.now)
        self.start()

    def start(self) -> None:
        """Start on what is on the disk; everybody is connected."""
        self.replica = Replica(
            ReplicaConfig(
                cluster_id="bench",
                node_id=NodeId(ME),
                members=tuple(
                    Member(node_id=NodeId(m), address="") for m in self.members
                ),
                salt=bytes(16),
            ),
            storage=self.disk,
            state=self.state,
            stamper=FixedStamper(),
            wire=self,
            wall_ms=lambda: round((self.now + self.clock_s) * 1000),
        )
        self.engine, self.guard = self.replica.engine, self.replica.guard
        for other in self.others:
            self.guard.connected(other, Hello(self.names[other]))

    def lose_power(self) -> None:
        """Cut the power, and start again."""
        self.disk.lose_power()
        self.state = RecordingState()
        self.start()

    # --- The wire

    def send(self, peer: str, message: Message) -> None:
        """Keep what the replica sends; it must have a form on the wire."""
        frame = frames.encode(message).SerializeToString()
        if message["type"] == frames.ASK_CLOCK:
            self._tell_clock(peer, message["round"])
        else:
            self.sent.append((peer, frames.parse(frame)))

    def _tell_clock(self, peer: str, number: int) -> None:
        if peer in self.clocks_s:
            at_ms = round((self.now + self.clocks_s[peer]) * 1000)
            promise = dict.fromkeys(("term", "entry_term", "entry_index"), 0)
            self.receive(peer, frames.TELL_CLOCK, round=number, at_ms=at_ms, **promise)

    def take(self, kind: str = "") -> list[tuple[str, Message]]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return [(p, m) for p, m in sent if not kind or m["type"] == kind]

    def receive(self, peer: str, kind: str, **fields: Any) -> None:
        """Deliver a message from *peer*."""
        hello = Hello(self.names.get(peer, ""))
        self.guard.receive(peer, {"type": kind, **fields}, hello)

    def append(
        self,
        leader: str,
        term: int,
        previous: tuple[int, int],
        *entries: Entry,
        commit: int = 1,
    ) -> None:
        """Deliver entries from *leader* that follow *previous*: index and term."""
        self.receive(
            leader,
            frames.APPEND_ENTRIES,
            term=term,
            commit_index=commit,
            prevLogIdx=previous[0],
            prevLogTerm=previous[1],
            entries=list(entries),
        )

    def name_journals(self, *, own: str = "") -> None:
        """Follow n2 in term 1, which names all journals: this one's rightly, or *own*."""
        self.names = {other: f"journal of {other}" for other in self.others}
        names = {**self.names, ME: own or self.engine.journal.journal_id}
        members = Configuration.of(
            Member(node_id=NodeId(m), address="", journal_id=names[m])
            for m in self.members
        )
        for other in self.others:
            self.guard.connected(other, Hello(self.names[other]))
        entry_of_names = (CONFIGURATION + members.to_bytes(), 2, 1)
        self.append("n2", 1, (1, 0), entry_of_names, commit=2)
        self.tick()

    def acknowledge(
        self, follower: str, next_index: int, term: int, **more: Any
    ) -> None:
        """Deliver *follower*'s acknowledgement of everything below *next_index*."""
        fields = {"reset": False, "success": True, **more}
        self.receive(
            follower,
            frames.NEXT_NODE_IDX,
            next_node_idx=next_index,
            term=term,
            **fields,
        )

    # --- Time

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and tick."""
        self.now += seconds
        self.replica.tick(0)

    def campaign(self) -> int:
        """Let an election become due, and win the pre-vote; returns the term."""
        self.tick(1.0)
        term = self.engine.raftCurrentTerm + 1
        for other in self.others:
            self.receive(
                other,
                frames.PRE_VOTE_ANSWER,
                term=term,
                granted=True,
                current_term=term - 1,
            )
        self.tick()
        assert self.engine.raftCurrentTerm == term
        return term

    def elect(self) -> int:
        """Become the leader; returns the term."""
        term = self.campaign()
        for other in self.others:
            self.receive(other, frames.RESPONSE_VOTE, term=term)
        assert self.engine.is_leader()
        self.tick()
        return term

    def lead(self) -> int:
        """Become a leader whose no-op is committed; returns the term."""
        term = self.elect()
        for other in self.others:
            self.acknowledge(other, self.engine.journal.last_index + 1, term)
        self.tick()
        assert self.engine.raftLastApplied == self.engine.journal.last_index
        return term

    def propose(self, request_id: str, timeout_s: float = 3.0) -> list[Outcome]:
        """Propose a call; what comes back appears in the list."""
        outcomes: list[Outcome] = []
        self.replica.submit(
            proposal(request_id), timeout_s=timeout_s, callback=outcomes.append
        )
        return outcomes

    def log(self) -> list[tuple[int, int]]:
        """Return index and term of every entry."""
        return [(index, term) for _, index, term in self.engine.journal[:]]
