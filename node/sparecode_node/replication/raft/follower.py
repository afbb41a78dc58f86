# SPDX-License-Identifier: Apache-2.0
"""
What a follower makes of the leader's entries, before PySyncObj sees them.

PySyncObj cuts the log off behind the entry before the first one it is sent,
conflict or not, and so loses entries that this node has acknowledged whenever
an older message comes again. Here a message is rewritten so that nothing is cut
off but what conflicts (Raft, figure 2, AppendEntries 3 and 4).
"""

from dataclasses import dataclass

from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import CONFIGURATION, NO_OP, Journal
from sparecode_node.replication.members import Configuration, ConfigurationError
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.settings import COMMAND_BYTES_MAX

REGULAR = b"\x00"
"""First byte of an entry of ours; the rest is a `LogEntry`."""


class MalformedEntriesError(Exception):
    """A leader sends entries that cannot be in any log, or that we do not know."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What PySyncObj is given in place of the message."""

    message: Message
    next_ack: int | None
    """The index to ask for in the answer, if it is not PySyncObj's own."""


class FollowerLog:
    """Compares the leader's entries with the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._hint: tuple[int, int] = (0, 0)
        """Term of a leader that disagrees, and the first index of ours in doubt."""

    def judge(self, leader: str, message: Message, commit: int) -> Verdict:
        """
        Return what to do with entries of the leader.

        Raises `MalformedEntriesError`, and `Fatal` if what is committed here
        is not what the leader has.
        """
        journal = self._journal
        previous = message["prevLogIdx"]
        entries = check_entries(leader, message)
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
        Make a heartbeat at our own last entry of it: nothing in it is new.

        What stands behind *last* is not confirmed by this message, and neither
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
        Refuse entries whose predecessor is missing here, or another.

        PySyncObj answers with a reset and leaves the log alone. The whole term
        in conflict is skipped at once, and answers to messages that were under
        way must not undo that. What is committed here the leader has too.
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
    """Say whether an entry is a no-op or one of ours: none of PySyncObj's others."""
    if command == NO_OP:
        return True
    if len(command) > COMMAND_BYTES_MAX + 1:
        return False
    return command[:1] == REGULAR or is_configuration(command)


def is_configuration(command: bytes) -> bool:
    """Say whether an entry says who the members are, so that it can be read here."""
    if command[:1] != CONFIGURATION:
        return False
    try:
        Configuration.from_bytes(command[1:])
    except ConfigurationError:
        return False
    return True
