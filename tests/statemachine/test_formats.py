# SPDX-License-Identifier: Apache-2.0
"""Each feature level has its table format, and there is a way to the next and back."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.snapshots import (
    check_snapshot,
    read_facts,
    write_snapshot,
)
from sparecode_node.statemachine.tables import formats, schema
from tests.databases import open_database
from tests.statemachine.next_format import FORMAT, begin_next_format
from tests.statemachine.world import World


def version(db: sqlite3.Connection) -> int:
    (number,) = db.execute("PRAGMA user_version").fetchone()
    return int(number)


def shape(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Return the columns and indexes of every table, without the text of their SQL."""
    return db.execute(
        'SELECT tables.type, tables.name, found.name, found.type, "notnull", '
        "dflt_value, pk FROM sqlite_schema AS tables "
        "LEFT JOIN pragma_table_info(tables.name) AS found "
        "WHERE tables.name NOT LIKE 'sqlite_%' ORDER BY tables.name, found.cid"
    ).fetchall()


@pytest.mark.parametrize("level", range(1, schema.VERSION))
def test_every_format_has_a_way_to_the_newest_and_back(level: int) -> None:
    """No table, column or index is forgotten on either way."""
    db = open_database()
    formats.prepare(db)
    newest = shape(db)
    formats.convert(db, level)
    older = shape(db)
    assert version(db) == level
    assert set(formats.columns(level)) == {
        name for kind, name, *_ in older if kind == "table"
    }
    formats.prepare(db)
    assert version(db) == schema.VERSION
    assert shape(db) == newest
    formats.convert(db, level)
    assert shape(db) == older


def test_a_format_has_the_number_of_its_level() -> None:
    """A change of the tables begins a level: the two cannot come apart."""
    assert schema.VERSION == feature_level.NEWEST
    assert set(formats.MIGRATIONS) < set(range(1, schema.VERSION + 1))


def test_the_columns_of_a_format_reach_no_fault_point() -> None:
    """They are read once in a process: a seed would depend on the seeds before it."""
    reached: list[Point] = []
    before = fault_points.install(reached.append)
    try:
        formats.columns.cache_clear()
        formats.columns(1)
    finally:
        fault_points.install(before)
    assert reached == []


def test_a_stopped_node_leaves_the_format_of_the_cluster_s_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The older release opens it; the newer one goes on from it, too."""
    begin_next_format(monkeypatch)
    world = World()
    world.begin()
    world.handle("raise-feature-level", {"level": str(FORMAT - 1)})
    before = world.machine.digest()
    assert version(world.db) == FORMAT
    world.machine.rest()
    assert version(world.db) == FORMAT - 1
    assert "extra" not in str(shape(world.db))
    assert digest(world.db) == before
    again = StateMachine(world.db)
    assert (version(world.db), again.digest()) == (FORMAT, before)

    world.machine = again
    world.handle("raise-feature-level", {"level": str(FORMAT)})
    assert again.digest() != before
    again.rest()
    assert version(world.db) == FORMAT


def test_a_snapshot_has_the_format_of_the_cluster_s_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of the older release takes an upgraded primary's snapshot."""
    world = World()
    world.begin()
    level = world.machine.feature_level
    begin_next_format(monkeypatch)
    for new, number in ((level, 1), (FORMAT, 2)):
        state = tmp_path / f"{number}.db"
        with contextlib.closing(sqlite3.connect(state)) as copy:
            world.db.backup(copy)
            machine = StateMachine(copy)
            if new == FORMAT:
                feature_level.raise_to(copy, FORMAT)
            facts = write_snapshot(state, tmp_path / f"{number}.snapshot")
            assert facts.digest == ("" if new == FORMAT else machine.digest())
            assert version(copy) == FORMAT
            digest_now = machine.digest()
        assert check_snapshot(tmp_path / f"{number}.snapshot") == facts
        assert read_facts(tmp_path / f"{number}.snapshot").digest == digest_now
        assert [path.name for path in tmp_path.glob(f"{number}.snapshot*")] == [
            f"{number}.snapshot"
        ]
        with contextlib.closing(
            sqlite3.connect(tmp_path / f"{number}.snapshot")
        ) as written:
            assert version(written) == new
