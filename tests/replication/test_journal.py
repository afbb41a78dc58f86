# SPDX-License-Identifier: Apache-2.0
"""The journal: what was synced is there again, what cannot be is refused."""

import contextlib
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.file import MARK, NAME
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import (
    CONFIGURATION,
    Journal,
    open_journal,
)
from sparecode_node.replication.log.storage import DirectoryStorage
from sparecode_node.replication.members import Configuration, Member
from tests.replication.bench import compact
from tests.simulation.disk import Disk, File, Killed

ME = Identity("cluster", "n1")
MEMBERS = Configuration.of(
    Member(node_id=NodeId(i), address=f"{i}:7301") for i in ("n1", "n2", "n3")
)


def reopen(disk: Disk, *, must_exist: bool = True, identity: Identity = ME) -> Journal:
    return open_journal(disk, identity, MEMBERS, must_exist=must_exist, salt=b"s" * 16)


@pytest.fixture
def disk() -> Disk:
    return Disk("n1", random.Random(1))


@pytest.fixture
def journal(disk: Disk) -> Journal:
    return reopen(disk, must_exist=False)


def fill(journal: Journal) -> list[tuple[int, list[form.Entry]]]:
    """Write some batches; return the file's size and the log after each."""
    marks = []

    def mark() -> None:
        journal.sync()
        file = journal._file._storage.names[NAME]  # type: ignore[attr-defined]
        marks.append((len(file.cached), journal[:]))

    mark()
    journal.setCurrentTerm(3, "n2")
    mark()
    journal.add(b"\x00two", 2, 3)
    journal.add(b"\x00three", 3, 3)
    mark()
    journal.deleteEntriesFrom(2)
    journal.add(b"\x00another", 3, 4)
    mark()
    return marks


def test_everything_is_there_again(disk: Disk, journal: Journal) -> None:
    fill(journal)
    again = reopen(disk)
    assert again[:] == [(b"\x01", 1, 0), (b"\x00two", 2, 3), (b"\x00another", 3, 4)]
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "n2")
    assert (again.identity, again.configuration) == (
        ME,
        MEMBERS.naming("n1", again.journal_id),
    )
    again.add(b"\x00four", 4, 4)
    again.sync()
    assert reopen(disk).last_index == 4


def test_a_torn_tail_is_cut_at_every_byte(disk: Disk, journal: Journal) -> None:
    marks = fill(journal)
    whole = bytes(disk.names[NAME].cached)
    for size in range(marks[0][0], len(whole) + 1):
        torn = Disk("n1", random.Random(1))
        torn.names[NAME] = File(bytearray(whole[:size]), whole[:size])
        log = next(log for end, log in reversed(marks) if end <= size)
        assert reopen(torn)[:] == log
        assert len(torn.names[NAME].cached) in [end for end, _ in marks]


def test_a_journal_without_its_first_batch_is_refused(
    disk: Disk, journal: Journal
) -> None:
    """It was complete before it got its name: no crash leaves it so."""
    whole = bytes(disk.names[NAME].cached)
    for size in range(len(whole)):
        cut = Disk("n1", random.Random(1))
        cut.names[NAME] = File(bytearray(whole[:size]), whole[:size])
        with pytest.raises(StartRefusedError, match=r"raft\.journal at offset"):
            reopen(cut)


def test_a_flipped_bit_is_refused_with_file_and_offset(
    disk: Disk, journal: Journal
) -> None:
    marks = fill(journal)
    whole = bytes(disk.names[NAME].cached)
    starts = [form.FILE_HEADER_BYTES, *(end for end, _ in marks)]
    for position in range(marks[-2][0]):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        bad = Disk("n1", random.Random(1))
        bad.names[NAME] = File(damaged, bytes(damaged))
        at = max((s for s in starts if s <= position), default=0)
        if position < form.FILE_HEADER_BYTES:
            at = 0
        with pytest.raises(
            StartRefusedError, match=rf"n1:raft\.journal at offset {at}:"
        ):
            reopen(bad)
        assert bytes(bad.names[NAME].cached) == damaged  # And left as it is.


def test_a_batch_that_is_missing_is_refused(disk: Disk, journal: Journal) -> None:
    marks = fill(journal)
    file = disk.names[NAME]
    del file.cached[marks[1][0] : marks[2][0]]
    with pytest.raises(StartRefusedError, match="batch 4 follows batch 2"):
        reopen(disk)


def test_bytes_of_a_command_do_not_pass_for_a_batch(
    disk: Disk, journal: Journal
) -> None:
    """The author of a command does not know the salt."""
    imitation = form.batch(bytes(16), 99, form.truncate_record(1))
    journal.add(b"\x00" + imitation, 2, 1)
    journal.sync()
    disk.names[NAME].cached[-1:] = b""  # Torn,
    del disk.names[MARK]  # and never known to be on disk.
    assert reopen(disk).last_index == 1


def test_the_journal_of_another_node_is_refused(disk: Disk, journal: Journal) -> None:
    with pytest.raises(StartRefusedError, match="'n1' of cluster 'cluster'; this is"):
        reopen(disk, identity=Identity("cluster", "n2"))
    with pytest.raises(StartRefusedError, match="of cluster 'cluster'; this is node"):
        reopen(disk, identity=Identity("other", "n1"))


def test_the_members_are_those_of_the_journal(
    disk: Disk, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """Later changes of the file are logged and ignored (item 6)."""
    fewer = Configuration.of(MEMBERS.members[:2])
    again = open_journal(disk, ME, fewer, must_exist=True, salt=bytes(16))
    assert again.configuration == journal.configuration
    assert [record.message for record in caplog.records] == ["members_differ"]
    assert again.configuration.ids == ("n1", "n2", "n3")


@pytest.mark.parametrize(
    ("written", "warnings"),
    [
        (MEMBERS.members[:1], []),
        ((replace(MEMBERS.members[0], address="n9:1"),), ["members_differ"]),
        (MEMBERS.members[1:2], ["members_differ"]),
    ],
    ids=["itself", "itself elsewhere", "another"],
)
def test_a_file_may_name_its_node_alone(
    disk: Disk,
    journal: Journal,
    caplog: pytest.LogCaptureFixture,
    written: tuple[Member, ...],
    warnings: list[str],
) -> None:
    """As after it has joined with a ticket. Another address is a mistake to be told of."""
    alone = Configuration.of(written)
    open_journal(disk, ME, alone, must_exist=True, salt=bytes(16))
    assert [record.message for record in caplog.records] == warnings


def change(journal: Journal, configuration: Configuration, term: int = 1) -> int:
    """Append other members."""
    index = journal.last_index + 1
    journal.add(CONFIGURATION + configuration.to_bytes(), index, term)
    return index


def test_the_newest_members_that_were_appended_count_until_they_are_cut_off(
    disk: Disk, journal: Journal
) -> None:
    reports: list[Configuration] = []
    journal.on_configuration = reports.append
    founders = journal.configuration
    fewer, fewest = (founders.without(NodeId(i)) for i in ("n2", "n3"))
    for wanted in (fewer, fewest):
        at = change(journal, wanted)
        assert (journal.configuration, journal.configured_at) == (wanted, at)
    journal.sync()
    assert reopen(disk).configuration == fewest
    assert journal.agreed_configuration == founders
    journal.committed = 2
    assert journal.agreed_configuration == fewer
    journal.deleteEntriesFrom(2)  # The entry at 3.
    journal.add(b"\x00", 3, 2)
    journal.sync()
    assert (journal.configuration, journal.configured_at) == (fewer, 2)
    assert reopen(disk).configuration == fewer
    assert reports == [fewer, fewest, fewer]


def test_the_members_outlive_compaction(disk: Disk, journal: Journal) -> None:
    fewer, fewest = (journal.configuration.without(NodeId(i)) for i in ("n2", "n3"))
    change(journal, fewer)
    journal.add(b"\x00", 3, 1)
    change(journal, fewest)
    journal.committed = 4
    compact(journal, 3)
    for result in (journal, reopen(disk)):
        assert result.configuration == fewest
        assert result.configuration_at(3) == fewer
    compact(journal, 4)
    assert reopen(disk).configuration == fewest
    journal.rebase(9, 2, fewer)
    assert (journal.configuration, journal.configured_at) == (fewer, 9)
    assert reopen(disk).configuration == fewer


def test_a_journal_keeps_its_name_and_another_has_another(
    disk: Disk, journal: Journal
) -> None:
    name = journal.journal_id
    assert name == (b"s" * 16).hex()
    assert journal.configuration.member("n1").journal_id == name  # type: ignore[union-attr]
    journal.add(b"\x00", 2, 1)
    journal.committed = 2
    compact(journal, 2)
    assert reopen(disk).journal_id == name
    other = open_journal(
        Disk("n1", random.Random(1)), ME, MEMBERS, must_exist=False, salt=b"t" * 16
    )
    assert other.journal_id != name


@pytest.mark.parametrize(
    "command",
    [b"\xff\xff", b"", Configuration((), (NodeId("n1"),)).to_bytes()],
    ids=["no message", "nobody", "nobody left"],
)
def test_an_entry_of_members_that_cannot_be_read_is_refused(
    disk: Disk, journal: Journal, command: bytes
) -> None:
    journal._unsynced += form.add_record((CONFIGURATION + command, 2, 1))
    journal.sync()
    with pytest.raises(StartRefusedError, match="entry 2: not a configuration"):
        reopen(disk)


def test_a_missing_journal_is_refused_where_a_state_store_is(disk: Disk) -> None:
    with pytest.raises(StartRefusedError, match="the journal is missing, but there is"):
        reopen(disk)


@pytest.mark.parametrize("operations", range(12))
def test_a_kill_while_it_is_created_leaves_none_or_all(
    disk: Disk, operations: int
) -> None:
    disk.fuse = operations
    with contextlib.suppress(Killed):
        reopen(disk, must_exist=False)
    disk.fuse = None
    disk.lose_power()
    assert reopen(disk, must_exist=False).last_index == 1


def test_a_failed_sync_is_never_tried_again(disk: Disk, journal: Journal) -> None:
    """The kernel may have dropped the pages, and call them synced the next time."""
    journal.add(b"\x00two", 2, 1)
    disk.failing = True
    with pytest.raises(Fatal, match="writing the journal failed: the disk has failed"):
        journal.sync()
    disk.failing = False
    with pytest.raises(Fatal, match="the disk has failed"):
        journal.sync()
    assert journal.durable_index == 1


def test_term_and_vote_are_on_disk_at_once(disk: Disk, journal: Journal) -> None:
    journal.setCurrentTerm(5, "n3")
    disk.lose_power()
    again = reopen(disk)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (5, "n3")


@pytest.mark.parametrize(("term", "vote"), [(4, "n2"), (5, "n2"), (5, None)])
def test_a_promise_is_not_taken_back(journal: Journal, term: int, vote: str) -> None:
    journal.setCurrentTerm(5, "n3")
    with pytest.raises(Fatal, match="cannot go from"):
        journal.setCurrentTerm(term, vote)


def test_a_promise_may_be_repeated(disk: Disk, journal: Journal) -> None:
    journal.setCurrentTerm(5, "n3")
    before = disk.read(NAME)
    journal.setCurrentTerm(5, "n3")
    assert journal.getVotedForNodeId() == "n3"
    assert disk.read(NAME) == before


def test_what_is_committed_is_not_cut_off(journal: Journal) -> None:
    journal.add(b"\x00two", 2, 1)
    journal.setRaftCommitIndex(2)
    with pytest.raises(Fatal, match="2 is committed"):
        journal.deleteEntriesFrom(1)


def test_the_commit_index_does_not_run_ahead_of_the_disk(journal: Journal) -> None:
    journal.add(b"\x00two", 2, 1)
    assert journal.durable_index == 1
    journal.setRaftCommitIndex(2)
    assert journal.durable_index == 2


@pytest.mark.parametrize(("index", "term"), [(3, 5), (1, 5), (2, 3)])
def test_entries_follow_each_other(journal: Journal, index: int, term: int) -> None:
    journal.add(b"\x00two", 2, 4)
    with pytest.raises(Fatal, match="cannot follow"):
        journal.add(b"\x00", index + 1, term) if index != 2 else journal.add(
            b"\x00", 3, term
        )


def test_real_files_are_written_and_read(tmp_path: Path) -> None:
    directory = tmp_path / "raft"
    storage = DirectoryStorage(directory)
    journal = open_journal(storage, ME, MEMBERS, must_exist=False, salt=os.urandom(16))
    journal.add(b"\x00two", 2, 1)
    journal.sync()
    journal.close()
    with (directory / NAME).open("ab") as file:
        file.write(b"torn")
    again = open_journal(storage, ME, MEMBERS, must_exist=True, salt=b"")
    assert again.last_index == 2
    assert (directory / NAME).stat().st_mode & 0o777 == 0o600
    again.close()
    storage.close()


def test_a_directory_is_for_one_process(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    with pytest.raises(StartRefusedError, match="another process is using"):
        DirectoryStorage(tmp_path)
    storage.close()
    DirectoryStorage(tmp_path).close()


def test_a_directory_that_is_made_is_there_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synced files are as durable as the name of what they are in."""
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    DirectoryStorage(tmp_path / "journal").close()
    assert synced == [str(tmp_path)]


def test_what_a_failed_sync_has_dropped_is_written_again(
    disk: Disk, journal: Journal
) -> None:
    """
    A node whose sync failed restarts, and its last batch can be read.

    The kernel counts those pages as clean, so the next sync succeeds without writing
    them. A node that then acknowledged them would promise what a power cut takes away.
    """
    journal.add(b"\x00two", 2, 3)
    disk.failing = True
    with pytest.raises(Fatal, match="writing the journal failed"):
        journal.sync()
    disk.failing = False
    again = reopen(disk)
    assert again.durable_index == 2
    again.add(b"\x00three", 3, 3)
    again.sync()
    disk.lose_power()
    assert reopen(disk)[1:] == [(b"\x00two", 2, 3), (b"\x00three", 3, 3)]


def test_a_file_that_is_rewritten_stays_as_it_is(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    file = storage.append_to("file")
    file.append(b"beginning, end")
    storage.rewrite("file", 11)
    assert storage.read("file") == b"beginning, end"
    file.append(b".")
    assert storage.read("file") == b"beginning, end."


def rot(disk: Disk, name: str, offset: int) -> None:
    """Flip a bit that is on disk."""
    file = disk.names[name]
    file.cached[offset] ^= 0x04
    file.durable = bytes(file.cached)


def test_a_last_batch_that_has_rotted_is_refused_at_every_byte(
    disk: Disk, journal: Journal
) -> None:
    """
    It looks like a torn tail; but this node had relied upon it.

    Were it cut, the node would vote for a primary without what it has acknowledged.
    """
    *_, before, (size, _) = fill(journal)
    start = before[0]
    for offset in range(start, size):
        rot(disk, NAME, offset)
        with pytest.raises(
            StartRefusedError,
            match=rf"n1:raft.journal at offset {start}: batch 4 is damaged or missing,"
            " and batch 4 was on disk",
        ):
            reopen(disk)
        rot(disk, NAME, offset)
    assert reopen(disk).last_index == 3


def test_a_journal_that_has_lost_its_end_is_refused(
    disk: Disk, journal: Journal
) -> None:
    """As an older copy has, or a disk that had said more than was true."""
    *_, before, (_, _) = fill(journal)
    del disk.names[NAME].cached[before[0] :]
    with pytest.raises(StartRefusedError, match="and batch 4 was on disk"):
        reopen(disk)


def test_what_was_written_and_not_synced_is_cut(disk: Disk, journal: Journal) -> None:
    """A power cut tears it. The mark does not cover it, so no member relied on it."""
    fill(journal)
    journal.add(b"\x00torn", 4, 4)
    disk.failing = True
    with pytest.raises(Fatal):
        journal.sync()
    disk.failing = False
    del disk.names[NAME].cached[-3:]
    assert reopen(disk).last_index == 3


def test_a_mark_is_of_one_journal(disk: Disk, journal: Journal) -> None:
    """A compacted journal has few batches; the mark of the one before counts not."""
    fill(journal)
    journal.setRaftCommitIndex(3)
    old = bytes(disk.names[MARK].cached)
    compact(journal, 3)
    assert disk.names[MARK].cached != old
    disk.names[MARK].cached[:] = old
    assert reopen(disk).first_index == 3


def test_a_torn_mark_says_nothing(disk: Disk, journal: Journal) -> None:
    """Then an invalid last batch is a torn tail, as without any mark."""
    *_, before, (size, _) = fill(journal)
    rot(disk, NAME, size - 1)
    rot(disk, MARK, 7)
    assert len(reopen(disk)) == len(before[1])


def test_a_journal_that_is_gone_while_its_mark_is_there_is_refused(
    disk: Disk, journal: Journal
) -> None:
    """A node without state and journal would have forgotten its votes."""
    fill(journal)
    del disk.names[NAME]
    with pytest.raises(StartRefusedError, match="there is a mark of one"):
        reopen(disk, must_exist=False)


def test_a_mark_of_real_files_is_written_in_place(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    mark = storage.mark_in("mark")
    for data in (b"first", b"other"):
        mark.write(data)
        assert storage.read("mark") == data
    mark.sync()
    mark.close()
    storage.close()
