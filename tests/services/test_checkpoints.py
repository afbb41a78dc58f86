# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the state: their errors stop the node, and lost writes are noticed."""

import contextlib
import os
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.services.state import checkpointer
from sparecode_node.statemachine.checkpoints import Checkpoints, write_ahead
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.page_sums import (
    LostWriteError,
    PageSums,
    open_page_sums,
)
from sparecode_node.statemachine.tables import schema
from tests.services.checkpoint_world import ENTRIES, World, copy, create_users, opened

PAGE = 4096
FRAME = 24 + PAGE


@pytest.fixture(scope="module")
def faulty_sync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that makes syncs fail when it is preloaded."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = Path(__file__).with_name("faulty_sync.c")
    library = tmp_path_factory.mktemp("library") / "faulty_sync.so"
    command = (compiler, "-shared", "-fPIC", "-o", library, source, "-ldl")
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize("orders", ["-wal", "-wal once", "state.db", "-pages once"])
def test_a_failed_sync_of_the_state_stops_the_node(
    tmp_path: Path, faulty_sync: Path, orders: str
) -> None:
    """SQLite's own checkpoints discard it: the log grows, and a power cut destroys."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(faulty_sync),
        "FAULTY_SYNC": str(tmp_path / "orders"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.services.checkpoint_world", tmp_path, orders],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "orders.failures").read_bytes() == b"x"
    assert done.returncode == 70, done.stderr
    entries, _, line = done.stdout.partition(" ")
    assert int(entries) > 0
    # The first sync of a log that starts over belongs to the entry.
    assert re.match(
        rf"{tmp_path}/state.db: the checkpoint failed: |disk I/O error", line
    )
    # What was applied is there: the log was not overwritten, and is written again.
    (tmp_path / "orders").unlink(missing_ok=True)
    with opened(tmp_path) as world:
        assert world.index >= ENTRIES + int(entries)


def test_no_entry_waits_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk ends no sync before all entries are applied."""
    sync, began, applied = os.fdatasync, threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        began.set()
        assert applied.wait(60), "an entry has waited"
        sync(fd)

    with opened(tmp_path) as world:
        monkeypatch.setattr(os, "fdatasync", slow)
        try:
            create_users(world, 300)
            assert world.machine.checkpoint() < world.index
            assert began.wait(60)
        finally:
            applied.set()
            monkeypatch.undo()
        until_durable(world.machine, world.index)


def test_only_synced_entries_count_as_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int) -> None:
        raise OSError("input/output error")

    def fail() -> None:
        with opened(tmp_path) as world:
            create_users(world, 5)
            assert world.machine.checkpoint() < world.index  # It begins one.
            until_durable(world.machine, world.index)
            before = world.index
            monkeypatch.setattr(os, "fdatasync", broken)
            create_users(world, 1)
            with pytest.raises(Fatal, match="input/output error"):
                until_durable(world.machine, world.index)
            monkeypatch.undo()
            with pytest.raises(Fatal, match="input/output error"):
                world.machine.check()  # There is no way back.
            assert world.machine.checkpoint() == before

    with pytest.raises(Fatal, match="input/output error"):  # Stopping says so, too.
        fail()


def path_of(fd: int) -> Path:
    """Return the file behind a descriptor."""
    return Path(f"/proc/self/fd/{fd}").readlink()


def test_entries_that_no_checkpoint_can_copy_yet_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader keeps SQLite from copying them, and so from syncing its log."""
    synced: list[Path] = []
    sync = os.fdatasync

    def recorded(fd: int) -> None:
        synced.append(path_of(fd))
        sync(fd)

    with opened(tmp_path) as world:
        create_users(world, 5)
        until_durable(world.machine, world.index)
        with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM users").fetchone()
            monkeypatch.setattr(os, "fdatasync", recorded)
            create_users(world, 1)
            until_durable(world.machine, world.index)
            monkeypatch.undo()
    assert tmp_path / "state.db-wal" in synced


def test_a_log_that_is_on_no_disk_is_written_again_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync, the kernel shows pages that it will never write."""
    with opened(tmp_path) as world:
        create_users(world, 5)
        image = copy(tmp_path, tmp_path / "image")
    log = image / "state.db-wal"
    content, written, synced = log.read_bytes(), [b""], list[Path]()
    pwrite, fsync = os.pwrite, os.fsync

    def write(fd: int, data: bytes, at: int) -> int:
        if path_of(fd) == log:
            written.append(data)
        return pwrite(fd, data, at)

    def sync(fd: int) -> None:
        synced.append(path_of(fd))
        fsync(fd)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fsync", sync)
    open_page_sums(image / "state.db").close()
    assert b"".join(written) == content
    assert log in synced


@pytest.mark.parametrize("damage", ["bit", "end"])
def test_a_log_that_has_lost_copied_frames_is_noticed_at_the_next_start(
    tmp_path: Path, damage: str
) -> None:
    """SQLite would combine older pages of the log with newer ones of the database."""
    with opened(tmp_path) as world:
        image, copied = partly_copied(world, tmp_path)
    content = (image / "state.db-wal").read_bytes()
    for frame in (copied - 2, copied - 1):
        start = 32 + frame * FRAME
        damaged = content[:start] if damage == "end" else flipped(content, start + 500)
        (image / "state.db-wal").write_bytes(damaged)
        with pytest.raises(LostWriteError, match="of the write-ahead log is damaged"):
            open_page_sums(image / "state.db")


def test_a_log_whose_first_frame_is_damaged_is_begun_again(tmp_path: Path) -> None:
    """SQLite goes on with the same salt: a kill then leaves fewer frames than before."""
    with opened(tmp_path) as world:
        create_users(world, 5)
        until_durable(world.machine, world.index)
        create_users(world, 40)  # The log is started over.
        until_durable(world.machine, world.index)
        image = copy(tmp_path, tmp_path / "image")
    log = image / "state.db-wal"
    log.write_bytes(flipped(log.read_bytes(), 32 + 500))
    before = salt(image)
    with opened(image) as world:
        create_users(world, 1)
        killed = copy(image, tmp_path / "killed")
    assert salt(killed) == before
    with opened(killed) as world:
        create_users(world, 1)


def test_checksums_of_another_format_are_made_again(tmp_path: Path) -> None:
    """Those of no page would be compared with nothing from then on."""
    with opened(tmp_path) as world:
        create_users(world, 20)
    (tmp_path / "state.db-pages").write_bytes(b"SCPAGES9")
    sums = open_page_sums(tmp_path / "state.db")
    sums.close()
    assert None not in [sums.get(page) for page in range(1, len(sums) + 1)]
    assert len(sums) == (tmp_path / "state.db").stat().st_size // PAGE


def test_checksums_of_a_large_database_take_little_memory(tmp_path: Path) -> None:
    """A million users are 370,000 pages, and nodes have 250 MB. The file has 8 bytes each."""
    pages, database = 20_000, tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA page_size = 512")
        db.execute("CREATE TABLE blobs (blob BLOB)")
        db.execute("INSERT INTO blobs VALUES (randomblob(?))", (pages * 512,))
        db.commit()
    made, read = (PageSums(tmp_path / "state.db-pages") for _ in range(2))
    for step in (lambda: made.compute(database), made.rewrite, read.load):
        assert peak_of(step) < 40 * pages + 200_000
    made.close()
    assert all_sums(read) == all_sums(made)
    assert len(read) == len(made) > pages


def test_checksums_of_an_installed_snapshot_take_little_memory(tmp_path: Path) -> None:
    """It is one transaction, so its first checkpoint copies every page of the state."""
    pages, state = 20_000, tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as db:
        db.execute("PRAGMA page_size = 512")
        write_ahead(db)
        db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY)")
        sums = PageSums(tmp_path / "state.db-pages")
        sums.rewrite()
        checkpoints = Checkpoints(state, sums)
        db.execute("CREATE TABLE blobs (blob BLOB)")
        db.execute("INSERT INTO blobs VALUES (randomblob(?))", (pages * 512,))
        assert peak_of(checkpoints.run) < 40 * pages + 200_000
    checkpoints.close()
    made, read = (PageSums(tmp_path / "state.db-pages") for _ in range(2))
    read.load()
    made.compute(state)
    assert all_sums(read) == all_sums(made)
    assert len(read) == len(made) > pages


def peak_of(step: Callable[[], object]) -> int:
    """Return the bytes that a step needs at most."""
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def all_sums(sums: PageSums) -> list[int | None]:
    """Return the checksum of each page."""
    return [sums.get(page) for page in range(1, len(sums) + 1)]


def test_frames_that_were_not_copied_may_be_lost(tmp_path: Path) -> None:
    """The state is older, and whole; the journal has the entries."""
    with opened(tmp_path) as world:
        image, copied = partly_copied(world, tmp_path)
    log = image / "state.db-wal"
    log.write_bytes(flipped(log.read_bytes(), 32 + copied * FRAME + 500))
    sums = open_page_sums(image / "state.db")
    assert sums.copied.frames == copied
    sums.close()


def partly_copied(world: World, folder: Path) -> tuple[Path, int]:
    """Return an image whose log was copied in part, and the number of these frames."""
    create_users(world, 5)
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        create_users(world, 1)
        until_durable(world.machine, world.index)
        image = copy(folder, folder / "image")
    sums = PageSums(image / "state.db-pages")
    sums.load()
    assert sums.copied.frames > 2
    return image, sums.copied.frames


def flipped(content: bytes, at: int) -> bytes:
    """Return bytes with another bit."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_stopped_node_leaves_the_cluster_s_format_on_the_disk(tmp_path: Path) -> None:
    """The older release must open it, also after a power cut."""
    with opened(tmp_path) as world:
        create_users(world, 5)
        until_durable(world.machine, world.index)
        assert world.machine.feature_level < schema.VERSION
    image = copy(tmp_path, tmp_path / "image")
    (image / "state.db-wal").write_bytes(b"")
    with contextlib.closing(sqlite3.connect(image / "state.db")) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    assert version == world.machine.feature_level


def until_durable(machine: StateMachine, index: int) -> None:
    """Wait for a checkpoint, as the engine does."""
    deadline = time.monotonic() + 60
    while machine.checkpoint() < index:
        machine.check()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_log_is_started_over_while_entries_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite starts it over, with another salt, only if all of it has been copied."""
    monkeypatch.setattr(checkpointer, "LOG_PAGES_MAX", 1000)
    with opened(tmp_path) as world:
        create_users(world, 1)
        first = salt(tmp_path)
        while salt(tmp_path) == first:
            assert world.index < 5000
            create_users(world, 100)


def salt(folder: Path) -> bytes:
    """Return what the header of a write-ahead log has of its own."""
    return (folder / "state.db-wal").read_bytes()[16:24]


def test_the_engine_shortens_a_log_that_is_too_long() -> None:
    """Even if the next checkpoint is due again when the last one ends."""

    class Endless(Checkpoints):
        frames = 2 * checkpointer.LOG_PAGES_MAX

        def __init__(self) -> None:
            self.threads: list[str] = []

        def run(self, *, last: bool = False) -> None:
            assert not last
            self.threads.append(threading.current_thread().name)
            if len(self.threads) > 1:
                worker.applied(checkpointer.PAGES)

    checkpoints = Endless()
    worker = checkpointer.Checkpointer(checkpoints)
    worker.applied(checkpointer.PAGES)
    engine = threading.current_thread().name
    deadline = time.monotonic() + 30
    while checkpoints.threads.count(engine) < 3:
        assert time.monotonic() < deadline
        worker.check()
    worker.end()
    assert checkpoints.threads[:5] == [engine, "checkpoints"] * 2 + [engine]


def test_a_stopped_node_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    """And the connection that is closed last runs no checkpoint of its own."""
    with opened(tmp_path) as world:
        create_users(world, 50)
        digest = world.machine.digest()
    image = copy(tmp_path, tmp_path / "image")
    (image / "state.db-wal").write_bytes(b"")
    with opened(image) as world:
        assert world.machine.digest() == digest


def test_a_lost_write_is_noticed_at_the_next_start(tmp_path: Path) -> None:
    """The disk reports a page as written, and keeps the older one: it looks sound."""
    with opened(tmp_path) as world:
        create_users(world, 200)
    old = (tmp_path / "state.db").read_bytes()
    with opened(tmp_path) as world:
        create_users(world, 200)
    new = (tmp_path / "state.db").read_bytes()
    with opened(tmp_path) as world:  # The log starts over: it had every page.
        create_users(world, 1)
        digest = world.machine.digest()
    new = (tmp_path / "state.db").read_bytes()
    refused = 0
    for at in range(0, len(old), PAGE):
        if old[at : at + PAGE] == new[at : at + PAGE]:
            continue
        image = copy(tmp_path, tmp_path / f"image{at}")
        lost = new[:at] + old[at : at + PAGE] + new[at + PAGE :]
        (image / "state.db").write_bytes(lost)
        try:
            with opened(image) as world:  # The page is in the log, too.
                assert world.machine.digest() == digest
        except (StartRefusedError, sqlite3.DatabaseError) as error:
            refused += f"page {at // PAGE + 1} is not the one" in str(error)
    assert refused > 10
    (tmp_path / "state.db").write_bytes(new[: len(new) // 2])
    with pytest.raises(StartRefusedError), opened(tmp_path):
        pass


@pytest.mark.parametrize("seed", range(5))
def test_an_image_after_a_power_cut_is_whole_or_refused(
    tmp_path: Path, seed: int
) -> None:
    """Each page of the database and the end of the log is as before or as after."""
    rng = random.Random(seed)
    folder = tmp_path / "node"
    folder.mkdir()
    with opened(folder) as world:
        create_users(world, rng.randrange(20, 200))
        world.machine.checkpoint()
        time.sleep(0.02)
        old = copy(folder, tmp_path / "old")
        create_users(world, rng.randrange(1, 150))
        log = list(world.log)
        if rng.random() < 0.5:
            until_durable(world.machine, world.index)
        image = copy(folder, tmp_path / "image")
    before, after = (each / "state.db" for each in (old, image))
    pages = bytearray(after.read_bytes())
    for at in range(0, min(len(pages), before.stat().st_size), PAGE):
        if rng.random() < 0.3:
            pages[at : at + PAGE] = before.read_bytes()[at : at + PAGE]
    after.write_bytes(pages)
    wal = (image / "state.db-wal").read_bytes()
    if rng.random() < 0.7:
        (image / "state.db-wal").write_bytes(wal[: rng.randrange(len(wal) + 1)])
    try:
        with opened(image) as world:
            digest, index = world.machine.digest(), world.index
    except (StartRefusedError, sqlite3.DatabaseError):
        return  # A node names the file, and does not start.
    replayed = type(world)()
    for number, calls in log[:index]:
        replayed.machine.apply(number, calls)
    assert digest == replayed.machine.digest()


def test_checksums_of_a_foreign_database_are_made_again(tmp_path: Path) -> None:
    """Another program that has written removes the log; so does an older release."""
    with opened(tmp_path) as world:
        create_users(world, 20)
    (tmp_path / "state.db-wal").unlink()
    data = bytearray((tmp_path / "state.db").read_bytes())
    struct.pack_into(">I", data, 68, 1)  # The application's id, in the first page.
    (tmp_path / "state.db").write_bytes(data)
    with opened(tmp_path) as world:
        create_users(world, 20)
    with opened(tmp_path) as world:
        assert world.index > 40
