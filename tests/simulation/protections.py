# SPDX-License-Identifier: Apache-2.0
"""
Protections that can be removed, to show that the tests would notice.

Each function patches one protection away, and leaves what a developer might have
written without it.
"""

import contextlib
from collections.abc import Callable, Iterable

import pytest
from pysyncobj.node import Node

from sparecode_node.replication.log import format as journal_format
from sparecode_node.replication.log.file import NAME, JournalFile, Successor
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Admission, Refusal
from sparecode_node.replication.raft.campaign import Campaign
from sparecode_node.replication.raft.clock_watch import Agreement, ClockWatch
from sparecode_node.replication.raft.engine import Engine
from sparecode_node.replication.raft.follower import FollowerLog, Verdict
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.guard import Guard
from sparecode_node.replication.raft.membership_changes import Membership
from sparecode_node.replication.raft.read_index import ReadIndex
from sparecode_node.replication.replica.compaction import Compaction
from sparecode_node.replication.snapshots.installation import SnapshotInstallation
from sparecode_node.replication.snapshots.store import (
    RECEIVED,
    Manifest,
)


def _nothing(*_: object) -> None:
    """Do nothing."""


def acknowledge_before_sync(patch: pytest.MonkeyPatch) -> None:
    """Let a follower acknowledge entries that are not on its disk."""
    patch.setattr(Guard, "_sync_before_acks", _nothing)


def acknowledge_at_once(patch: pytest.MonkeyPatch) -> None:
    """Let a follower not hold its acknowledgements back."""

    def hold(self: Guard, peer: str, message: Message) -> None:
        Guard._hold_ack.__wrapped__(self, peer, message)  # type: ignore[attr-defined]
        held, self._held = self._held, []
        for to, ack in held:
            self._wire.send(to, ack)

    original = Guard._hold_ack
    hold.__wrapped__ = original  # type: ignore[attr-defined]
    patch.setattr(Guard, "_hold_ack", hold)


def count_itself_unsynced(patch: pytest.MonkeyPatch) -> None:
    """Let a leader count itself before its own entries are on disk."""
    patch.setattr(Engine, "_sync_appended", _nothing)
    patch.setattr(Journal, "_sync_before_commit", _nothing)


def vote_unsynced(patch: pytest.MonkeyPatch) -> None:
    """Let a voter not remember its vote over a power cut."""
    patch.setattr(Journal, "_sync_before_promise", _nothing)
    patch.setattr(Guard, "_sync_before_vote", _nothing)


def cut_tail(patch: pytest.MonkeyPatch) -> None:
    """Let a follower cut its log behind whatever it is sent again."""
    patch.setattr(
        FollowerLog,
        "judge",
        lambda _self, _leader, message, _commit: Verdict(message, None),
    )


def ignore_term_of_acks(patch: pytest.MonkeyPatch) -> None:
    """Let a leader count acknowledgements of an earlier leadership."""
    patch.setattr(Guard, "_is_of_this_term", lambda _self, _message: True)


def count_votes_twice(patch: pytest.MonkeyPatch) -> None:
    """Let a candidate count messages, not voters."""
    patch.setattr(Campaign, "_has_voted", lambda _self, _voter: False)


def go_on_after_failed_sync(patch: pytest.MonkeyPatch) -> None:
    """Let a node believe its disk after it has failed."""

    def append(self: JournalFile, records: bytes) -> None:
        self._sequence += 1
        data = journal_format.batch(self._salt, self._sequence, records)
        with contextlib.suppress(OSError):
            self._file.append(data)
            self._file.sync()

    patch.setattr(JournalFile, "append", append)


def read_without_quorum(patch: pytest.MonkeyPatch) -> None:
    """Let a leader answer reads without asking whether it leads still."""
    patch.setattr(ReadIndex, "_is_quorum", lambda _self, _round, _members: True)


def believe_any_word(patch: pytest.MonkeyPatch) -> None:
    """Let a leader take the word of a member for whatever term."""
    patch.setattr(
        ReadIndex,
        "_has_word_of_quorum",
        lambda _self, read, _term, _others: read.word is not None,
    )


def read_before_own_term(patch: pytest.MonkeyPatch) -> None:
    """Let a new leader answer reads before it knows what is committed."""
    patch.setattr(Engine, "knows_commit_index", lambda _self: True)


def confirm_any_term(patch: pytest.MonkeyPatch) -> None:
    """Let a member confirm a leader of a term that has passed."""

    def confirm(self: Guard, node: Node, message: Message) -> None:
        self._wire.send(node.id, {**message, "type": frames.CONFIRM})

    patch.setattr(Guard, "_receive_ask_to_confirm", confirm)


def compact_without_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """Let the log go although a power cut may still take the state back before it."""
    patch.setattr(Compaction, "_checkpointed", lambda self: self.state.applied_index)


def install_journal_first(patch: pytest.MonkeyPatch) -> None:
    """Let the journal begin behind a snapshot that the state does not hold yet."""

    def install(
        self: SnapshotInstallation, manifest: Manifest, done: Callable[[None], object]
    ) -> None:
        self.check(manifest)
        self.store.adopt(manifest, RECEIVED)
        self.journal.rebase(manifest.index, manifest.term, manifest.configuration)
        self.state.install(self.store.storage.where(manifest.body))
        self.state.reload()
        self.engine.continue_after(manifest.index)
        done(None)

    patch.setattr(SnapshotInstallation, "install", install)


def compact_in_place(patch: pytest.MonkeyPatch) -> None:
    """Rewrite the journal under its own name."""
    write_beside = JournalFile.write_beside

    def in_place(
        self: JournalFile, successor: Successor, records: Iterable[bytes]
    ) -> None:
        successor.name = NAME
        write_beside(self, successor, records)

    patch.setattr(JournalFile, "write_beside", in_place)


def stamp_with_any_clock(patch: pytest.MonkeyPatch) -> None:
    """Let a primary stamp whatever its clock says."""
    patch.setattr(ClockWatch, "agreement", lambda _self, _others, _now: Agreement.YES)


def count_learners(patch: pytest.MonkeyPatch) -> None:
    """Count every receiver of the log in quorums."""
    patch.setattr(Configuration, "voters", property(lambda self: frozenset(self.ids)))


def change_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """Let a leader change members while the change before is not committed."""
    patch.setattr(Membership, "_last_change_is_committed", lambda _self: True)
    patch.setattr(Membership, "_committable", lambda _self, after, _now: after)


def change_before_own_term(patch: pytest.MonkeyPatch) -> None:
    """Let a new leader change members before it knows what is committed."""
    patch.setattr(Membership, "_own_term_is_committed", lambda _self: True)


def know_no_journals(patch: pytest.MonkeyPatch) -> None:
    """Accept a node under its id, whatever it has lost."""
    patch.setattr(
        Admission,
        "_refusal",
        lambda self, peer, _journal_id: (
            Refusal.REMOVED
            if peer in self.journal.agreed_configuration.removed
            else None
        ),
    )


def found_without_everyone(patch: pytest.MonkeyPatch) -> None:
    """Let a majority found a cluster although its members may have lost their disks."""
    patch.setattr(Campaign, "_needs_everybody", lambda _self: False)


def lead_first_by_a_majority(patch: pytest.MonkeyPatch) -> None:
    """Let a majority elect the first leader, if all have granted their pre-votes."""
    patch.setattr(Campaign, "to_pass", lambda _self, voter: [voter])


def campaign_without_the_journal(patch: pytest.MonkeyPatch) -> None:
    """Let a node campaign whose own log names another journal for it."""
    patch.setattr(Campaign, "_has_lost_its_journal", lambda _self: False)


def refuse_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Let a node refuse whom a change removes that may be taken back."""
    patch.setattr(
        Journal, "agreed_configuration", property(lambda self: self.configuration)
    )


FOUND_AT_RANDOM = (
    compact_without_checkpoint,
    compact_in_place,
    read_before_own_term,
    acknowledge_before_sync,
    acknowledge_at_once,
    count_itself_unsynced,
    cut_tail,
    go_on_after_failed_sync,
)
"""The rest is too rare for random runs: test_directed.py shows it."""
