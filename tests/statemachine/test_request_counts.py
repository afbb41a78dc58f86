# SPDX-License-Identifier: Apache-2.0
"""A node that starts does not count its request ids: each entry has written how many (Q3)."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from sparecode_node.domain.policy import MINUTE_MS, Policy
from sparecode_node.fault_points import Point
from sparecode_node.statemachine import snapshots
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.requests import PURGED_PER_ENTRY_MAX
from sparecode_node.statemachine.tables import meta, request_counts
from tests.statemachine.steps import steps
from tests.statemachine.test_request_table_size import filled
from tests.statemachine.test_snapshots import FileWorld
from tests.statemachine.world import World

FEW, MANY = 2_000, 20_000


def check_counted(world: World) -> None:
    """Check that what is stored is what a count would find."""
    counted = request_counts.count(world.db)
    assert request_counts.read(world.db, world.index) == counted
    assert world.machine._requests._shares._rows == counted
    assert world.machine._requests._shares.total == sum(counted.values())


def add_user(world: World, number: int) -> None:
    world.handle("create-user", {"name": f"u{number}"})


@pytest.fixture
def world() -> World:
    """Return a cluster of feature level 2 with a thousand request ids."""
    return filled(1000)


def test_each_entry_writes_what_it_changes(world: World) -> None:
    """New ids, a batch, deleted ones, and a new epoch that forgets all of them."""
    add_user(world, 1)
    check_counted(world)
    world.apply_batch([world.call("create-user", {"name": f"b{n}"}) for n in range(9)])
    check_counted(world)
    world.now_ms += Policy().request_retention_ms + MINUTE_MS
    add_user(world, 2)
    check_counted(world)
    assert sum(request_counts.count(world.db).values()) > 1
    add_user(world, 3)
    add_user(world, 4)
    check_counted(world)
    left = sum(request_counts.count(world.db).values())
    assert left < 1000 - PURGED_PER_ENTRY_MAX
    world.handle("begin-epoch", {"id": "other"})
    check_counted(world)
    assert sum(request_counts.count(world.db).values()) < left


def test_an_entry_that_fails_leaves_the_counts_of_the_one_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(world, 1)
    call = world.call("create-user", {"name": "u2"})

    def fail(point: Point) -> None:
        if point is Point.APPLY_COMMIT:
            raise OSError

    with monkeypatch.context() as patch:
        patch.setattr("sparecode_node.statemachine.machine.reach", fail)
        with pytest.raises(OSError):  # noqa: PT011 - it has no words.
            world.machine.apply(world.index + 1, (call,))
    check_counted(world)


def test_a_start_reads_no_request_id() -> None:
    costs = []
    for rows in (FEW, MANY):
        world = filled(rows)
        add_user(world, 1)
        costs.append(steps(world.db, lambda world=world: StateMachine(world.db)))
    assert costs[0] == costs[1]
    request_counts.drop(world.db)
    counting = steps(world.db, lambda: StateMachine(world.db))
    assert counting > MANY


def test_counts_of_another_index_are_not_used(world: World) -> None:
    """Software that does not know the table has applied entries since."""
    add_user(world, 1)
    world.db.execute("DELETE FROM requests WHERE caller = 'agent:1'")
    meta.write(world.db, "applied_index", world.index + 1)
    world.machine = StateMachine(world.db)
    world.index += 1
    add_user(world, 2)
    check_counted(world)


def names(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return {name for (name,) in found}


def test_no_snapshot_has_counts_and_none_are_taken_from_one(tmp_path: Path) -> None:
    """Another member could let this node shed calls that the others accept."""
    world = FileWorld(tmp_path / "state.db")
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    snapshot = tmp_path / "snapshot.db"
    snapshots.write_snapshot(world.path, snapshot)
    facts = snapshots.read_facts(snapshot)
    assert not {name for name in names(snapshot) if name.startswith("request_counts")}
    honest = request_counts.count(world.db)
    with contextlib.closing(sqlite3.connect(snapshot, isolation_level=None)) as db:
        forged = {share: rows + 9999 for share, rows in honest.items()}
        request_counts.replace(db, facts.index, forged)
    assert snapshots.read_facts(snapshot) == facts
    joiner = FileWorld(tmp_path / "joiner.db")
    joiner.machine.install(str(snapshot))
    # It is counted while the snapshot is installed, not in the engine's thread.
    assert request_counts.read(joiner.db, facts.index) == honest
    joiner.machine.reload()
    assert joiner.machine._requests._shares._rows == honest
    for each in (world, joiner):
        each.db.close()


@pytest.mark.parametrize(("level", "stay"), [("1", False), ("2", True)])
def test_a_node_at_the_level_of_an_older_release_leaves_no_counts(
    tmp_path: Path, level: str, *, stay: bool
) -> None:
    """The older release does not know these tables."""
    world = FileWorld(tmp_path / "state.db")
    world.begin()
    if level == "2":
        world.handle("raise-feature-level", {"level": level})
    add_user(world, 1)
    world.machine.rest()
    world.db.close()
    assert ("request_counts" in names(world.path)) is stay
