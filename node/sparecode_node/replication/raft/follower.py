# SPDX-License-Identifier: Apache-2.0
"""
The leader's entries, checked by a follower before PySyncObj gets them.

PySyncObj cuts the log off after the entry that a message refers to, conflict or not. So
it loses acknowledged entries whenever an older message arrives again. This module
rewrites messages so that only conflicting entries are cut off (Raft, figure 2,
AppendEntries 3 and 4).
"""

from dataclasses import dataclass

from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import CONFIGURATION, NO_OP, Journal
from sparecode_node.replication.members import Configuration, ConfigurationError
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.settings import COMMAND_BYTES_MAX

REGULAR = b"\x00"
"""First byte of an entry with calls; the rest is a `LogEntry`."""


class MalformedEntriesError(Exception):
    """A leader sends entries that cannot be in any log, or that are unknown here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The message that PySyncObj gets instead."""

    message: Message
    next_ack: int | None
    """The index to request in the answer, if it differs from PySyncObj's own."""


class FollowerLog:
    """Compares the leader's entries with the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._hint: tuple[int, int] = (0, 0)
        """Term of a leader that disagrees, and this log's first index in doubt."""

    def judge(self, leader: str, message: Message, commit: int) -> Verdict:
        """
        Return what to do with entries of the leader.

        Raises `MalformedEntriesError`, and `Fatal` if the leader's log differs from
        what is committed here.
        """
        journal = self._journal
        previous = message["prevLogIdx"]
        entries = check_entries(leader, message)
        if journal.is_held:
            return self._hold_off(message)
        if journal.term_at(previous) != message["prevLogTerm"]:
            return self._back_off(leader, message, commit)
        self._hint = (0, 0)
        known = self._count_known(entries)
        if known == len(entries):
            return self._keep_tail(message, previous + known)
        first_new = entries[known][1]
        if first_new <= commit:
            raise Fatal(
                f"entry {first_new} is committed here, and leader {leader} has another"
            )
        if known:
            _, index, term = entries[known - 1]
            message = {
                **message,
                "prevLogIdx": index,
                "prevLogTerm": term,
                "entries": entries[known:],
            }
        return Verdict(message, None)

    def _hold_off(self, message: Message) -> Verdict:
        """Refuse entries for now, as a log that ends before them does."""
        wanted = self._journal.last_index + 1
        later = {**message, "prevLogIdx": wanted, "prevLogTerm": 0, "entries": []}
        return Verdict(later, wanted)

    def _count_known(self, entries: list[Entry]) -> int:
        """Return how many of the entries are in the journal already."""
        known = 0
        for command, index, term in entries:
            if self._journal.term_at(index) != term:
                break
            if self._journal.entry(index)[0] != command:
                raise Fatal(f"two entries have index {index} and term {term}")
            known += 1
        return known

    def _keep_tail(self, message: Message, last: int) -> Verdict:
        """
        Turn a message without new entries into a heartbeat at this log's last entry.

        The message does not confirm the entries after *last*: they are neither
        committed nor acknowledged because of it.
        """
        kept = {
            **message,
            "prevLogIdx": self._journal.last_index,
            "prevLogTerm": self._journal.last_term,
            "entries": [],
            "commit_index": min(message["commit_index"], last),
        }
        return Verdict(kept, last + 1)

    def _back_off(self, leader: str, message: Message, commit: int) -> Verdict:
        """
        Refuse entries whose previous entry is missing here, or is another one.

        PySyncObj answers with a reset and leaves the log alone. The whole conflicting
        term is skipped at once, and answers to messages that were in flight must not
        undo that. The leader has all entries that are committed here.
        """
        journal = self._journal
        previous, term = message["prevLogIdx"], message["term"]
        if journal.has(previous):
            if previous <= commit:
                raise Fatal(
                    f"leader {leader} has another entry {previous}, committed here"
                )
            first, conflicting = previous, journal.term_at(previous)
            while first - 1 > commit and journal.term_at(first - 1) == conflicting:
                first -= 1
            self._hint = (term, first)
        wanted = journal.last_index + 1
        if self._hint[0] == term:
            wanted = max(commit + 1, min(wanted, self._hint[1]))
        return Verdict(message, wanted)


def check_entries(leader: str, message: Message) -> list[Entry]:
    """Return the entries of a message. Raises `MalformedEntriesError`."""
    entries: list[Entry] = message["entries"]
    previous, highest = message["prevLogIdx"], message["term"]
    before = message["prevLogTerm"]
    for command, index, term in entries:
        fits = index == previous + 1 and before <= term <= highest
        if not fits or not is_acceptable(command):
            raise MalformedEntriesError(f"entry {index} of leader {leader}")
        previous, before = index, term
    return entries


def is_acceptable(command: bytes) -> bool:
    """Return whether an entry is a no-op or one of ours: no other kind of PySyncObj's."""
    if command == NO_OP:
        return True
    if len(command) > COMMAND_BYTES_MAX + 1:
        return False
    return command[:1] == REGULAR or is_configuration(command)


def is_configuration(command: bytes) -> bool:
    """Return whether an entry is a configuration that can be read here."""
    if command[:1] != CONFIGURATION:
        return False
    try:
        Configuration.from_bytes(command[1:])
    except ConfigurationError:
        return False
    return True
