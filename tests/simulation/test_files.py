# SPDX-License-Identifier: Apache-2.0
"""The real state machine on simulated files: the model is right, and promises hold."""

import contextlib
import errno
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.log.file import MARK, NAME
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.checkpoints import CheckpointError
from tests.simulation.codes import scenario
from tests.simulation.disk import Disk, File, Killed, StateFault
from tests.simulation.fault_effects import Effect
from tests.simulation.files import store
from tests.simulation.files.cluster import FilesCluster
from tests.simulation.files.kernel import PAGE, Cut, Folder, read_unwatched
from tests.simulation.files.processes import Process, Processes
from tests.simulation.files.sqlite_vfs import library
from tests.simulation.files.store import LOG, FileStore
from tests.statemachine.world import World


def hides_sqlite() -> bool:
    try:
        library()
    except RuntimeError:
        return True
    return False


pytestmark = pytest.mark.skipif(
    hides_sqlite(), reason="this Python's SQLite is linked so that no VFS can join it"
)


class Machine:
    """A folder with a database in WAL mode, and the process that has it open."""

    def __init__(self, path: Path) -> None:
        self.dice = random.Random(1)
        self.processes = Processes(self.dice)
        self.disk = Disk("n1", self.dice)
        self.folder = Folder(path)
        self.path = path / "a.db"

    def open(self) -> sqlite3.Connection:
        self.process = Process(self.folder, self.disk, self.dice)
        self.processes.run(self.process)
        db = sqlite3.connect(self.path, isolation_level=None)
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("CREATE TABLE IF NOT EXISTS t (x)")
        return db

    def fail_at(self, calls: int, *, kills: bool = False, sync: bool = False) -> None:
        self.disk.state_fault = StateFault(calls, kills=kills, sync=sync)


def begun(store: FileStore) -> World:
    """Return a world that applies entries to a store; its cluster has just begun."""
    world = World()
    world.db.close()
    world.machine, world.db = store.machine, store.db
    world.begin()
    return world


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    with machine.processes.simulated():
        yield machine


def rows(db: sqlite3.Connection) -> list[int]:
    return [x for (x,) in db.execute("SELECT x FROM t ORDER BY x")]


def test_what_was_synced_is_what_the_real_files_have(machine: Machine) -> None:
    """Nothing that SQLite writes escapes the model."""
    db = machine.open()
    for x in range(300):
        db.execute("INSERT INTO t VALUES (?)", (x,))
        if x % 50 == 0:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    for file in machine.folder.names.values():
        file.sync()
    for name, file in machine.folder.names.items():
        assert read_unwatched(machine.folder.path / name) == bytes(file.durable)
    db.close()


def test_a_power_cut_takes_what_no_checkpoint_has_synced(machine: Machine) -> None:
    db = machine.open()
    db.execute("INSERT INTO t VALUES (1)")
    assert db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    db.execute("INSERT INTO t VALUES (2)")
    machine.process.dead = True
    db.close()
    seen = set()
    for _ in range(20):
        copy = machine.folder.copy(machine.path.parent / "image")
        copy.lose_power(machine.dice)
        machine.processes.run(Process(copy, machine.disk, machine.dice))
        with contextlib.closing(sqlite3.connect(copy.path / "a.db")) as image:
            seen.add(tuple(rows(image)))
        for file in copy.path.iterdir():
            file.unlink()
    assert seen == {(1,), (1, 2)}


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.auth_version("nobody"),
        lambda store: store.keys(),
        lambda store: store.keys_for("nobody", "no set"),
        lambda store: store.password_key(),
    ],
    ids=["version", "keys", "keys for a user", "key of the password"],
)
def test_no_fault_hits_what_the_simulation_itself_reads(
    read: Callable[[FileStore], object],
) -> None:
    """A fault is for the process, and must not end the run."""
    dice = random.Random(1)
    processes = Processes(dice)
    store = FileStore(processes, dice)
    with processes.simulated():
        store.start(disk := Disk("n1", dice))
        store.db.execute("PRAGMA shrink_memory")  # So that it reads from the file.
        disk.state_fault = StateFault(0, kills=False, sync=False)
        read(store)
        assert disk.state_fault is not None
        store.close()


def test_each_read_outside_sqlite_may_fail() -> None:
    """A start reads checksums, log and pages, its checkpoint the log; it refuses."""
    dice = random.Random(1)
    processes = Processes(dice)
    store, disk = FileStore(processes, dice), Disk("n1", dice)
    refused = list[str]()
    with processes.simulated():
        store.start(disk)
        begun(store)
        for calls in range(500):
            before = disk.effects[Effect.OWN_READ_FAILED]
            disk.state_fault = StateFault(calls, kills=False)
            try:
                with contextlib.suppress(sqlite3.Error):  # Of any other call.
                    store.start(disk)  # It runs a checkpoint, too.
            except StartRefusedError as error:
                if disk.effects[Effect.OWN_READ_FAILED] > before:
                    refused.append(str(error))
            if disk.state_fault is not None:  # The start makes no more calls.
                break
        store.close()
    assert len(refused) == disk.effects[Effect.OWN_READ_FAILED]
    assert all(os.strerror(errno.EIO) in each for each in refused)
    in_checkpoint = sum("the checkpoint failed" in each for each in refused)
    assert 0 < in_checkpoint < len(refused) - 3


@pytest.fixture(autouse=True)
def _image_folder(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()


def test_each_call_may_fail(machine: Machine) -> None:
    """SQLite reports it, and the transaction has not happened."""
    db = machine.open()
    written, errors = list[int](), set[int]()
    for calls in range(12):
        machine.fail_at(calls)
        try:
            db.execute("INSERT INTO t VALUES (?)", (calls,))
            written.append(calls)
        except sqlite3.OperationalError as error:
            errors.add(error.sqlite_errorcode & 0xFF)
        assert rows(db) == written
    assert errors == {sqlite3.SQLITE_IOERR}
    db.close()


def test_a_killed_process_changes_nothing_more(machine: Machine) -> None:
    db = machine.open()
    machine.fail_at(1, kills=True)
    with pytest.raises(Killed), machine.process.acting():
        db.execute("INSERT INTO t VALUES (1)")
    before = read_unwatched(machine.path.parent / "a.db-wal")
    db.close()
    assert read_unwatched(machine.path.parent / "a.db-wal") == before
    db = machine.open()
    assert rows(db) == []
    db.close()


def test_pages_that_a_failed_sync_has_dropped_never_reach_the_disk(
    machine: Machine,
) -> None:
    """They stay readable, and the next sync reports success, as on Linux."""
    db = machine.open()
    for x in range(500):
        db.execute("INSERT INTO t VALUES (?)", (x,))
    machine.fail_at(0, sync=True)
    with pytest.raises(sqlite3.OperationalError):
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert machine.folder.names["a.db-wal"].dropped
    assert db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    assert len(rows(db)) == 500
    log = machine.folder.names["a.db-wal"]
    assert bytes(log.durable) != read_unwatched(machine.path.parent / "a.db-wal")
    db.close()


def test_a_start_after_a_failed_sync_outlasts_a_power_cut() -> None:
    """Else its log would end before what it has copied, and the state be refused."""
    dice = random.Random(1)
    processes = Processes(dice)
    store, disk = FileStore(processes, dice), Disk("n1", dice)
    with processes.simulated():
        store.start(disk)
        world = begun(store)
        with contextlib.closing(sqlite3.connect(store.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM users").fetchone()
            store.run_checkpoint()  # The reader keeps the log from starting over.
            world.apply(world.call("create-user", {"name": "a", "request": "a"}))
            disk.state_fault = StateFault(0, kills=False, checkpoint=True, sync=True)
            with pytest.raises(CheckpointError):
                store.run_checkpoint()
            store.die()
        assert store.folder.names[LOG].dropped
        store.start(disk)
        assert store.durable_index == world.index
        assert store.folder.names[LOG].is_on_disk
        store.lose_power(dice)
        store.start(disk)
        assert store.durable_index == world.index
        store.close()


def test_a_page_that_is_written_again_is_no_longer_dropped(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "f").write_bytes(b"a" * 2 * PAGE)
    folder.wrote("f", 0, b"a" * 2 * PAGE)
    folder.sync_failed("f")
    folder.wrote("f", 10, b"a")
    folder.synced("f")
    file = folder.names["f"]
    assert (file.dropped, bytes(file.durable)) == ({1}, b"a" * PAGE)


@pytest.mark.parametrize("cut", Cut)
def test_a_power_cut_never_takes_what_is_synced(cut: Cut, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.wrote("f", 0, b"a" * PAGE)
    folder.synced("f")
    folder.wrote("f", PAGE, b"b" * PAGE)
    folder.names["f"].lose_power(cut, random.Random(2))
    assert bytes(folder.names["f"].durable[:PAGE]) == b"a" * PAGE


def test_a_name_is_lost_until_its_directory_is_synced(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.wrote("new", 0, b"b")
    folder.synced("new")
    folder.renamed("new", "old")
    dice = random.Random(3)
    kept = {tuple(folder.copy(tmp_path)._cut(dice)) for _ in range(40)}
    assert kept == {(), ("new",), ("old",)}
    folder.names_synced()
    assert {tuple(folder.copy(tmp_path)._cut(dice)) for _ in range(40)} == {("old",)}


@pytest.mark.parametrize("seed", range(5))
def test_three_nodes_on_simulated_files_keep_every_promise(seed: int) -> None:
    with contextlib.closing(FilesCluster(seed, scenario(3))) as sim:
        sim.run()
        assert sim.invariants.violations == {}


def test_a_seed_is_a_run() -> None:
    runs = []
    for _ in range(2):
        with contextlib.closing(FilesCluster(10, scenario(3))) as sim:
            sim.run()
            digests = {i: n.store.digest() for i, n in sim.nodes.items()}
            runs.append((sim.effects, sim.invariants.acked, digests, sim.now))
    assert runs[0] == runs[1]
    assert runs[0][0][Effect.CHECKPOINT]


def test_a_machine_whose_last_batch_rots_before_its_mark_is_written_is_replaced() -> (
    None
):
    """It takes the batch for torn. The others know that it has acknowledged it."""
    long_log = replace(scenario(3), raft=RaftSettings())
    with contextlib.closing(FilesCluster(0, long_log)) as sim:
        with sim.world():
            sim.set_up()
            leader = sim.nodes[sim.leader() or ""]
            node = next(each for each in sim.live() if each is not leader)
            journal, mark = node.disk.names[NAME], bytes(node.disk.names[MARK].cached)
            size, had = len(journal.cached), node.journal.last_index
            sim.probe(leader, "request")
            seen = leader.journal.boots.seen
            while seen[node.node_id].promised[2] <= had:
                sim.step(faulty=False)
            assert node.store.state.applied_index <= had  # Else it would not start.
            sim.crash(node.node_id, power=True)
            journal.cached[size:] = bytes(len(journal.cached) - size)
            journal.durable = bytes(journal.cached)
            node.disk.names[MARK] = File(bytearray(mark), mark, in_place=True)
            node.disk.rotten = True
            sim.memberships.doubtful.add(node.node_id)
            sim.invariants.promises.forget(node.node_id)
            sim.boot(node)
            assert node.is_up()
            assert node.journal.last_index == had
            assert sim.heal()
            sim.check()
        assert sim.effects[Effect.ROTTEN_REFUSED] == 1
        assert sim.memberships.wiped == {node.node_id}
        assert sim.invariants.violations == {}


def test_a_run_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders are in memory: thousands of runs would fill it."""
    made: list[Path] = []
    real = store.new_folder

    def new_folder() -> Path:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(store, "new_folder", new_folder)
    with contextlib.closing(FilesCluster(3, scenario(3))) as sim:
        sim.run()
    assert len(made) > 3  # One for each machine, and for copies.
    assert not any(folder.exists() for folder in made)
