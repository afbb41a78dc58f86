# SPDX-License-Identifier: Apache-2.0
"""
The durable journal: the promises of this node, and the log.

PySyncObj's own journal is memory-mapped, never synced, and has no checksums. This one
replaces it: changes gather in memory, and `sync` writes them as one batch with one
fdatasync. A node calls `sync` before it acknowledges an entry, votes, or counts itself
into a quorum; `guard` and `engine` make sure of that.

No caller may remove a committed entry, or change a term or a vote back: that raises
`Fatal`. The beginning of the log is dropped only by replacing the whole journal with a
new file (`shorten`, `rebase`).
"""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import overload

from pysyncobj.journal import Journal as EngineJournal

from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.boots import BootFile, Position
from sparecode_node.replication.log.file import SHORTER, JournalFile, Successor
from sparecode_node.replication.log.format import (
    Entry,
    Identity,
    RecordKind,
    bytes_of,
)
from sparecode_node.replication.log.storage import Storage
from sparecode_node.replication.members import (
    Configuration,
    ConfigurationError,
    Member,
)

log = logging.getLogger(__name__)

NO_OP = b"\x01"
"""PySyncObj's no-op; the log begins with one at index 1, term 0."""
FIRST_ENTRY: Entry = (NO_OP, 1, 0)
CONFIGURATION = b"\x04"
"""First byte of an entry with the members; the rest is a `Configuration`."""


@dataclass(frozen=True, slots=True)
class Shortening:
    """A shorter journal that is written beside the journal. See `Journal.shorten`."""

    file: JournalFile
    successor: Successor
    kept: list[Entry]
    """From its base to the last entry when it was begun. Nothing changes this list."""
    head: bytes

    def write(self) -> None:
        """Write it; return when it is on disk. In any thread. Raises `Fatal`."""
        records = map(form.add_record, self.kept[1:])
        self.file.write_beside(self.successor, itertools.chain([self.head], records))


class Journal(EngineJournal):
    """A journal that keeps everything it has acknowledged."""

    def __init__(self, storage: Storage) -> None:
        """Make an empty journal, for `open_journal`."""
        self._file = JournalFile(storage)
        self.boots = BootFile(storage)
        """The starts with this journal, once `count_start` has been called."""
        self._unsynced = bytearray()
        self._entries: list[Entry] = []
        self._term = 0
        self._vote: str | None = None
        self.identity = Identity("", "")
        self.journal_id = ""
        """Names this journal; a journal that replaces a lost one has another name."""
        self._configurations: list[tuple[int, Configuration]] = []
        """
        The configurations in the log, each with its index, after the one that counted
        where the log begins.
        """
        self.on_configuration: Callable[[Configuration], object] = lambda _new: None
        """Called with the newest configuration before the change of the log returns."""
        self.committed = 1
        """Entries up to this index may never be cut off."""
        self.is_held = False
        """
        Whether a snapshot is about to replace state and log: no entry is taken or
        applied, and this node does not campaign. It goes on voting.
        """
        self.durable_index = 0
        """The last entry that is on disk."""
        self.syncs = 0
        self.bytes = 0  # Of all commands in the log.

    # --- Entries

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._entries[-1][2]

    @property
    def first_index(self) -> int:
        """The base of the log: once compacted, only its index and term are known."""
        return self._entries[0][1]

    @property
    def position(self) -> Position:
        """Where it ends: never before any promise made from it (`boots`)."""
        return self._term, self.last_term, self.last_index

    def has(self, index: int) -> bool:
        """Return whether the log has this entry."""
        return self.first_index <= index <= self.last_index

    def entry(self, index: int) -> Entry:
        """Return the entry at *index*."""
        return self._entries[index - self.first_index]

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at *index*, or None if the log lacks it."""
        return self.entry(index)[2] if self.has(index) else None

    # --- Members

    @property
    def configuration(self) -> Configuration:
        """The newest one appended here: it counts, committed or not."""
        return self._configurations[-1][1]

    @property
    def configured_at(self) -> int:
        """Index of its entry, or an index before the log, which is committed."""
        return self._configurations[-1][0]

    @property
    def agreed_configuration(self) -> Configuration:
        """The newest one known to be committed here: it cannot be taken back."""
        return self.configuration_at(self.committed)

    @property
    def possible_members(self) -> set[NodeId]:
        """By the agreed configuration, or a later one: the last ones may be taken back."""
        later = (c for at, c in self._configurations if at > self.committed)
        return {m for c in (self.agreed_configuration, *later) for m in c.ids}

    def configuration_at(self, index: int) -> Configuration:
        """Return the configuration that counted when the log ended at *index*."""
        at, newest = self._configurations[-1]  # Nearly always it; asked for often.
        if at <= index:
            return newest
        return next(c for at, c in reversed(self._configurations) if at <= index)

    def _take_configuration(self, entry: Entry) -> None:
        command, index, _ = entry
        if command[:1] == CONFIGURATION:
            configuration = Configuration.from_bytes(command[1:])
            self._configurations.append((index, configuration))
            reach(Point.MEMBERS_TAKEN)

    # --- Durability

    def sync(self) -> None:
        """Return when all changes so far are on disk. Raises `Fatal`."""
        self._file.check_usable()
        if self._unsynced:
            self._file.append(bytes(self._unsynced))
            self._unsynced.clear()
            self.syncs += 1
        self.durable_index = self.last_index

    # --- Dropping what a snapshot covers

    def shorten(self, index: int) -> Shortening:
        """
        Return what drops the entries before *index*, whose own term stays.

        The caller writes it, in any thread, and passes it to `take`. The caller makes
        sure that a durable snapshot covers what is dropped, and that no power cut takes
        the state back before *index*. Raises `Fatal`.
        """
        if not self.first_index <= index <= self.committed:
            raise Fatal(f"the log cannot be compacted up to entry {index}")
        self._file.check_usable()
        kept = self._entries[index - self.first_index :]
        head = self._head(self.configuration_at(index))
        base = form.base_record(index, kept[0][2])
        successor = Successor(self._file.next_salt(), SHORTER)
        return Shortening(self._file, successor, kept, head + base)

    def take(self, shortening: Shortening) -> bool:
        """
        Go on in the shorter journal, once it is written; return whether that fits.

        It does not if entries in it were cut off since, or the log begins elsewhere.
        Raises `Fatal`.
        """
        _, first, term = shortening.kept[0]
        _, last, last_term = shortening.kept[-1]
        fits = self.term_at(first) == term and self.term_at(last) == last_term
        if not fits:
            shortening.successor.close()
            return False
        later = self._entries[last - self.first_index + 1 :]
        promise = form.term_record(self._term, self._vote)
        more = [promise, *map(form.add_record, later)]
        configuration = self.configuration_at(first)
        self._file.take(shortening.successor, more)
        self._began_at(first, term, configuration, [*shortening.kept[1:], *later])
        return True

    def rebase(self, index: int, term: int, configuration: Configuration) -> None:
        """
        Begin after a snapshot that the state has taken over. Raises `Fatal`.

        If the entry at *index* is the snapshot's, the entries after it stay. If it is
        another one, it and all after it conflict with what is committed, and are
        dropped. The members are those of the snapshot, and of the entries that stay.
        """
        if index < self.committed:
            raise Fatal(f"entry {self.committed} is committed and must not be lost")
        self._begin_at(index, term, configuration.completed(self.configuration))
        self.committed = index
        self.on_configuration(self.configuration)

    def _begin_at(self, index: int, term: int, configuration: Configuration) -> None:
        """Write a new file, and replace the old one by it in one step."""
        kept = []
        if self.term_at(index) == term:
            kept = self._entries[index - self.first_index + 1 :]
        head = self._head(configuration)
        base = form.base_record(index, term) + form.term_record(self._term, self._vote)
        records = map(form.add_record, kept)
        self._file.replace(itertools.chain([head, base], records))
        self._began_at(index, term, configuration, kept)

    def _began_at(
        self, index: int, term: int, configuration: Configuration, kept: list[Entry]
    ) -> None:
        """Record that the file begins at *index*, and has all that it must have."""
        self._unsynced.clear()
        self._entries = [(NO_OP, index, term), *kept]
        self._configurations = [(index, configuration)]
        for entry in kept:
            self._take_configuration(entry)
        self.bytes = bytes_of(self._entries)
        self.durable_index = self.last_index

    # --- What PySyncObj calls

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        if idx != self.last_index + 1 or term < self.last_term:
            raise Fatal(
                f"entry {idx} of term {term} cannot follow entry"
                f" {self.last_index} of term {self.last_term}"
            )
        entry = (bytes(command), idx, term)
        self._entries.append(entry)
        self._take_configuration(entry)
        self.bytes += len(command)
        self._unsynced += form.add_record(entry)
        if idx == self.configured_at:
            self.on_configuration(self.configuration)
        if len(self._unsynced) > form.BATCH_BYTES_MAX // 2:
            self.sync()  # Keep a torn batch below the size that recovery accepts.

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Cut off entries that conflict with the leader's log; *entryFrom* is a position."""
        index = self.first_index + entryFrom
        if not self.has(index):
            return
        if index <= self.committed:
            raise Fatal(
                f"entry {index} must not be cut off: entry {self.committed} is committed"
            )
        self.bytes -= bytes_of(self._entries[entryFrom:])
        del self._entries[entryFrom:]
        self._unsynced += form.truncate_record(index)
        reach(Point.ENTRIES_CUT)
        self.durable_index = min(self.durable_index, index - 1)
        if self.configured_at >= index:
            self._forget_configurations(index)
            self.on_configuration(self.configuration)

    def _forget_configurations(self, index: int) -> None:
        """Go back to the members before *index*, whose entry was cut off."""
        self._configurations = [
            (at, members) for at, members in self._configurations if at < index
        ]

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Refuse: only `take` drops entries, once a snapshot covers them."""
        raise Fatal(f"PySyncObj must not compact the log: {entryTo} entries")

    def clear(self) -> None:
        """Refuse: only `rebase` replaces the log, after a snapshot."""
        raise Fatal("nothing may clear the journal")

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """
        Record the commit index, before any entry is applied or answered.

        A leader counts itself when it computes the index, so its own copy of the
        entries must be on disk by now.
        """
        if raftCommitIndex > self.durable_index:
            self._sync_before_commit()
        if raftCommitIndex > self.committed:
            self.committed = raftCommitIndex
            reach(Point.COMMITTED)

    def _sync_before_commit(self) -> None:
        self.sync()

    def getRaftCommitIndex(self) -> int:
        """Return an index up to which all is committed; the leader tells the rest again."""
        return self.committed

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Make term and vote durable, before any other node learns of them."""
        promised = (self._term, self._vote)
        if promised == (term, votedForNodeId):
            return
        if term < self._term or (term == self._term and self._vote is not None):
            wanted = (term, votedForNodeId)
            raise Fatal(f"term and vote cannot go from {promised} to {wanted}")
        self._term, self._vote = term, votedForNodeId
        self._unsynced += form.term_record(term, votedForNodeId)
        reach(Point.TERM_WRITE)
        self._sync_before_promise()
        reach(Point.TERM_WRITTEN)

    def _sync_before_promise(self) -> None:
        self.sync()

    def getCurrentTerm(self) -> int:
        """Return the term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """Return the node that this node has voted for in this term."""
        return self._vote

    def _destroy(self) -> None:
        self._file.close()
        self.boots.close()

    close = _destroy

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    # --- Opening

    def count_start(self, nonce: str) -> None:
        """
        Count this start durably, before the node says anything; *nonce* is random.

        Raises `StartRefusedError`.
        """
        self.boots.open(self.journal_id, self.position, nonce)
        reach(Point.START_COUNTED)

    def _head(self, configuration: Configuration) -> bytes:
        return (
            form.identity_record(self.identity)
            + form.journal_id_record(self.journal_id)
            + form.configuration_record(configuration)
        )

    def _create(
        self, identity: Identity, configuration: Configuration, salt: bytes
    ) -> None:
        self.identity, self.journal_id = identity, salt.hex()
        head = self._head(configuration.naming(identity.node_id, self.journal_id))
        first = head + form.add_record(FIRST_ENTRY)
        self._file.create(first, salt)

    def _load(self) -> None:
        try:
            for kind, value, offset in self._file.load():
                self._replay(kind, value, offset)
        except form.FormatError as error:
            raise StartRefusedError(
                f"{self._file.where} {error}. The journal holds what this node has"
                " acknowledged. Do not repair the file: remove this node from the"
                " cluster, and add it under a new id."
            ) from error
        self.durable_index = self.last_index
        self.bytes = bytes_of(self._entries)

    def _replay(self, kind: RecordKind, value: object, offset: int) -> None:
        match kind, value:
            case RecordKind.IDENTITY, Identity():
                self.identity = value
            case RecordKind.JOURNAL_ID, str():
                self.journal_id = value
            case RecordKind.CONFIGURATION, Configuration():
                self._configurations = [(0, value)]
            case RecordKind.TERM, (int() as term, str() | None as vote):
                self._term, self._vote = term, vote
            case RecordKind.ADD, (bytes(), int() as index, int()):
                if index != (self.last_index + 1 if self._entries else 1):
                    raise form.FormatError(offset, f"entry {index} is out of order")
                self._entries.append(value)  # type: ignore[arg-type]
                self._replay_configuration(value, offset)  # type: ignore[arg-type]
            case RecordKind.BASE, (int() as index, int() as term):
                self._entries = [(NO_OP, index, term)]
            case RecordKind.TRUNCATE, int():
                del self._entries[value - self.first_index :]
                self._forget_configurations(value)
            case _:
                raise form.FormatError(offset, f"{kind.name} says {value!r}")

    def _replay_configuration(self, entry: Entry, offset: int) -> None:
        try:
            self._take_configuration(entry)
        except ConfigurationError as error:
            raise form.FormatError(offset, f"entry {entry[1]}: {error}") from error


def open_journal(
    storage: Storage,
    identity: Identity,
    configured: Configuration,
    *,
    must_exist: bool,
    salt: bytes,
) -> Journal:
    """
    Return this node's journal, a new one if there is none.

    *must_exist*: there is a state store, so there was a journal. *configured* and
    *salt* are for a new journal; an existing one knows its members. Raises
    `StartRefusedError` if the journal is missing, damaged, or another node's.
    """
    journal = Journal(storage)
    where = journal._file.where
    try:
        if not journal._file.exists():
            if must_exist or journal._file.existed():
                left = "a state store" if must_exist else "a mark of one"
                raise StartRefusedError(
                    f"{where}: the journal is missing, but there is {left}."
                    " Without it this node would break promises that it made to the"
                    " others. Remove it from the cluster, and add it under a new id."
                )
            journal._create(identity, configured, salt)
        journal._load()
    except OSError as error:
        raise StartRefusedError(f"{where}: {error}") from error
    if journal.identity != identity:
        owner = journal.identity
        raise StartRefusedError(
            f"{where}: the journal is that of node {owner.node_id!r} of cluster"
            f" {owner.cluster_id!r}; this is node {identity.node_id!r} of cluster"
            f" {identity.cluster_id!r}"
        )
    _tell_differences(
        identity.node_id, configured.members, journal.configuration.members
    )
    return journal


def _tell_differences(
    node_id: str, written: tuple[Member, ...], known: tuple[Member, ...]
) -> None:
    """
    Log that `node.toml` names other members: it is used at the first start only.

    A node that joined with a ticket names itself alone, and so does the first node of a
    cluster that has grown. That differs only if the node has another address now.
    """
    if [member.node_id for member in written] == [node_id]:
        known = (
            tuple(member for member in known if member.node_id == node_id) or written
        )
    configured = [f"{member.node_id}={member.address}" for member in written]
    kept = [f"{member.node_id}={member.address}" for member in known]
    if configured != kept:
        log.warning("members_differ", extra={"configured": configured, "journal": kept})
