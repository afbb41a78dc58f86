# SPDX-License-Identifier: Apache-2.0
"""Dropping the beginning of the log, and going on behind a snapshot, by scripts."""

import dataclasses
import itertools
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import (
    Fatal,
    SnapshotRefusedError,
    StartRefusedError,
)
from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.file import NAME
from sparecode_node.replication.log.format import Entry, Identity
from sparecode_node.replication.log.journal import NO_OP, Journal, open_journal
from sparecode_node.replication.log.storage import DirectoryStorage
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.raft import frames
from sparecode_node.replication.replica.compaction import Compaction
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.snapshots.store import (
    MANIFEST,
    RECEIVED,
    WRITTEN,
    BrokenSnapshotError,
    Manifest,
    SnapshotStore,
)
from sparecode_node.statemachine.skipping import SkippedEntry
from tests.replication.bench import Bench, compact, entry
from tests.replication.recording_state import RecordingState
from tests.simulation.disk import Disk, Killed

ME = Identity("cluster", "n1")
MEMBERS = Configuration.of(
    Member(node_id=NodeId(i), address=f"{i}:7301") for i in ("n1", "n2", "n3")
)


def reopen(disk: Disk) -> Journal:
    return open_journal(disk, ME, MEMBERS, must_exist=False, salt=b"s" * 16)


def filled(disk: Disk) -> Journal:
    journal = reopen(disk)
    journal.setCurrentTerm(3, "n2")
    for index in range(2, 12):
        journal.add(b"\x00%d" % index, index, 3)
    journal.sync()
    journal.committed = 9
    return journal


@pytest.fixture
def disk() -> Disk:
    return Disk("n1", random.Random(1))


# --- The journal


def test_a_compacted_journal_is_the_same_without_its_beginning(disk: Disk) -> None:
    journal = filled(disk)
    before, size = journal[:], len(disk.read(NAME))
    compact(journal, 8)
    assert journal[0] == (NO_OP, 8, 3)
    assert journal[1:] == before[8 - 1 + 1 :]
    assert len(disk.read(NAME)) < size
    journal.add(b"\x00more", 12, 3)
    journal.sync()
    again = reopen(disk)
    assert again[:] == journal[:]
    assert again.bytes == journal.bytes == sum(len(c) for c, _, _ in journal[:])
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "n2")
    assert (again.identity, again.configuration) == (
        ME,
        MEMBERS.naming("n1", again.journal_id),
    )
    assert [again.has(i) for i in (7, 8, 12, 13)] == [False, True, True, False]
    assert again.entry(9) == (b"\x009", 9, 3)
    again.deleteEntriesFrom(12 - 8)
    again.sync()
    assert reopen(disk).last_index == 11


def test_what_is_not_synced_yet_is_not_lost(disk: Disk) -> None:
    journal = filled(disk)
    journal.add(b"\x00last", 12, 3)
    compact(journal, 5)
    assert journal.durable_index == 12
    assert reopen(disk).last_index == 12


@pytest.mark.parametrize("index", [0, 10, 12])
def test_only_what_is_committed_is_compacted(disk: Disk, index: int) -> None:
    with pytest.raises(Fatal, match="cannot be compacted"):
        compact(filled(disk), index)


@pytest.mark.parametrize(
    "act",
    [
        lambda j: compact(j, 8),
        lambda j: j.rebase(20, 3, MEMBERS),
        lambda j: j.rebase(10, 3, MEMBERS),
    ],
    ids=["compact", "rebase beyond the log", "rebase within it"],
)
@pytest.mark.parametrize("power", [False, True])
def test_a_crash_leaves_the_old_journal_or_the_new_one(
    act: Callable[[Journal], None], power: bool
) -> None:
    """At each file operation."""
    whole = Disk("n1", random.Random(1))
    journal = filled(whole)
    before = journal[:]
    act(journal)
    after = journal[:]
    points = 0
    while True:
        disk = Disk("n1", random.Random(points))
        journal = filled(disk)
        disk.fuse = points
        try:
            act(journal)
        except Killed:
            pass
        else:
            break
        disk.fuse = None
        if power:
            disk.lose_power()
        again = reopen(disk)
        assert again[:] in (before, after), points
        assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "n2")
        points += 1
    assert points > 6


def compact_and_kill(disk: Disk) -> None:
    """Kill a node when the new journal has its name, and its directory is not synced."""
    journal = filled(disk)
    for fuse in itertools.count():
        disk.fuse = fuse
        before = dict(disk.names)
        try:
            compact(journal, 8)
        except Killed:
            if disk.names[NAME] is not before[NAME]:
                break
            journal = reopen(disk)
            journal.committed = 9
    disk.fuse = None


def test_a_name_left_by_a_killed_node_is_synced_before_it_is_used() -> None:
    """Otherwise a power cut restores the old journal, without later entries."""
    for seed in range(20):
        disk = Disk("n1", random.Random(seed))
        compact_and_kill(disk)
        journal = reopen(disk)
        journal.count_start("nonce")
        assert journal.first_index == 8
        journal.add(b"\x00acknowledged", 12, 3)
        journal.sync()
        disk.lose_power()
        again = reopen(disk)
        assert (again.first_index, again.last_index) == (8, 12)


def test_a_disk_that_fails_while_compacting_stops_the_node(disk: Disk) -> None:
    journal = filled(disk)
    before = journal[:]
    disk.failing = True
    with pytest.raises(Fatal, match="compacting the journal failed"):
        compact(journal, 8)
    disk.failing = False
    journal.add(b"\x00x", 12, 3)
    with pytest.raises(Fatal):
        journal.sync()
    assert reopen(disk)[:] == before


def test_a_disk_that_does_not_take_the_mark_of_a_new_journal_stops_the_node(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new journal has its name by then. Nothing more is promised from it."""
    journal = filled(disk)
    sync_directory = disk.sync_directory

    def last_sync() -> None:
        sync_directory()
        disk.failing = True

    monkeypatch.setattr(disk, "sync_directory", last_sync)
    with pytest.raises(Fatal, match="writing the mark failed"):
        compact(journal, 8)
    monkeypatch.undo()
    disk.failing = False
    journal.add(b"\x00x", 12, 3)
    with pytest.raises(Fatal, match="writing the mark failed"):
        journal.sync()
    again = reopen(disk)
    assert (again.first_index, again.last_index) == (8, 11)


def test_a_journal_begins_behind_a_snapshot(disk: Disk) -> None:
    journal = filled(disk)
    journal.rebase(20, 4, MEMBERS)
    assert journal[:] == [(NO_OP, 20, 4)]
    assert reopen(disk)[:] == [(NO_OP, 20, 4)]
    journal.add(b"\x00x", 21, 4)


def test_what_stands_behind_the_same_entry_stays(disk: Disk) -> None:
    """It may be acknowledged."""
    journal = filled(disk)
    journal.rebase(10, 3, MEMBERS)
    assert journal[:] == [(NO_OP, 10, 3), (b"\x0011", 11, 3)]


def test_what_stands_behind_another_entry_goes(disk: Disk) -> None:
    """It conflicts with what is committed."""
    journal = filled(disk)
    journal.rebase(10, 4, MEMBERS)
    assert journal[:] == [(NO_OP, 10, 4)]


def test_nothing_committed_is_lost_behind_a_snapshot(disk: Disk) -> None:
    with pytest.raises(Fatal, match="is committed"):
        filled(disk).rebase(8, 3, MEMBERS)


def test_a_large_journal_is_written_in_batches_that_can_be_read(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form, "JOINED_BYTES", 32)
    journal = filled(disk)
    compact(journal, 3)
    assert journal._file._sequence > 3
    assert reopen(disk)[:] == journal[:]


def test_a_large_journal_is_written_in_little_memory(tmp_path: Path) -> None:
    """A batch is copied before it is written, so one batch must not be the whole log."""
    storage = DirectoryStorage(tmp_path)
    journal = open_journal(storage, ME, MEMBERS, must_exist=False, salt=b"s" * 16)
    size = 8 * 1024 * 1024
    for index in range(2, 66):
        journal.add(bytes(size // 64), index, 1)
    journal.sync()
    journal.committed = journal.last_index
    shortening = journal.shorten(2)
    tracemalloc.start()
    try:
        shortening.write()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size * 3 / 4
    assert journal.take(shortening)
    assert journal.bytes > size / 2
    journal.close()
    storage.close()


# --- The journal, while a shorter one is written beside it


def test_what_comes_while_a_shorter_journal_is_written_is_in_it(disk: Disk) -> None:
    journal = filled(disk)
    shortening = journal.shorten(8)
    journal.add(b"\x0012", 12, 3)
    shortening.write()
    journal.setCurrentTerm(4, "n3")
    journal.add(b"\x0013", 13, 4)
    journal.committed = 13
    assert journal.take(shortening)
    assert journal.durable_index == 13
    again = reopen(disk)
    for each in (journal, again):
        assert [index for _, index, _ in each[:]] == [8, 9, 10, 11, 12, 13]
        assert (each.getCurrentTerm(), each.getVotedForNodeId()) == (4, "n3")
        assert each.configuration.ids == MEMBERS.ids
    assert again[:] == journal[:]
    journal.add(b"\x0014", 14, 4)
    journal.sync()
    assert reopen(disk).last_index == 14


def test_much_that_came_meanwhile_can_be_read(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form, "BATCH_BYTES_MAX", 128)
    monkeypatch.setattr(form, "JOINED_BYTES", 64)
    journal = filled(disk)
    shortening = journal.shorten(8)
    shortening.write()
    for index in range(12, 30):
        journal.add(b"\x00%d" % index, index, 3)
    assert journal.take(shortening)
    assert reopen(disk)[:] == journal[:]


@pytest.mark.parametrize(
    "change",
    [
        lambda j: (j.deleteEntriesFrom(10 - 1), j.add(b"\x00other", 10, 4)),
        lambda j: j.rebase(20, 4, MEMBERS),
        lambda j: compact(j, 9),
    ],
    ids=["cut off", "behind a snapshot", "shorter already"],
)
def test_a_shorter_journal_that_does_not_fit_any_more_is_not_used(
    disk: Disk, change: Callable[[Journal], object]
) -> None:
    journal = filled(disk)
    shortening = journal.shorten(8)
    shortening.write()
    change(journal)
    journal.sync()
    expected = journal[:]
    assert not journal.take(shortening)
    assert journal[:] == expected
    assert reopen(disk)[:] == expected


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_loses_nothing_that_came_while_it_was_written(power: bool) -> None:
    """At each file operation from its beginning on."""
    for points in itertools.count():
        disk = Disk("n1", random.Random(points))
        journal = filled(disk)
        disk.fuse = points
        synced = 11
        try:
            shortening = journal.shorten(8)
            shortening.write()
            journal.add(b"\x0012", 12, 3)
            journal.sync()
            synced = 12
            journal.add(b"\x0013", 13, 3)
            assert journal.take(shortening)
            synced = 13
        except Killed:
            pass
        else:
            break
        disk.fuse = None
        if power:
            disk.lose_power()
        again = reopen(disk)
        assert again.first_index in (1, 8), points
        assert again.last_index >= synced, points
        assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "n2")
    assert points > 10


def test_the_log_is_written_again_once_at_a_time(disk: Disk) -> None:
    """The engine goes on meanwhile."""
    journal = filled(disk)
    journal.committed = 11
    work: list[tuple[Callable[[], object], Callable[[], object]]] = []
    store: Any = SimpleNamespace(current=SimpleNamespace(index=11))
    state: Any = SimpleNamespace(applied_index=11, checkpoint=lambda: 11, skipped=())
    raft = RaftSettings(log_entries_max=8, log_entries_kept=2)
    compaction = Compaction(
        "c", store, journal, state, raft, beside=lambda *both: work.append(both)
    )
    for _ in range(3):
        compaction.run()
    ((write, take),) = work
    assert journal.first_index == 1
    write()
    compaction.run()
    assert len(work) == 1
    take()
    assert journal.first_index == 9
    compaction.run()
    assert len(work) == 1


# --- The snapshots on disk


def manifest_of(body: bytes, store: SnapshotStore, index: int = 8) -> Manifest:
    """Write a body, and say what it is."""
    store.clear(WRITTEN)
    file = store.storage.append_to(WRITTEN)
    file.append(body)
    length, sha256 = store.measure(WRITTEN)
    return Manifest(
        cluster_id="cluster",
        index=index,
        term=3,
        configuration=MEMBERS,
        digest="d",
        length=length,
        sha256=sha256,
    )


def send(store: SnapshotStore, body: bytes, start: int = 0, size: int = 10) -> None:
    for offset in range(start, len(body), size):
        data = body[offset : offset + size]
        store.add(offset, data, zlib.crc32(data))


def test_a_snapshot_is_the_old_one_or_the_new_one_after_a_crash() -> None:
    """At each file operation, killed or without power."""
    for power in (False, True):
        points = 0
        while True:
            disk = Disk("n1", random.Random(points))
            store = SnapshotStore(disk)
            old = manifest_of(b"old", store)
            store.adopt(old, WRITTEN)
            new = manifest_of(b"new", store, 9)
            disk.fuse = points
            try:
                store.adopt(new, WRITTEN)
            except Killed:
                pass
            else:
                break
            disk.fuse = None
            if power:
                disk.lose_power()
            result = SnapshotStore(disk).current
            assert result in (old, new), points
            assert result is not None
            assert set(disk.names) == {MANIFEST, result.body}
            points += 1
        assert points > 6


def test_a_manifest_speaks_of_nothing_that_a_power_cut_takes_away() -> None:
    """Names may come to the disk in any order; here they are there before it is."""

    class Watched(Disk):
        def rename(self, source: str, target: str) -> None:
            if target == MANIFEST:
                file = self._names_since[0][manifest.body]
                assert file.durable == b"body"
                assert self._names_since[0][source].durable == manifest.to_bytes()
            super().rename(source, target)

    disk = Watched("n1", random.Random(1))
    store = SnapshotStore(disk)
    manifest = manifest_of(b"body", store)
    store.adopt(manifest, WRITTEN)
    assert MANIFEST in disk._names_since[0]


def test_a_snapshot_that_has_rotted_is_dropped(disk: Disk) -> None:
    """The node takes another one; what it sends is never a damaged one."""
    store = SnapshotStore(disk)
    manifest = manifest_of(b"body", store)
    store.adopt(manifest, WRITTEN)
    assert SnapshotStore(disk).current == manifest
    disk.names[manifest.body].cached[0] ^= 1
    assert SnapshotStore(disk).current is None
    assert disk.names == {}


@pytest.mark.parametrize("offset", [0, 3, 4, 9])
def test_a_manifest_that_has_rotted_is_dropped(disk: Disk, offset: int) -> None:
    store = SnapshotStore(disk)
    store.adopt(manifest_of(b"body", store), WRITTEN)
    disk.names[MANIFEST].cached[offset] ^= 1
    assert SnapshotStore(disk).current is None


def test_a_snapshot_is_received_in_pieces(disk: Disk) -> None:
    body = bytes(range(95))
    store = SnapshotStore(disk)
    manifest = manifest_of(body, store)
    store.begin(manifest)
    send(store, body[:40])
    assert store.part() == (manifest.sha256, 40)
    store.begin(manifest)  # After the stream has ended: go on.
    send(store, body, start=40)
    assert store.complete() == manifest
    assert disk.read(RECEIVED) == body


def test_another_snapshot_starts_over(disk: Disk) -> None:
    store = SnapshotStore(disk)
    store.begin(manifest_of(b"first body", store))
    send(store, b"first")
    newer = manifest_of(b"second body", store)
    store.begin(newer)
    assert store.part() == (newer.sha256, 0)
    send(store, b"second body")
    assert store.complete() == newer


def test_a_chunk_that_is_damaged_or_does_not_follow_is_refused(disk: Disk) -> None:
    store = SnapshotStore(disk)
    with pytest.raises(BrokenSnapshotError):
        store.add(0, b"x", zlib.crc32(b"x"))
    store.begin(manifest_of(b"body", store))
    for offset, data, crc32 in (
        (0, b"body", zlib.crc32(b"bodx")),
        (1, b"ody", zlib.crc32(b"ody")),
        (0, b"", 0),
        (0, b"body and more", zlib.crc32(b"body and more")),
    ):
        with pytest.raises(BrokenSnapshotError):
            store.add(offset, data, crc32)
    assert store.part()[1] == 0
    with pytest.raises(BrokenSnapshotError, match="incomplete"):
        store.complete()
    send(store, b"body")
    store.complete()


def test_a_body_of_another_snapshot_is_refused(disk: Disk) -> None:
    """Each chunk was sound, but the whole is not the announced one."""
    store = SnapshotStore(disk)
    good = manifest_of(b"good", store)
    store.adopt(good, WRITTEN)
    store.begin(manifest_of(b"body", store, 9))
    send(store, b"bodx")
    with pytest.raises(BrokenSnapshotError, match="SHA-256"):
        store.complete()
    assert store.current == good
    assert disk.read(good.body) == b"good"


def test_what_a_full_disk_has_taken_half_of_is_received_again(disk: Disk) -> None:
    """How much of the chunk the file has is not known: what follows would not fit."""
    body = bytes(range(100))
    store = SnapshotStore(disk)
    manifest = manifest_of(body, store)
    store.begin(manifest)
    send(store, body[:40])
    disk.full = True
    with pytest.raises(OSError, match="no space"):
        send(store, body, start=40, size=50)
    disk.full = False
    _, offset = store.part()
    store.begin(manifest)
    send(store, body, start=offset)
    assert store.complete() == manifest


def test_a_snapshot_that_cannot_be_announced_leaves_no_file(disk: Disk) -> None:
    """On a full disk each attempt would, and there would never be room again."""
    store = SnapshotStore(disk)
    good = manifest_of(b"good", store)
    store.adopt(good, WRITTEN)
    for index in (9, 10):
        new = manifest_of(b"body %d" % index, store, index)
        disk.full = True
        with pytest.raises(SnapshotRefusedError, match="no space"):
            store.adopt(new, WRITTEN)
        disk.full = False
        assert not disk.exists(new.body)
    again = manifest_of(b"good", store)
    disk.full = True
    with pytest.raises(SnapshotRefusedError, match="no space"):
        store.adopt(again, WRITTEN)  # The same one, which was sent again.
    assert store.current == good
    assert disk.read(good.body) == b"good"


def test_what_a_failed_sync_may_have_dropped_is_received_again(disk: Disk) -> None:
    store = SnapshotStore(disk)
    manifest = manifest_of(b"body", store)
    store.begin(manifest)
    send(store, b"body")
    disk.failing = True
    with pytest.raises(OSError, match="failed"):
        store.complete()
    disk.failing = False
    assert store.part() == (b"", 0)
    store.begin(manifest)
    send(store, b"body")
    store.complete()
    assert disk.names[RECEIVED].durable == b"body"


def test_a_manifest_of_another_format_is_refused(disk: Disk) -> None:
    message = manifest_of(b"body", SnapshotStore(disk)).to_message()
    message.format = 2
    with pytest.raises(BrokenSnapshotError):
        Manifest.from_message(message)


# --- A replica


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(monkeypatch)
    bench.now += 2  # A node that starts keeps its log for a moment.
    return bench


def follow(bench: Bench, last: int, leader: str = "n2", term: int = 1) -> None:
    """Deliver entries up to *last* from a leader, and commit them."""
    entries = [entry(index, term) for index in range(2, last + 1)]
    bench.append(leader, term, (1, 0), *entries, commit=last)
    bench.tick()


def snapshot(last: int, term: int = 1) -> tuple[bytes, Manifest]:
    """Return a snapshot as another member has it."""
    state = RecordingState()
    state.apply(1, ())
    for index in range(2, last + 1):
        state.apply(index, ())
    store = SnapshotStore(Disk("other", random.Random(1)))
    manifest = manifest_of(state.serialize(), store, last)
    manifest = dataclasses.replace(manifest, cluster_id="bench", term=term)
    return state.serialize(), manifest


def install(bench: Bench, last: int, term: int = 1, **changes: object) -> None:
    """Install a snapshot that the replica has received."""
    body, manifest = snapshot(last, term)
    manifest = dataclasses.replace(manifest, **changes)
    bench.replica.snapshots.begin(manifest)
    send(bench.replica.snapshots, body, size=len(body))
    install_now(bench, bench.replica.snapshots.complete())


def install_now(bench: Bench, manifest: Manifest) -> None:
    """Install a snapshot on a disk that is done at once. Raises why it was refused."""
    refusals: list[SnapshotRefusedError | None] = []
    bench.replica.install(manifest, refusals.append)
    (refusal,) = refusals
    if refusal is not None:
        raise refusal


class LaterDisk:
    """A `Beside` whose work is done, and then followed up, when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Callable[[], object]]] = []

    def __call__(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """Keep both."""
        self.waiting.append((work, then))

    def install(self, bench: Bench) -> None:
        """Let the bench's installations wait."""
        bench.replica._installation = dataclasses.replace(
            bench.replica._installation, beside=self
        )


@pytest.fixture(autouse=True)
def bench_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bench's state read the bench's disk."""

    def install_from(self: RecordingState, where: str) -> None:
        node, _, name = where.partition(":")
        assert node == "n1"
        self.deserialize(self.disk.read(name))  # type: ignore[attr-defined]

    monkeypatch.setattr(RecordingState, "install", install_from)


def test_a_follower_that_is_behind_the_log_is_told_so(bench: Bench) -> None:
    """It is sent a hint, not a gap."""
    term = bench.lead()
    for k in range(20):
        bench.propose(f"r{k}")
        bench.tick()
        bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
        bench.tick()
    compact(bench.engine.journal, 15)
    bench.acknowledge("n3", 5, term, reset=True, success=False)
    bench.take()
    bench.tick(0.15)
    sent = [m for peer, m in bench.take() if peer == "n3"]
    offer = {"type": frames.OFFER_SNAPSHOT, "term": term, "index": 15}
    assert offer in sent
    appended = [m for m in sent if m["type"] == frames.APPEND_ENTRIES]
    assert appended
    assert all(m["prevLogIdx"] >= 15 and not m["entries"] for m in appended)
    bench.tick()
    assert not any(p == "n3" for p, _ in bench.take())  # Not again in each tick.
    bench.acknowledge("n3", 16, term)
    bench.acknowledge("n3", 16, term, reset=True, success=False)
    bench.tick(0.15)
    [first, *_] = [m for p, m in bench.take(frames.APPEND_ENTRIES) if p == "n3"]
    assert (first["prevLogIdx"], first["entries"][0][1]) == (15, 16)


def test_a_follower_takes_the_hint_of_its_leader_only(bench: Bench) -> None:
    follow(bench, 3)
    bench.receive("n3", frames.OFFER_SNAPSHOT, term=1, index=50)
    assert bench.replica.status().snapshot_source is None
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=1, index=3)
    assert bench.replica.status().snapshot_source is None  # It has that.
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=1, index=50)
    assert bench.replica.status().snapshot_source == "n2"
    bench.take()
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=0, index=50)
    assert bench.take() == [("n2", {"type": frames.STALE_TERM, "term": 1})]


def test_an_offer_moves_no_commit_index(bench: Bench) -> None:
    """PySyncObj gets this wrong with its own snapshots (p09a)."""
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=1)
    bench.tick()
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=1, index=50)
    bench.append("n2", 1, (60, 1), commit=60)
    bench.tick()
    assert bench.engine.raftCommitIndex == 1
    assert bench.state.applied_index == 1


def test_a_replica_goes_on_behind_a_snapshot(bench: Bench) -> None:
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    bench.receive("n2", frames.OFFER_SNAPSHOT, term=1, index=50)
    install(bench, 60)
    assert bench.replica.status().snapshot_source is None
    assert bench.engine.raftLastApplied == bench.engine.raftCommitIndex == 60
    assert bench.log() == [(60, 1)]
    bench.take()
    bench.append("n2", 1, (60, 1), entry(61, 1), commit=61)
    bench.tick()
    [(_, ack)] = bench.take(frames.NEXT_NODE_IDX)
    assert ack["success"]
    assert ack["next_node_idx"] == 62
    assert bench.state.applied_index == 61


def test_a_node_goes_on_voting_while_it_installs_a_snapshot(bench: Bench) -> None:
    """Its leader keeps the contact; nothing comes into a log that is to be replaced."""
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    disk, outcomes = LaterDisk(), list[object]()
    disk.install(bench)
    body, manifest = snapshot(60)
    bench.replica.snapshots.begin(manifest)
    send(bench.replica.snapshots, body, size=len(body))
    bench.replica.install(bench.replica.snapshots.complete(), outcomes.append)
    ((work, then),) = disk.waiting
    bench.take()
    # Another leader could have the entries that are missing here.
    bench.append("n3", 2, (3, 1), entry(4, 2), commit=4)
    bench.tick()
    [(leader, answer)] = bench.take(frames.NEXT_NODE_IDX)
    assert (leader, answer["success"], answer["next_node_idx"]) == ("n3", False, 4)
    work()
    bench.tick()
    assert bench.log()[-1] == (3, 1)
    assert bench.engine.raftLastApplied == 3
    bench.tick(1.0)  # It hears nothing more, and does not campaign.
    bench.tick(1.0)
    assert not bench.take(frames.PRE_VOTE)
    bench.receive("n2", frames.REQUEST_VOTE, term=3, last_log_index=60, last_log_term=2)
    [(candidate, _)] = bench.take(frames.RESPONSE_VOTE)
    assert candidate == "n2"
    assert outcomes == []
    then()
    assert outcomes == [None]
    assert bench.log() == [(60, 1)]
    bench.append("n2", 3, (60, 1), entry(61, 3), commit=61)
    bench.tick()
    assert bench.state.applied_index == 61


def test_a_candidate_does_not_win_while_it_installs_a_snapshot(bench: Bench) -> None:
    """It would add an entry to the log that is to be replaced, and stop (`Fatal`)."""
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    disk, outcomes = LaterDisk(), list[object]()
    disk.install(bench)
    entries = (entry(4, 1), entry(5, 1), entry(6, 1))
    bench.append("n2", 1, (3, 1), *entries, commit=3)
    bench.tick()
    body, manifest = snapshot(5)
    bench.replica.snapshots.begin(manifest)
    send(bench.replica.snapshots, body, size=len(body))
    complete = bench.replica.snapshots.complete()
    term = bench.campaign()
    bench.replica.install(complete, outcomes.append)
    ((work, then),) = disk.waiting
    work()
    for voter in bench.others:  # The votes were under way.
        bench.receive(voter, frames.RESPONSE_VOTE, term=term)
    bench.tick()
    assert not bench.engine.is_leader()
    then()
    assert outcomes == [None]
    assert bench.log()[0] == (5, 1)
    bench.campaign()  # It may again.


def test_what_is_committed_meanwhile_is_not_applied_to_the_new_state(
    bench: Bench,
) -> None:
    """The entry came in the same moment in which the installation began."""
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    disk, outcomes = LaterDisk(), list[object]()
    disk.install(bench)
    body, manifest = snapshot(60)
    bench.replica.snapshots.begin(manifest)
    send(bench.replica.snapshots, body, size=len(body))
    manifest = bench.replica.snapshots.complete()
    bench.append("n2", 1, (3, 1), entry(4, 1), commit=4)
    bench.replica.install(manifest, outcomes.append)
    ((work, then),) = disk.waiting
    work()
    bench.tick()
    then()
    bench.tick()
    assert outcomes == [None]
    assert bench.log() == [(60, 1)]
    assert bench.state.applied_index == 60


def test_a_refused_snapshot_leaves_the_log_as_it_is(bench: Bench) -> None:
    follow(bench, 3)
    body, manifest = snapshot(60)
    bench.replica.snapshots.begin(manifest)
    send(bench.replica.snapshots, body, size=len(body))
    manifest = bench.replica.snapshots.complete()
    bench.disk.failing = True
    with pytest.raises(SnapshotRefusedError, match="cannot be written"):
        install_now(bench, manifest)
    bench.disk.failing = False
    bench.append("n2", 1, (3, 1), entry(4, 1), commit=4)
    bench.tick()
    assert bench.state.applied_index == 4


def test_a_divergent_tail_goes_with_the_snapshot(bench: Bench) -> None:
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    tail = [entry(index, 1) for index in range(2, 80)]
    bench.append("n3", 1, (1, 0), *tail, commit=1)
    bench.tick()
    bench.append("n2", 2, (90, 2), commit=90)
    install(bench, 60, term=2)
    assert bench.log() == [(60, 2)]
    bench.tick()
    assert bench.state.applied_index == 60


@pytest.mark.parametrize("last", [3, 8, 10])
def test_a_stale_snapshot_is_refused(bench: Bench, last: int) -> None:
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 10)
    with pytest.raises(SnapshotRefusedError, match="committed here"):
        install(bench, last)
    assert bench.state.applied_index == 10
    assert bench.log()[-1] == (10, 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cluster_id": "another"}, "cluster"),
        ({"term": 9}, "term"),
    ],
)
def test_a_foreign_snapshot_is_refused(
    bench: Bench, changes: dict[str, object], why: str
) -> None:
    follow(bench, 3)
    with pytest.raises(SnapshotRefusedError, match=why):
        install(bench, 60, **changes)
    assert bench.replica.snapshots.current is None


def test_a_leader_installs_nothing(bench: Bench) -> None:
    bench.lead()
    with pytest.raises(SnapshotRefusedError, match="leads"):
        install(bench, 60)


def test_a_snapshot_that_cannot_be_written_changes_nothing(bench: Bench) -> None:
    follow(bench, 3)
    body, manifest = snapshot(60)
    bench.replica.snapshots.begin(manifest)
    send(bench.replica.snapshots, body, size=len(body))
    manifest = bench.replica.snapshots.complete()
    bench.disk.failing = True
    with pytest.raises(SnapshotRefusedError, match="cannot be written"):
        install_now(bench, manifest)
    assert bench.log()[-1] == (3, 1)
    assert bench.state.applied_index == 3


def test_a_state_that_did_not_become_the_snapshot_stops_the_node(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the journal begins behind an entry that the state has not."""
    follow(bench, 3)
    monkeypatch.setattr(RecordingState, "install", lambda _self, _where: None)
    with pytest.raises(Fatal, match="a snapshot of entry 60 has applied 3"):
        install(bench, 60)
    assert bench.log()[-1] == (3, 1)


def test_a_crash_between_state_and_journal_is_made_up_for(bench: Bench) -> None:
    """The state is the snapshot; the journal begins behind it at the next start."""
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    journal = bench.disk.read(NAME)
    install(bench, 60)
    bench.disk.names[NAME].cached[:] = journal
    bench.start()
    assert bench.log() == [(60, 1)]
    assert bench.engine.raftLastApplied == 60


def test_a_state_that_no_snapshot_explains_is_refused(bench: Bench) -> None:
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    journal = bench.disk.read(NAME)
    install(bench, 60)
    bench.append("n2", 1, (60, 1), entry(61, 1), commit=61)
    bench.tick()
    bench.disk.names[NAME].cached[:] = journal
    with pytest.raises(StartRefusedError, match="another entry 60"):
        bench.start()


def test_a_state_that_is_an_old_copy_is_refused(bench: Bench) -> None:
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    install(bench, 60)
    bench.state = RecordingState()
    with pytest.raises(StartRefusedError, match="old copy"):
        bench.start()


def keep(bench: Bench, *, index: int, length: int, sha256: bytes) -> Manifest:
    """Make the written body the newest snapshot, as the keeper does."""
    replica = bench.replica
    manifest = replica.compaction.describe(
        index=index, digest="d", length=length, sha256=sha256
    )
    replica.snapshots.adopt(manifest, WRITTEN)
    return manifest


def test_the_log_is_not_compacted_before_the_state_is_on_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    raft = dataclasses.replace(
        bench.replica.compaction.settings, log_entries_max=8, log_entries_kept=2
    )
    bench.replica.compaction.settings = raft
    follow(bench, 20)
    assert bench.replica.status().snapshot_due
    monkeypatch.setattr(RecordingState, "checkpoint", lambda _self: 0)
    manifest = manifest_of(bench.state.serialize(), bench.replica.snapshots, 20)
    kept = keep(bench, index=20, length=manifest.length, sha256=manifest.sha256)
    assert kept.term == 1
    bench.tick()
    assert bench.engine.journal.first_index == 1  # A reader is in the way.
    assert not bench.replica.status().snapshot_due
    monkeypatch.setattr(RecordingState, "checkpoint", lambda _self: 12)
    bench.tick()
    assert bench.engine.journal.first_index == 12
    monkeypatch.setattr(RecordingState, "checkpoint", lambda _self: 20)
    bench.tick()
    assert bench.engine.journal.first_index == 18
    assert not bench.replica.status().snapshot_due


def test_a_skipped_entry_leaves_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a node that joins gets the decision with the state, not the entry (E3)."""
    follow(bench, 20)
    assert not bench.replica.status().snapshot_due
    bench.state.skipped = (
        SkippedEntry(index=12, term=1, digest="ab" * 32, cluster_id="bench"),
    )
    assert bench.replica.status().snapshot_due
    monkeypatch.setattr(RecordingState, "checkpoint", lambda _self: 11)
    manifest = manifest_of(bench.state.serialize(), bench.replica.snapshots, 20)
    keep(bench, index=20, length=manifest.length, sha256=manifest.sha256)
    bench.tick()
    assert bench.engine.journal.first_index == 1
    monkeypatch.setattr(RecordingState, "checkpoint", lambda _self: 20)
    bench.tick()
    assert bench.engine.journal.first_index == 12
    assert not bench.replica.status().snapshot_due


def test_a_log_of_few_long_entries_is_long(bench: Bench) -> None:
    follow(bench, 20)
    size = bench.engine.journal.bytes
    results = []
    for most in (2 * size, size - 1):
        bench.replica.compaction.settings = dataclasses.replace(
            bench.replica.compaction.settings, log_bytes_max=most, log_bytes_kept=1
        )
        results.append(bench.replica.status().snapshot_due)
    assert results == [False, True]


def test_a_snapshot_that_is_not_newer_is_not_kept(bench: Bench) -> None:
    follow(bench, 20)
    for index, fits in ((10, True), (10, False), (9, False), (21, False)):
        manifest = manifest_of(b"body", bench.replica.snapshots, index)
        if fits:
            keep(bench, index=index, length=4, sha256=manifest.sha256)
        else:
            with pytest.raises(SnapshotRefusedError):
                keep(bench, index=index, length=4, sha256=manifest.sha256)


def test_a_node_without_its_snapshot_takes_a_new_one(bench: Bench) -> None:
    """Its log has no beginning any more, and a follower might need it."""
    bench.state.disk = bench.disk  # type: ignore[attr-defined]
    follow(bench, 3)
    install(bench, 60)
    bench.disk.names.pop(MANIFEST)
    bench.start()
    assert bench.replica.snapshots.current is None
    assert bench.replica.status().snapshot_due


class Log:
    """A log of entries of equal length."""

    entry = b""
    waiting = 0
    """How many of its entries are not applied."""

    def __init__(self, node_id: str, members: list[str]) -> None:
        self.identity = Identity("c", node_id)
        self.configuration = SimpleNamespace(ids=members)
        self.first_index = self.last_index = 1

    @property
    def applied_index(self) -> int:
        return self.last_index - self.waiting

    @property
    def bytes(self) -> int:
        return len(self) * len(self.entry)

    def __len__(self) -> int:
        return self.last_index - self.first_index + 1

    def __getitem__(self, some: slice) -> list[Entry]:
        return [(self.entry, 0, 0)] * len(range(len(self))[some])


@pytest.mark.parametrize("node_id", ["n1", "n2", "n3"])
def test_entries_that_wait_to_be_applied_make_no_snapshot_due(node_id: str) -> None:
    """A member that catches up would take one after another: none covers them."""
    raft = RaftSettings()
    log = Log(node_id, ["n1", "n2", "n3"])
    compaction = compaction_of(log, raft)
    log.last_index = 2 * raft.log_entries_max
    log.waiting = log.last_index - raft.log_entries_kept
    log.entry = bytes(raft.log_bytes_kept // raft.log_entries_kept)
    assert log.bytes > raft.log_bytes_max
    assert not compaction._is_its_turn()
    log.waiting = raft.log_entries_max // 2
    assert compaction._is_its_turn()


def compaction_of(log: Log, raft: RaftSettings) -> Compaction:
    """Return the snapshots of a member that n1 leads."""
    store: Any = SimpleNamespace(current=SimpleNamespace(index=1))
    journal: Any = log
    return Compaction("c", store, journal, journal, raft, lambda: "n1")


@pytest.mark.parametrize("node_id", ["n1", "n2", "n3"])
def test_turns_go_by_the_applied_entries(node_id: str) -> None:
    """Otherwise a member that lags takes its snapshots in the turns of others."""
    raft = RaftSettings()
    turns: list[list[int]] = []
    for waiting in (0, 300):
        log = Log(node_id, ["n1", "n2", "n3"])
        log.waiting = waiting
        compaction = compaction_of(log, raft)
        turns.append([])
        for applied in range(2, 30_000):
            log.last_index = applied + waiting
            if compaction._is_its_turn():
                turns[-1].append(applied)
                log.first_index = applied - raft.log_entries_kept
    on_time, late = turns
    assert len(on_time) > 2
    assert late == on_time


@dataclasses.dataclass
class Turn:
    """A member whose log grows, and which takes a snapshot when it is due."""

    compaction: Compaction
    busy_until: int = 0
    taken: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("members", [3, 9])
def test_members_take_snapshots_in_turns(members: int) -> None:
    """Never two at once, if one takes less than half a turn; the primary is last."""
    ids = [f"n{k + 1}" for k in range(members)]
    raft, lasts = RaftSettings(), 50

    def member(node_id: str) -> Turn:
        log = Log(node_id, ids)
        store: Any = SimpleNamespace(current=None)
        state: Any = log
        return Turn(Compaction("c", store, log, state, raft, lambda: "n1"))  # type: ignore[arg-type]

    cluster = [member(each) for each in ids]
    for index in range(2, 40_000):
        for each in cluster:
            log, store = each.compaction.journal, each.compaction.store
            log.last_index = index  # type: ignore[misc]
            if each.busy_until == index:
                store.current = SimpleNamespace(index=index - lasts)  # type: ignore[assignment]
                log.first_index = index - raft.log_entries_kept  # type: ignore[misc]
                each.busy_until = 0
            elif not each.busy_until and each.compaction._is_its_turn():
                each.busy_until = index + lasts
                each.taken.append(index)
            assert len(log) <= raft.log_entries_max + lasts
        if index % 10 == 0:
            assert sum(each.busy_until > 0 for each in cluster) < 2
    leader, *followers = cluster
    assert all(len(each.taken) > 3 for each in cluster)
    assert all(each.taken[0] < leader.taken[0] for each in followers)
