# SPDX-License-Identifier: Apache-2.0
"""A damaged file of sealed events is put aside, at whichever step a node ends (U1)."""

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from sparecode_node.statemachine import audit, damaged_files, sealed_events
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.sealed_events import (
    SealedEvents,
    events_in,
    file_of,
    find_damage,
    open_log,
    put_aside,
    put_aside_files,
)
from sparecode_node.statemachine.segment_chain import SegmentError
from sparecode_node.statemachine.tables import segments
from tests.fault_points.strikes import Action, actions_at
from tests.statemachine.segment_folder import (
    STATE,
    WATCHED,
    SegmentFolder,
    copies_of,
)
from tests.statemachine.test_snapshots import FileWorld

EVENTS, SEALED = 40, 4
"""Of a segment, and segments. The file has the first three, its log alone the last one."""


@pytest.fixture(params=["page", "header"])
def node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """Return the folder of a node that is alone, whose file has one damaged page."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    folder, image = tmp_path / "node", tmp_path / "image"
    folder.mkdir()
    world = FileWorld(folder / STATE)
    sealed_events.create(world.path)
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    for number in range(SEALED * EVENTS):
        world.handle("create-user", {"name": f"user-{number}"})
    with (
        contextlib.closing(SealedEvents(world.path)) as file,
        contextlib.closing(open_log(world.path)) as reader,
    ):
        *early, last = file.segments()[:SEALED]
        for segment in early:
            file.store_from_state(segment, iter)
        reader.execute("BEGIN")  # Lets no checkpoint copy what is stored from now on.
        reader.execute("SELECT count(*) FROM sealed.audit_events").fetchone()
        file.store_from_state(last, iter)
        world.machine.stored = Stored(segment=last, first=1)
        for _ in range(SEALED * EVENTS):
            world.handle("barrier", {})
        world.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shutil.copytree(folder, image, ignore=shutil.ignore_patterns("*-shm"))
    world.db.close()
    spoil(image / STATE, whole=request.param == "header")
    return image


def spoil(state: Path, *, whole: bool) -> None:
    """Overwrite a page with events of the second segment, or also the header of the file."""
    file = file_of(state)
    with contextlib.closing(sqlite3.connect(state)) as db:
        segment = segments.find(db, 2)
    assert segment is not None
    content = bytearray(file.read_bytes())
    at = content.index(f"user-{EVENTS + EVENTS // 2}".encode()) // 4096 * 4096
    content[at : at + 4096] = bytes(4096)
    if whole:
        content[:16] = bytes(16)
    file.write_bytes(content)


def start(state: Path) -> list[int]:
    """Start as a node does, look for damage, and recover; return what is lacking."""
    sealed_events.create(state)
    return replace(state) if find_damage(state) else recover(state)


def replace(state: Path) -> list[int]:
    """Replace the file as a running node does, whose readers have it open."""
    with contextlib.closing(open_log(state)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM stored_segments").fetchone()
        put_aside(state)
        sealed_events.create(state)
    return recover(state)


def recover(state: Path) -> list[int]:
    """
    Store again what files put aside have; return what is lacking.

    These are named, and come from other members.
    """
    lacking = []
    with contextlib.closing(SealedEvents(state)) as file:
        for segment in file.segments()[:SEALED]:
            with contextlib.suppress(SegmentError):
                file.verify(segment)
                continue
            for aside in put_aside_files(state):
                with contextlib.suppress(SegmentError, sqlite3.DatabaseError):
                    file.store(segment, events_in(aside, segment))
                    break
            else:
                lacking.append(segment.number)
    return lacking


def proved(state: Path) -> list[int]:
    """Return the segments that count as stored, each of which is read and proved."""
    with contextlib.closing(SealedEvents(state)) as file:
        for segment in file.segments():
            if segment.number in file.stored():
                file.verify(segment)
        return sorted(file.stored())


@pytest.fixture
def folders(node: Path, tmp_path: Path) -> Iterator[Iterator[SegmentFolder]]:
    with copies_of(node, tmp_path / "copy") as copies:
        yield copies


def test_all_but_the_damaged_segment_is_recovered(node: Path) -> None:
    """(U1) Also what only the write-ahead log has."""
    lacking = replace(node / STATE)
    assert 2 in lacking
    assert SEALED not in lacking
    assert sorted([*proved(node / STATE), *lacking]) == list(range(1, SEALED + 1))


@WATCHED
@pytest.mark.parametrize("end", ["kill", "power cut", "failed call"])
def test_a_node_that_ends_at_any_call_recovers_what_another_one_would(
    node: Path, folders: Iterator[SegmentFolder], end: str
) -> None:
    """(U1) A lone node has no other copy. Every segment is proved in the end, or named."""
    lacking = replace(next(folders).state)
    for calls, folder in enumerate(folders):
        struck = folder.run(replace, calls=calls, kills=end != "failed call")
        if end == "power cut":
            folder.lose_power()
        assert start(folder.state) == lacking, f"after {calls} calls"
        whole = [each for each in range(1, SEALED + 1) if each not in lacking]
        assert proved(folder.state) == whole
        if not struck:
            break
    assert calls > 100, "it ended at each call"


@WATCHED
@pytest.mark.parametrize("action", [Action.KILL, Action.POWER])
def test_a_death_between_the_names_takes_no_segment_with_it(
    node: Path, folders: Iterator[SegmentFolder], action: Action
) -> None:
    """(U1) Also if it comes again, at the next start."""
    lacking = replace(next(folders).state)
    folder = next(folders)
    for work in (replace, start, start):
        folder.strike(Point.SEGMENT_ASIDE, action, work)
    sealed_events.create(folder.state)
    aside = [each.name for each in put_aside_files(folder.state)]
    assert aside == [f"{file_of(folder.state).name}.damaged-1"], "before it is used"
    assert start(folder.state) == lacking
    assert SEALED in proved(folder.state)


def test_a_failure_between_the_names_is_tried_again(node: Path) -> None:
    """(U1) By the same process, as for a disk that was full."""
    assert Action.ERROR in actions_at(Point.SEGMENT_ASIDE)
    state = node / STATE

    def fail(point: Point) -> None:
        if point is Point.SEGMENT_ASIDE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    hook = fault_points.install(fail)
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                put_aside(state)
    finally:
        fault_points.install(hook)
    start(state)
    assert SEALED in proved(state)


def test_a_name_is_on_disk_before_the_next_one_changes(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1) Some file systems put names on the disk in another order."""
    did: list[str] = []
    rename, sync = Path.rename, damaged_files.sync_directory

    def renamed(path: Path, target: str | Path) -> Path:
        did.append(f"{path.name} {Path(target).name}")
        return rename(path, target)

    def synced(path: Path) -> None:
        did.append("sync")
        sync(path)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(damaged_files, "sync_directory", synced)
    put_aside(node / STATE)
    name = file_of(node / STATE).name
    assert did == [
        f"{name}-wal {name}.damaged-1-wal.first",
        "sync",
        f"{name} {name}.damaged-1",
        "sync",
        f"{name}.damaged-1-wal.first {name}.damaged-1-wal",
    ]


def test_a_log_without_its_file_does_not_keep_a_node_from_its_start(node: Path) -> None:
    """(U1) An operator may have deleted the damaged file after a crash."""
    state = node / STATE
    file_of(state).unlink()
    log = file_of(state).with_name(f"{file_of(state).name}-wal")
    log.rename(log.with_name(f"{file_of(state).name}.damaged-1-wal.first"))
    assert start(state) == list(range(1, SEALED + 1))
    assert not put_aside_files(state)


def test_a_log_that_an_operator_has_left_is_not_replaced(node: Path) -> None:
    """(U1) The file may have been moved to where its segments are looked at."""
    state = node / STATE
    left = file_of(state).with_name(f"{file_of(state).name}.damaged-1-wal")
    left.write_bytes(b"the log of another file")
    start(state)
    assert left.read_bytes() == b"the log of another file"
    assert [each.name for each in put_aside_files(state)] == [
        f"{file_of(state).name}.damaged-2"
    ]
    assert SEALED in proved(state)
