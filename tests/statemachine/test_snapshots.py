# SPDX-License-Identifier: Apache-2.0
"""Snapshots of the state: whole, of one index, installed while readers read."""

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.snapshots import (
    SnapshotError,
    SnapshotFacts,
    check_snapshot,
    read_facts,
    write_snapshot,
)
from tests.databases import open_database
from tests.statemachine.next_format import FORMAT, begin_next_format
from tests.statemachine.world import World


class FileWorld(World):
    """A world whose state is a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.db.close()
        self.path = path
        self.db = open_database(path)
        self.machine = StateMachine(self.db)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[FileWorld]:
    world = FileWorld(tmp_path / "state.db")
    world.begin()
    yield world
    world.db.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[FileWorld]:
    """Return a node that has applied less."""
    world = FileWorld(tmp_path / "other.db")
    yield world
    world.db.close()


def reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)


def test_a_snapshot_names_its_cluster_and_index(
    world: FileWorld, tmp_path: Path
) -> None:
    """Release 0.1.0 compares its digest, so it is computed while there may be any."""
    path = tmp_path / "snapshot"
    facts = write_snapshot(world.path, path)
    expected = SnapshotFacts(index=world.index, digest=world.machine.digest())
    assert facts == check_snapshot(path) == read_facts(path) == expected


def test_a_snapshot_has_no_digest_where_no_member_compares_it(
    world: FileWorld, tmp_path: Path
) -> None:
    world.handle("raise-feature-level", {"level": "2"})
    path = tmp_path / "snapshot"
    facts = write_snapshot(world.path, path)
    assert facts == check_snapshot(path) == SnapshotFacts(index=world.index)
    assert read_facts(path).digest == world.machine.digest()


@pytest.mark.parametrize("level", [1, 2])
def test_a_snapshot_with_a_spoiled_page_is_refused(
    world: FileWorld, tmp_path: Path, level: int
) -> None:
    """The sender's disk may have spoiled it before it computed the SHA-256."""
    for number in range(200):
        world.apply(world.call("create-user", {"name": f"user{number}"}))
    if level > 1:
        world.handle("raise-feature-level", {"level": str(level)})
    path = tmp_path / "snapshot"
    write_snapshot(world.path, path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'users'"
        ).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes(size))
    with pytest.raises(SnapshotError):
        check_snapshot(path)


def test_a_snapshot_is_one_file_for_its_owner(world: FileWorld, tmp_path: Path) -> None:
    """It holds what the state holds: verifiers, sealed seeds, the audit log."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write_snapshot(world.path, folder / "snapshot")
    assert [path.name for path in folder.iterdir()] == ["snapshot"]
    assert (folder / "snapshot").stat().st_mode & 0o777 == 0o600
    header = (folder / "snapshot").read_bytes()[18:20]
    assert header == b"\x01\x01"  # Not in WAL mode: no part of it is in another file.


def test_a_snapshot_is_of_one_moment_while_entries_are_applied(
    world: FileWorld, tmp_path: Path
) -> None:
    digests = {world.index: world.machine.digest()}
    facts: list[SnapshotFacts] = []

    def take() -> None:
        facts.extend(
            write_snapshot(world.path, tmp_path / f"snapshot{k}") for k in range(10)
        )

    thread = threading.Thread(target=take)
    thread.start()
    number = 0
    while thread.is_alive():
        number += 1
        world.apply(world.call("create-user", {"name": f"user{number}"}))
        digests[world.index] = world.machine.digest()
    thread.join()
    assert len(facts) == 10
    assert all(digests[fact.index] == fact.digest for fact in facts)


def test_an_installed_snapshot_is_the_state(
    world: FileWorld, other: FileWorld, tmp_path: Path
) -> None:
    """Also the parts in memory: the next entries give the same results."""
    write_snapshot(world.path, tmp_path / "snapshot")
    other.machine.install(str(tmp_path / "snapshot"))
    other.machine.reload()
    assert other.machine.applied_index == world.machine.applied_index
    assert other.machine.now_ms == world.machine.now_ms
    assert other.machine.digest() == world.machine.digest()
    for name in ("ada", "grace"):
        call = world.call("create-user", {"name": name})
        index = world.index + 1
        assert world.apply(call) == other.machine.apply(index, [call])[0]
    assert other.machine.digest() == world.machine.digest()


def test_readers_continue_while_a_snapshot_is_installed(
    world: FileWorld, other: FileWorld, tmp_path: Path
) -> None:
    """A reader sees the state it began with, and the new one afterwards."""
    sql = "SELECT value FROM meta WHERE name = 'applied_index'"
    other.machine.apply(1, ())
    write_snapshot(world.path, tmp_path / "snapshot")
    with contextlib.closing(reader(other.path)) as reading:
        reading.execute("BEGIN")
        assert reading.execute(sql).fetchone() == (1,)
        other.machine.install(str(tmp_path / "snapshot"))
        other.machine.reload()
        assert reading.execute(sql).fetchone() == (1,)
        assert reading.execute("SELECT count(*) FROM agents").fetchone() == (0,)
        reading.rollback()
        assert reading.execute(sql).fetchone() == (world.index,)
        assert reading.execute("SELECT count(*) FROM agents").fetchone() == (1,)


def test_an_installed_snapshot_is_on_disk_at_once(
    world: FileWorld,
    other: FileWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal then begins after it, so no power cut may undo it."""
    write_snapshot(world.path, tmp_path / "snapshot")
    syncs: list[int] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **more: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*arguments, **more)
        db.set_trace_callback(
            lambda sql: syncs.append(1) if sql == "PRAGMA synchronous = FULL" else None
        )
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    other.machine.install(str(tmp_path / "snapshot"))
    other.machine.reload()
    assert syncs
    assert other.db.execute("PRAGMA synchronous").fetchone() == (1,)
    assert other.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    # What lies there now, without anything that is still to be written.
    copied = tmp_path / "copied.db"
    shutil.copy(other.path, copied)
    shutil.copy(f"{other.path}-wal", f"{copied}-wal")
    with contextlib.closing(sqlite3.connect(copied)) as db:
        assert StateMachine(db).applied_index == world.index


def test_a_snapshot_that_cannot_be_read_changes_nothing(
    world: FileWorld, tmp_path: Path
) -> None:
    before = world.machine.digest()
    (tmp_path / "snapshot").write_bytes(b"SQLite format 3\0" + 5000 * b"x")
    with pytest.raises(sqlite3.DatabaseError):
        world.machine.install(str(tmp_path / "snapshot"))
    world.machine.reload()
    assert world.machine.digest() == before
    assert world.db.execute("PRAGMA synchronous").fetchone() == (1,)


def test_a_snapshot_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A type of its own, because the snapshot keeper tries again later."""
    (tmp_path / "state.db").write_bytes(5000 * b"x")
    with pytest.raises(SnapshotError, match="snapshot: file is not a database"):
        write_snapshot(tmp_path / "state.db", tmp_path / "snapshot")


def test_a_snapshot_of_the_format_before_is_brought_to_this_one(
    world: FileWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from a member that is not upgraded yet."""
    path = tmp_path / "snapshot"
    written = write_snapshot(world.path, path)
    begin_next_format(monkeypatch)
    upgraded = FileWorld(tmp_path / "upgraded.db")
    try:
        assert read_facts(path) == written
        upgraded.machine.install(str(path))
        upgraded.machine.reload()
        assert upgraded.machine.applied_index == written.index
        version = upgraded.db.execute("PRAGMA user_version").fetchone()
        assert version == (FORMAT,)
        assert upgraded.db.execute("SELECT extra FROM agents").fetchall()
    finally:
        upgraded.db.close()


@pytest.mark.parametrize("damage", ["other version", "no database", "cut"])
def test_a_snapshot_of_another_version_is_refused(
    world: FileWorld, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "snapshot"
    world.handle("raise-feature-level", {"level": "2"})
    write_snapshot(world.path, path)
    if damage == "other version":
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {FORMAT}")
    else:
        data = path.read_bytes()
        path.write_bytes(b"x" * 5000 if damage == "no database" else data[:9000])
    for read in (check_snapshot, read_facts):
        with pytest.raises(SnapshotError):
            read(path)


def test_a_checkpoint_leaves_nothing_to_a_power_cut(
    world: FileWorld, tmp_path: Path
) -> None:
    assert world.machine.checkpoint() == world.index
    copied = tmp_path / "copied.db"
    shutil.copy(world.path, copied)
    with contextlib.closing(sqlite3.connect(copied)) as db:
        assert StateMachine(db).applied_index == world.index


def test_a_reader_makes_a_checkpoint_fail_at_once(world: FileWorld) -> None:
    """The engine's thread never waits; it tries again."""
    world.machine.checkpoint()
    with contextlib.closing(reader(world.path)) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM users").fetchone()
        world.apply(world.call("create-user", {"name": "ada"}))
        assert world.machine.checkpoint() == 0
    assert world.machine.checkpoint() == world.index
