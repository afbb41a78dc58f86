# SPDX-License-Identifier: Apache-2.0
"""A disk that becomes full while a sealed segment is stored (U1)."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.sealed_events import SealedEvents, open_log
from sparecode_node.statemachine.tables import segments
from tests.fault_points.strikes import Action, actions_at
from tests.statemachine.full_disk import failures
from tests.statemachine.test_snapshots import FileWorld

EVENTS = 300
"""Of a segment in these tests: some pages."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileWorld]:
    """Return a cluster with one sealed segment, which no file has."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    world = FileWorld(tmp_path / "state.db")
    sealed_events.create(world.path)
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    for number in range(EVENTS):
        world.handle("create-user", {"name": f"user-{number}"})
    yield world
    world.db.close()


def events(world: FileWorld) -> list[tuple[object, ...]]:
    """Return what readers see."""
    with contextlib.closing(open_log(world.path)) as log:
        return log.execute("SELECT * FROM audit_events ORDER BY sequence").fetchall()


def stored(world: FileWorld) -> dict[int, bytes]:
    """Return what another process finds in the file, proved again."""
    with contextlib.closing(SealedEvents(world.path)) as file:
        for segment in file.segments():
            file.verify(segment)
        return dict(file.stored())


def test_a_segment_counts_as_stored_only_after_every_write(
    world: FileWorld, tmp_path: Path
) -> None:
    """(U1) Whether an insert, the commit or the checkpoint finds the disk full."""
    before = events(world)
    lines = failures("store", world.path, tmp_path)
    assert {error for _, error, _ in lines} == {"database or disk is full"}
    assert {counts for _, _, counts in lines} == {"False"}
    failed = {statement for statement, _, _ in lines}
    assert failed >= {"INSERT INTO", "COMMIT", "PRAGMA wal_checkpoint(PASSIVE)"}
    assert events(world) == before
    segment = segments.all_sealed(world.db)[0]
    assert stored(world) == {segment.number: segment.hash_after}


def test_a_failed_commit_of_a_segment_leaves_the_file_as_it_was(
    world: FileWorld,
) -> None:
    """(U1) The error is told, and the next attempt stores the segment."""
    assert Action.ERROR in actions_at(Point.SEGMENT_COMMIT)

    def fail(point: Point) -> None:
        if point is Point.SEGMENT_COMMIT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = events(world)
    segment = segments.all_sealed(world.db)[0]
    with contextlib.closing(SealedEvents(world.path)) as file:
        hook = fault_points.install(fail)
        try:
            with pytest.raises(OSError, match="No space left"):
                file.store_from_state(segment, iter)
        finally:
            fault_points.install(hook)
        assert not file._db.in_transaction
        assert file.stored() == {}
        rows = file._db.execute("SELECT count(*) FROM audit_events").fetchone()
        assert rows == (0,)
        file.store_from_state(segment, iter)
    assert events(world) == before
    assert stored(world) == {segment.number: segment.hash_after}


def test_a_rotten_segment_stays_uncounted_although_the_disk_is_full(
    world: FileWorld,
) -> None:
    """(U1) What cannot be written down is found again at the next look."""
    segment = segments.all_sealed(world.db)[0]
    with contextlib.closing(SealedEvents(world.path)) as file:
        file.store_from_state(segment, iter)
        file._db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 3")
        (pages,) = file._db.execute("PRAGMA page_count").fetchone()
        file._db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        with pytest.raises(sealed_events.SegmentError):
            file.verify(segment)
        assert file.stored() == {}
        with pytest.raises(sqlite3.OperationalError, match="disk is full"):
            file._db.execute("INSERT INTO stored_segments VALUES (9, zeroblob(99999))")
