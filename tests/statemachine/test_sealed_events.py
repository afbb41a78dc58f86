# SPDX-License-Identifier: Apache-2.0
"""Sealed segments of the audit log: rows in the state, events in a file of each node (U1)."""

import contextlib
import functools
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent
from sparecode_node.services.files import backup_verification
from sparecode_node.services.files.backup_files import BackupFileError
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.sealed_events import (
    SealedEvents,
    file_of,
    lines_of,
    open_log,
)
from sparecode_node.statemachine.segment_chain import SegmentError, event_in
from sparecode_node.statemachine.snapshots import (
    install_snapshot,
    read_facts,
    write_snapshot,
    write_state_alone,
    write_whole,
)
from sparecode_node.statemachine.tables import segments
from sparecode_node.statemachine.tables.segments import Segment
from tests.databases import WithoutLog
from tests.statemachine.test_snapshots import FileWorld
from tests.statemachine.world import World

EVENTS = 5
"""Of a segment in these tests."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(audit, "DISCARDED_MAX", 3)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FileWorld]:
    """Return a cluster of level 2 with a file for sealed events."""
    world = FileWorld(tmp_path / "state.db")
    sealed_events.create(world.path)
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    yield world
    world.db.close()


@pytest.fixture
def file(world: FileWorld) -> Iterator[SealedEvents]:
    with contextlib.closing(SealedEvents(world.path)) as file:
        yield file


def live(world: World, events: int) -> None:
    for number in range(events):
        world.handle("wait", {"1m": "yes"})
        world.handle("create-user", {"name": f"user-{world.index}-{number}"})


def sealed(world: World) -> tuple[Segment, ...]:
    return segments.all_sealed(world.db)


def sequences(db: sqlite3.Connection) -> list[int]:
    rows = db.execute("SELECT sequence FROM audit_events ORDER BY sequence")
    return [sequence for (sequence,) in rows]


def head(world: World) -> int:
    return sequences(world.db)[-1]


def up_to(segment: Segment, first: int = 1) -> Stored:
    return Stored(segment=segment, first=first)


def store_all(world: World, file: SealedEvents) -> None:
    for segment in sealed(world):
        file.store_from_state(segment, iter)


def log_of(world: FileWorld) -> list[tuple[object, ...]]:
    """Return what readers see."""
    with contextlib.closing(open_log(world.path)) as log:
        return log.execute("SELECT * FROM audit_events ORDER BY sequence").fetchall()


# --- Sealing


def test_each_segment_continues_the_chain_of_the_one_before(world: FileWorld) -> None:
    """(U1) Their rows hold the sequence numbers, times and hashes of their events."""
    live(world, 3 * EVENTS)
    made = sealed(world)
    assert [each.number for each in made] == list(range(1, len(made) + 1))
    assert made[0].hash_before == GENESIS_HASH
    for before, after in itertools.pairwise(made):
        assert after.hash_before == before.hash_after
        assert after.first_sequence == before.last_sequence + 1
    for each in made:
        assert each.events == EVENTS
        assert world.db.execute(
            "SELECT at_ms, hash FROM audit_events WHERE sequence = ?",
            (each.last_sequence,),
        ).fetchone() == (each.last_at_ms, each.hash_after)
    assert head(world) - made[-1].last_sequence < EVENTS


def test_below_level_2_nothing_is_sealed_and_then_one_segment_with_each_event() -> None:
    """A log of years is sealed without a pause, oldest first."""
    world = World()
    world.begin()
    live(world, 4 * EVENTS)
    assert sealed(world) == ()
    world.handle("raise-feature-level", {"level": "2"})
    counts = [len(sealed(world))]
    while head(world) - (EVENTS * counts[-1]) >= EVENTS:
        live(world, 1)
        counts.append(len(sealed(world)))
    assert len(counts) > 3
    assert counts == list(range(counts[0], counts[0] + len(counts)))
    assert world.replayed().machine.digest() == world.machine.digest()


# --- Digest and discarding


def test_a_node_that_discards_has_the_digest_of_one_that_does_not(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U1, U5) Also during it, and after a restart."""
    live(world, 3 * EVENTS)
    store_all(world, file)
    world.machine.stored = up_to(sealed(world)[-1])
    before = sequences(world.db)
    for _ in range(len(before)):
        live(world, 1)
        assert world.replayed().machine.digest() == world.machine.digest()
    assert sequences(world.db)[0] > before[0] + 2 * EVENTS
    world.machine.reload()
    assert world.replayed().machine.digest() == world.machine.digest()


def test_a_state_of_years_has_no_more_events_than_a_young_one(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U5) Apart from the last events, a segment of the log leaves one row."""
    sizes: list[int] = []
    stored: set[int] = set()
    for _ in range(10):
        live(world, EVENTS)
        for segment in sealed(world):
            if segment.number not in stored:
                file.store_from_state(segment, iter)
                stored.add(segment.number)
        world.machine.stored = up_to(sealed(world)[-1])
        for _ in range(EVENTS):
            world.handle("barrier", {})
        sizes.append(len(sequences(world.db)))
    assert max(sizes) <= 2 * EVENTS
    assert len(sealed(world)) >= 10
    assert len(log_of(world)) == head(world), "nothing is lost"


def test_the_digest_tells_of_open_events_and_of_segments(world: FileWorld) -> None:
    """What is left of a sealed event is its segment's hash."""
    live(world, 2 * EVENTS)
    was = world.machine.digest()
    world.db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 1")
    assert world.machine.digest() == was
    world.db.execute("UPDATE audit_segments SET hash_after = x'00' WHERE number = 1")
    assert world.machine.digest() != was
    now = world.machine.digest()
    world.db.execute(
        "UPDATE audit_events SET detail = 'x' WHERE sequence = ?", (head(world),)
    )
    assert world.machine.digest() != now


def test_an_entry_discards_only_a_few_events_and_never_one_that_is_not_stored(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U5) No answer waits for it. The newest event stays: the chain goes on from it."""
    live(world, EVENTS)
    while (head(world) + 1) % EVENTS:
        live(world, 1)
    live(world, 1)
    assert head(world) == sealed(world)[-1].last_sequence
    first = sealed(world)[0]
    file.store_from_state(first, iter)
    world.machine.stored = up_to(first)
    world.handle("barrier", {})
    assert sequences(world.db)[0] == 1 + audit.DISCARDED_MAX
    for _ in range(EVENTS):
        world.handle("barrier", {})
    assert sequences(world.db)[0] == first.last_sequence + 1
    for segment in sealed(world)[1:]:
        file.store_from_state(segment, iter)
    world.machine.stored = up_to(sealed(world)[-1])
    for _ in range(head(world)):
        world.handle("barrier", {})
    assert sequences(world.db) == [sealed(world)[-1].last_sequence]
    world.machine.reload()
    live(world, EVENTS)
    assert world.replayed().machine.digest() == world.machine.digest()


def test_what_is_stored_of_another_history_discards_nothing(world: FileWorld) -> None:
    """A snapshot of a recovered cluster may replace the state at any moment."""
    live(world, 2 * EVENTS)
    world.machine.stored = up_to(replace(sealed(world)[-1], hash_after=bytes(32)))
    world.handle("barrier", {})
    assert sequences(world.db)[0] == 1


def test_a_snapshot_may_bring_older_events_that_the_file_lacks(
    world: FileWorld,
) -> None:
    """A node that fetched newer segments keeps them until the file has them, too."""
    live(world, 3 * EVENTS)
    second = sealed(world)[1]
    world.machine.stored = up_to(second, first=second.first_sequence)
    world.handle("barrier", {})
    assert sequences(world.db)[0] == 1
    world.machine.stored = up_to(second, first=1)
    world.handle("barrier", {})
    assert sequences(world.db)[0] > 1


# --- The file


def test_readers_see_one_log_before_during_and_after(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U1) Nothing is missing, and nothing is there twice."""
    live(world, 3 * EVENTS)
    whole = log_of(world)
    store_all(world, file)
    assert log_of(world) == whole
    world.machine.stored = up_to(sealed(world)[-1])
    for _ in range(len(whole)):
        world.handle("barrier", {})
        assert log_of(world) == whole
    assert len(sequences(world.db)) < EVENTS + 1


def test_a_reader_that_began_before_sees_what_was_discarded_since(
    world: FileWorld, file: SealedEvents
) -> None:
    live(world, 2 * EVENTS)
    with contextlib.closing(open_log(world.path)) as log:
        log.execute("BEGIN")
        log.execute("SELECT 1 FROM main.meta").fetchone()
        count = len(sequences(world.db))
        store_all(world, file)
        world.machine.stored = up_to(sealed(world)[-1])
        for _ in range(count):
            world.handle("barrier", {})
        assert sequences(log) == list(range(1, count + 1))


def test_a_stopped_node_of_level_1_has_a_log(tmp_path: Path) -> None:
    """Its tables have the columns of level 1, and those of the file are others."""
    world = FileWorld(tmp_path / "state.db")
    sealed_events.create(world.path)
    world.begin()
    whole = sequences(world.db)
    world.machine.rest()
    with contextlib.closing(open_log(world.path)) as log:
        assert sequences(log) == whole != []
    world.db.close()


def test_a_step_that_is_repeated_stores_the_same(
    world: FileWorld, file: SealedEvents
) -> None:
    """A crash may come at any moment."""
    live(world, EVENTS)
    store_all(world, file)
    before = log_of(world)
    store_all(world, file)
    assert file.stored() == {each.number: each.hash_after for each in sealed(world)}
    assert log_of(world) == before


def changed(events: list[AuditEvent]) -> list[AuditEvent]:
    return [*events[:-1], replace(events[-1], detail="another")]


@pytest.mark.parametrize(
    "falsified",
    [
        changed,
        lambda events: events[:-1],
        lambda events: events[1:],
        lambda events: [*events, replace(events[-1], sequence=events[-1].sequence + 1)],
        lambda events: [events[1], events[0], *events[2:]],
        lambda _: [],
    ],
    ids=["other words", "fewer", "a later start", "more", "another order", "none"],
)
def test_only_the_segment_s_own_events_are_stored(
    world: FileWorld,
    file: SealedEvents,
    falsified: Callable[[list[AuditEvent]], Iterable[AuditEvent]],
) -> None:
    """(U1) A member that sends others is found out, and what was stored stays."""
    live(world, 2 * EVENTS)
    first, second, *_ = sealed(world)
    file.store_from_state(first, iter)
    lines = lines_of(world.path, second.number, second.hash_after, skip=0, most=99)
    assert lines is not None
    events = [event_in(line) for line in lines.splitlines()]
    with pytest.raises(SegmentError):
        file.store(second, falsified(events))
    assert set(file.stored()) == {first.number}
    file.store(second, events)
    assert set(file.stored()) == {first.number, second.number}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit_events SET detail = 'x' WHERE sequence = 2",
        "UPDATE audit_events SET hash = zeroblob(32) WHERE sequence = 2",
        "DELETE FROM audit_events WHERE sequence = 2",
        # One bit can make bytes that are no UTF-8, or a value of another kind.
        "UPDATE audit_events SET detail = CAST(x'ff' AS TEXT) WHERE sequence = 2",
        "UPDATE audit_events SET detail = x'78' WHERE sequence = 2",
    ],
)
def test_a_rotten_segment_counts_as_missing(
    world: FileWorld, file: SealedEvents, damage: str
) -> None:
    """Then it is fetched again."""
    live(world, 2 * EVENTS)
    store_all(world, file)
    first, *others = sealed(world)
    for change in (
        # A disk that rots does not ask for the types of the columns.
        "UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '')",
        damage,
    ):
        with contextlib.closing(sqlite3.connect(file_of(world.path))) as db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute(change)
            db.commit()
    with pytest.raises(SegmentError):
        file.verify(first)
    assert set(file.stored()) == {each.number for each in others}


def test_a_segment_that_the_disk_cannot_read_counts_as_missing(
    world: FileWorld, file: SealedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports a bad sector as it does a full disk, but for the code."""
    live(world, EVENTS)
    store_all(world, file)
    (segment, *_) = sealed(world)

    def fails_with(error: sqlite3.DatabaseError, code: int) -> Callable[..., None]:
        def read(*_: object) -> None:
            error.sqlite_errorcode = code
            raise error

        return read

    full = fails_with(sqlite3.OperationalError("disk is full"), sqlite3.SQLITE_FULL)
    monkeypatch.setattr(sealed_events, "prove", full)
    with pytest.raises(sqlite3.OperationalError):
        file.verify(segment)
    assert segment.number in file.stored()
    for error, code in (
        (sqlite3.OperationalError("disk I/O error"), sqlite3.SQLITE_IOERR_READ),
        # Inside SQLite: SQLITE_IOERR_CORRUPTFS.
        (sqlite3.DatabaseError("image is malformed"), sqlite3.SQLITE_CORRUPT),
    ):
        monkeypatch.setattr(sealed_events, "prove", fails_with(error, code))
        with pytest.raises(SegmentError, match="cannot read"):
            file.verify(segment)
        assert segment.number not in file.stored()
        monkeypatch.undo()
        file.verify(segment)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{}", b'{"sequence": 1}', b"[" * 100_000, b"\xff"],
)
def test_a_line_that_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(SegmentError):
        event_in(line)


def test_a_number_that_is_a_text_is_no_event(world: FileWorld) -> None:
    """It would have the same canonical form under another type."""
    live(world, EVENTS)
    first = sealed(world)[0]
    lines = lines_of(world.path, first.number, first.hash_after, skip=0, most=1)
    assert lines is not None
    assert event_in(lines).sequence == 1
    with pytest.raises(SegmentError):
        event_in(lines.replace(b'"sequence":1', b'"sequence":"1"'))
    with pytest.raises(SegmentError):
        event_in(lines.replace(b'"sequence":1', b'"sequence":true'))


def test_a_segment_is_lent_in_parts_and_only_if_the_chain_is_the_same(
    world: FileWorld, file: SealedEvents
) -> None:
    live(world, 2 * EVENTS)
    store_all(world, file)
    _, second, *_ = sealed(world)

    def part(
        skip: int, number: int = 2, chain: bytes = second.hash_after
    ) -> bytes | None:
        return lines_of(world.path, number, chain, skip=skip, most=2)

    parts = [part(skip) for skip in (0, 2, 4, 6)]
    assert [None if each is None else each.count(b"\n") for each in parts] == [
        2,
        2,
        1,
        0,
    ]
    assert part(0, chain=bytes(32)) is None
    assert part(0, number=99) is None
    assert part(-1) is None


def test_a_damaged_file_is_put_aside(world: FileWorld) -> None:
    """The node starts, and fetches what the file had."""
    path = file_of(world.path)
    path.write_bytes(b"not a database" * 1000)
    sealed_events.create(world.path)
    with contextlib.closing(SealedEvents(world.path)) as file:
        assert file.stored() == {}
    assert path.with_name(f"{path.name}.damaged-1").exists()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_log_of_the_file_is_written_again_at_the_start(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U1) After a failed sync, its pages may be readable and on no disk."""
    live(world, 2 * EVENTS)
    store_all(world, file)
    log = Path(f"{file_of(world.path)}-wal")
    content = log.read_bytes()
    assert content
    os.utime(log, ns=(0, 0))
    sealed_events.create(world.path)
    assert log.stat().st_mtime_ns > 0
    assert log.read_bytes() == content


def test_nothing_of_a_damaged_file_is_deleted(world: FileWorld) -> None:
    """It may be the only copy: of a node that is alone."""
    path = file_of(world.path)
    log = path.with_name(f"{path.name}-wal")
    for number in (1, 2):
        content = b"not a database %d" % number * 1000
        path.write_bytes(content)
        log.write_bytes(content)
        sealed_events.put_aside(world.path)
        damaged = path.with_name(f"{path.name}.damaged-{number}")
        assert damaged.read_bytes() == content
        assert damaged.with_name(f"{damaged.name}-wal").read_bytes() == content


def test_a_file_that_gets_no_write_ahead_log_is_not_put_aside(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is sound; a start in which the disk works takes it."""
    connect = functools.partial(sqlite3.connect, factory=WithoutLog)
    file_of(world.path).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        with pytest.raises(sqlite3.OperationalError, match="no write-ahead log"):
            sealed_events.create(world.path)
    sealed_events.create(world.path)
    assert not sealed_events.put_aside_files(world.path)


def test_a_full_disk_does_not_put_the_file_aside(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sealed_events, "_open", fail)
    with pytest.raises(sqlite3.OperationalError):
        sealed_events.create(world.path)
    assert list(world.path.parent.glob("*.damaged*")) == []


# --- Snapshots and backups


def test_a_snapshot_leaves_out_what_is_stored_and_a_backup_does_not(
    world: FileWorld, file: SealedEvents, tmp_path: Path
) -> None:
    """Both have the same index and digest."""
    live(world, 4 * EVENTS)
    whole = sequences(world.db)
    store_all(world, file)
    world.machine.stored = up_to(sealed(world)[-1])
    for _ in whole:
        world.handle("barrier", {})
    write_snapshot(world.path, tmp_path / "snapshot")
    assert (
        read_facts(tmp_path / "snapshot")
        == write_whole(world.path, tmp_path / "whole")
        == read_facts(tmp_path / "whole")
    )
    for name, expected in (("snapshot", sequences(world.db)), ("whole", whole)):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as copy:
            assert sequences(copy) == expected
    assert not list(tmp_path.glob("whole-*"))


def test_a_backup_leaves_out_a_segment_that_is_not_whole(
    world: FileWorld, file: SealedEvents, tmp_path: Path
) -> None:
    """Its chain can then be verified around the gap."""
    live(world, 4 * EVENTS)
    whole = sequences(world.db)
    store_all(world, file)
    world.machine.stored = up_to(sealed(world)[0])
    world.handle("barrier", {})
    assert 1 < sequences(world.db)[0] <= EVENTS
    with contextlib.closing(sqlite3.connect(file_of(world.path))) as db:
        db.execute("DELETE FROM stored_segments WHERE number = 1")
        db.commit()
    facts = write_whole(world.path, tmp_path / "whole")
    assert facts.digest == world.machine.digest()
    with contextlib.closing(sqlite3.connect(tmp_path / "whole")) as copy:
        assert sequences(copy) == whole[EVENTS:]


def test_a_state_alone_has_no_part_of_a_segment(
    world: FileWorld, file: SealedEvents, tmp_path: Path
) -> None:
    """Its digest is that of the state, with whatever has been discarded."""
    live(world, 4 * EVENTS)
    store_all(world, file)
    world.machine.stored = up_to(sealed(world)[0])
    world.handle("barrier", {})
    assert 1 < sequences(world.db)[0] <= EVENTS
    facts = write_state_alone(world.path, tmp_path / "alone")
    assert facts.digest == world.machine.digest()
    last = sealed(world)[-1].last_sequence
    with contextlib.closing(sqlite3.connect(tmp_path / "alone")) as copy:
        assert sequences(copy) == [
            each for each in sequences(world.db) if each > last or each == head(world)
        ]


def test_the_newest_event_may_end_a_missing_segment(
    world: FileWorld, tmp_path: Path
) -> None:
    """It stays in the state when its segment is discarded, and is no broken chain."""
    live(world, EVENTS)
    while head(world) % EVENTS:
        live(world, 1)
    end = sealed(world)[-1]
    assert head(world) == end.last_sequence
    world.db.execute("DELETE FROM audit_events WHERE sequence < ?", (head(world),))
    write_whole(world.path, tmp_path / "whole")
    manifest: Any = SimpleNamespace(
        audit_sequence=end.last_sequence, audit_head=end.hash_after.hex()
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "whole")) as db:
        assert sequences(db) == [end.last_sequence]
        backup_verification._check_audit(tmp_path / "whole", db, manifest)
        db.execute("UPDATE audit_events SET hash = zeroblob(32)")
        with pytest.raises(BackupFileError):
            backup_verification._check_audit(tmp_path / "whole", db, manifest)


def test_a_restored_state_stores_its_events_again(
    world: FileWorld, file: SealedEvents, tmp_path: Path
) -> None:
    """A backup has them in the state; no file comes with it."""
    live(world, 4 * EVENTS)
    store_all(world, file)
    world.machine.stored = up_to(sealed(world)[-1])
    for _ in range(4 * EVENTS):
        world.handle("barrier", {})
    expected = log_of(world)
    write_whole(world.path, tmp_path / "whole")
    other = FileWorld(tmp_path / "other.db")
    sealed_events.create(other.path)
    install_snapshot(other.db, tmp_path / "whole")
    other.machine.reload()
    with contextlib.closing(SealedEvents(other.path)) as others:
        store_all(other, others)
        other.machine.stored = up_to(sealed(other)[-1])
        other.index = world.index
        for _ in expected:
            other.handle("barrier", {})
        assert log_of(other) == expected
        assert len(sequences(other.db)) < EVENTS + 1
    other.db.close()


# --- Death at each step


def dies_at(step: int, world: FileWorld, segment: Segment) -> bool:
    """Store a segment in a process that dies at a statement; return whether it did."""
    child = os.fork()
    if not child:
        file = SealedEvents(world.path)
        steps = itertools.count(1)

        def traced(_: str) -> None:
            if next(steps) == step:
                os._exit(9)

        file._db.set_trace_callback(traced)
        file.store_from_state(segment, iter)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9


def test_a_node_that_dies_at_any_step_loses_and_claims_nothing(
    tmp_path: Path, world: FileWorld
) -> None:
    """(U1) What counts as stored is whole in the file; the state has all until then."""
    live(world, 2 * EVENTS)
    segment = sealed(world)[0]
    before = log_of(world)
    step = 0
    died = True
    while died:
        step += 1
        file_of(world.path).unlink()
        for end in ("-wal", "-shm"):
            file_of(world.path).with_name(f"{file_of(world.path).name}{end}").unlink(
                missing_ok=True
            )
        sealed_events.create(world.path)
        died = dies_at(step, world, segment)
        sealed_events.create(world.path)  # As the next start does.
        with contextlib.closing(SealedEvents(world.path)) as file:
            counted = file.stored()
            assert log_of(world) == before
            assert lines_of(world.path, 1, segment.hash_after, skip=0, most=99)
            if counted:
                file.verify(segment)
                world.machine.stored = up_to(segment)
            else:
                file.store_from_state(segment, iter)
            assert file.stored() == {1: segment.hash_after}
            file.verify(segment)
    assert step > EVENTS, "it died at each statement"


def test_a_rotten_event_takes_no_other_one_with_it(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U1) This may be the only node: nine of ten events are better than none."""
    live(world, 2 * EVENTS)
    segment = sealed(world)[0]
    file.store_from_state(segment, iter)
    file._db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 3")
    with pytest.raises(SegmentError):
        file.verify(segment)
    assert file.stored() == {}
    rows = file._db.execute("SELECT count(*) FROM audit_events").fetchone()
    assert rows == (EVENTS,)
    file.store_from_state(segment, iter)
    assert file.stored() == {1: segment.hash_after}


def test_other_events_never_replace_those_of_the_file(
    world: FileWorld, file: SealedEvents
) -> None:
    """(U1) A lying member must not have a rotten segment replaced by nothing."""
    live(world, 2 * EVENTS)
    segment = sealed(world)[0]
    file.store_from_state(segment, iter)
    with pytest.raises(SegmentError):
        file.store(segment, [])
    assert file.stored() == {1: segment.hash_after}
    file.verify(segment)


@pytest.mark.parametrize("change", [{"detail": "\ud800"}, {"at_ms": 2**64}])
def test_a_value_that_sqlite_cannot_hold_is_refused_as_any_other_lie(
    world: FileWorld, file: SealedEvents, change: dict[str, Any]
) -> None:
    """(U1) JSON can hold it. One lying member must not stop the node that asks it."""
    live(world, 2 * EVENTS)
    segment = sealed(world)[0]
    lines = lines_of(world.path, segment.number, segment.hash_after, skip=0, most=99)
    assert lines is not None
    first, *others = map(event_in, lines.splitlines())
    with pytest.raises(SegmentError):
        file.store(segment, [replace(first, **change), *others])
    assert file.stored() == {}


def test_a_damaged_file_is_found_and_put_aside_at_the_next_start(
    world: FileWorld,
) -> None:
    live(world, 2 * EVENTS)
    with contextlib.closing(SealedEvents(world.path)) as file:
        store_all(world, file)
        file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert sealed_events.find_damage(world.path) == ""
    path = file_of(world.path)
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[8192:size] = b"\x55" * (size - 8192)
    path.write_bytes(content)
    assert sealed_events.find_damage(world.path) != ""
    sealed_events.create(world.path)
    with contextlib.closing(SealedEvents(world.path)) as file:
        assert file.stored() == {}
        store_all(world, file)
    assert path.with_name(f"{path.name}.damaged-1").exists()
    sealed_events.create(world.path)
    assert not path.with_name(f"{path.name}.damaged-2").exists()
