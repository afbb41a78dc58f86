# SPDX-License-Identifier: Apache-2.0
"""Removed events leave the file of sealed events, at whichever step a node ends (U4)."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparecode_node import fault_points
from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.missing_segments import missing_segments
from sparecode_node.statemachine.sealed_events import SealedEvents, open_log
from sparecode_node.statemachine.tables import archives
from tests.fault_points.strikes import Action, actions_at
from tests.statemachine import test_retention as retention
from tests.statemachine.full_disk import failures
from tests.statemachine.segment_folder import (
    STATE,
    WATCHED,
    SegmentFolder,
    copies_of,
)
from tests.statemachine.test_snapshots import FileWorld

EVENTS, SEALED, REMOVED = 5, 4, 2
"""Of a segment; of segments; of segments that retention has removed."""
MOST = 3
"""Events that one transaction deletes."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose file still has the events of two removed segments."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    return prepared(tmp_path / "node", EVENTS)


def prepared(folder: Path, events: int) -> Path:
    """Make such a folder, of segments of this many events."""
    folder.mkdir()
    world = FileWorld(folder / STATE)
    sealed_events.create(world.path)
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    world.handle("update-policy", {"second_approver": "no"})
    days = retention.RETENTION_DAYS
    world.handle("update-policy", {"audit_retention_ms": f"{days}d"})
    for number in range(SEALED * events):
        world.handle("create-user", {"name": f"user-{number}"})
    with contextlib.closing(SealedEvents(world.path)) as file:
        for segment in file.segments():
            file.store_from_state(segment, iter)
        world.machine.stored = Stored(segment=segment, first=1)
    retention.archive(world, "n1", REMOVED)
    retention.archive(world, "n2", REMOVED)
    retention.wait(world, days + 1)
    assert "applied" in retention.remove(world, REMOVED)
    world.handle("barrier", {})
    world.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    world.db.close()
    return folder


def delete_some(state: Path) -> bool:
    """Start as a node does, and delete some events; return whether any was left."""
    sealed_events.create(state)
    with contextlib.closing(SealedEvents(state)) as file:
        return file.delete_removed(MOST)


def kept(state: Path) -> list[tuple[object, ...]]:
    """Return what readers see that is not removed."""
    with contextlib.closing(open_log(state)) as log:
        last = archives.removed(log).last_sequence
        return log.execute(
            "SELECT * FROM audit_events WHERE sequence > ? ORDER BY sequence", (last,)
        ).fetchall()


def left(state: Path) -> int:
    """Return how many removed events the file has."""
    with contextlib.closing(SealedEvents(state)) as file:
        (count,) = file._db.execute(
            "SELECT count(*) FROM audit_events WHERE sequence <= ?",
            (archives.removed(file._log).last_sequence,),
        ).fetchone()
        return int(count)


def check(state: Path, before: list[tuple[object, ...]]) -> None:
    """See that a node which starts now has lost nothing, and claims nothing."""
    sealed_events.create(state)
    assert not sealed_events.put_aside_files(state)
    assert kept(state) == before
    with contextlib.closing(SealedEvents(state)) as file:
        counted = dict(file.stored())
        for segment in file.segments():
            if segment.number in counted:
                file.verify(segment)
        assert file.stored() == counted, "what counts is whole"
    assert set(counted) >= set(range(REMOVED + 1, SEALED + 1))


def finish(state: Path, before: list[tuple[object, ...]]) -> None:
    """Delete the rest, as the next step of the node does, and prove the chain."""
    while delete_some(state):
        pass
    assert left(state) == 0
    assert kept(state) == before
    assert missing_segments(state, NodeId("n1")).ranges == ()
    with contextlib.closing(SealedEvents(state)) as file:
        chain = archives.removed(file._log).hash_after
        for segment in file.segments()[REMOVED:]:
            assert segment.hash_before == chain
            if segment.number in file.stored():
                file.verify(segment)
            else:
                file.store_from_state(segment, iter)
            chain = segment.hash_after
        assert min(file.stored()) == REMOVED + 1


@pytest.fixture
def folders(node: Path, tmp_path: Path) -> Iterator[Iterator[SegmentFolder]]:
    with copies_of(node, tmp_path / "copy") as copies:
        yield copies


@WATCHED
@pytest.mark.parametrize("end", ["kill", "power cut", "failed call"])
def test_a_node_that_ends_at_any_call_removes_what_was_to_go_and_nothing_else(
    node: Path, folders: Iterator[SegmentFolder], end: str
) -> None:
    """(U4) A segment counts as stored until events of it go, and is whole until then."""
    before = kept(node / STATE)
    found = set()
    for calls, folder in enumerate(folders):
        struck = folder.run(delete_some, calls=calls, kills=end != "failed call")
        if end == "power cut":
            folder.lose_power()
        check(folder.state, before)
        found.add(left(folder.state))
        finish(folder.state, before)
        if not struck:
            break
    assert found == {REMOVED * EVENTS, REMOVED * EVENTS - MOST}
    assert calls > 20, "it ended at each call"


@WATCHED
@pytest.mark.parametrize("action", [Action.KILL, Action.POWER])
@pytest.mark.parametrize("point", [Point.SEGMENT_REMOVED, Point.SEGMENT_COMMIT])
def test_a_removal_that_ends_without_its_commit_has_removed_nothing(
    node: Path, folders: Iterator[SegmentFolder], point: Point, action: Action
) -> None:
    """(U4) The next start removes it."""
    before, had = kept(node / STATE), left(node / STATE)
    folder = next(folders)
    folder.strike(point, action, delete_some)
    check(folder.state, before)
    assert left(folder.state) == had
    finish(folder.state, before)


def test_a_removal_that_fails_without_its_commit_is_done_again(node: Path) -> None:
    """(U4) The same process goes on, and its file is as it was."""
    assert Action.ERROR in actions_at(Point.SEGMENT_REMOVED)
    state = node / STATE
    before = kept(state)

    def fail(point: Point) -> None:
        if point is Point.SEGMENT_REMOVED:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with contextlib.closing(SealedEvents(state)) as file:
        stored = dict(file.stored())
        hook = fault_points.install(fail)
        try:
            with pytest.raises(OSError, match="No space left"):
                file.delete_removed(MOST)
        finally:
            fault_points.install(hook)
        assert not file._db.in_transaction
        assert file.stored() == stored
        assert file.delete_removed(MOST)
    check(state, before)
    finish(state, before)


def test_a_full_disk_lets_a_removal_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) A segment counts until its events go, whichever write finds the disk full."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", 300)
    state = prepared(tmp_path / "node", 300) / STATE
    before = kept(state)
    lines = failures("remove", state, tmp_path)
    assert {error for _, error, _ in lines} == {"database or disk is full"}
    counts: dict[str, set[str]] = {}
    for statement, _, is_counted in lines:
        counts.setdefault(statement, set()).add(is_counted)
    assert counts == {
        "DELETE FROM": {"True"},
        "COMMIT": {"True"},
        # Before the checkpoint all is committed.
        "PRAGMA wal_checkpoint(PASSIVE)": {"False"},
    }
    check(state, before)
    finish(state, before)
