# SPDX-License-Identifier: Apache-2.0
"""Large estates are built by rows: these are the rows that apply writes."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up

from sparecode_node.queries import seals
from sparecode_node.queries.state import LocalState
from sparecode_node.statemachine import audit, snapshots
from sparecode_node.statemachine.sealed_events import (
    SealedEvents,
    create,
    file_of,
    open_log,
)
from tests.bench import population as populations
from tests.bench.bulk import FastBuilder, History
from tests.bench.population import Builder, Population

BEGIN_MS = 1_700_000_000_000
EACH_MS = 60_000
EVENTS = 300
SEGMENT = 40
USERS = Population(users=150, profile="testing", usable=24)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set up one node, which is never started."""
    return set_up(tmp_path_factory.mktemp("keys"), nodes=1, testing=True).directory


def digest(state: Path) -> str:
    return snapshots.read_state(state).digest


def log_of(state: Path) -> list[tuple[object, ...]]:
    """Return all events of both files, and the segments."""
    with contextlib.closing(open_log(state)) as db:
        events = db.execute("SELECT * FROM audit_events ORDER BY sequence").fetchall()
        stored = db.execute("SELECT * FROM stored_segments ORDER BY number").fetchall()
    return [*events, *stored]


def users_in(state: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(state)) as db:
        return db.execute("SELECT * FROM users ORDER BY user_id").fetchall()


def build(
    builder: type[Builder], cluster: LocalCluster, path: Path, steps: pytest.MonkeyPatch
) -> Path:
    # Ten minutes end while users are added: requests are forgotten on the way.
    for module in (populations, __import__("tests.bench.bulk", fromlist=["bulk"])):
        steps.setattr(module, "STEP_MS", 100_000)
        steps.setattr(module, "CALLS_PER_ENTRY", 8)
    steps.setattr(populations, "USERS_AT_ONCE", 16)
    builder(cluster, path, USERS, until_ms=BEGIN_MS - EACH_MS).build()
    return path


def test_users_by_rows_are_those_of_apply(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = LocalCluster.load(keys)
    applied = build(Builder, cluster, tmp_path / "applied.db", monkeypatch)
    written = build(FastBuilder, cluster, tmp_path / "written.db", monkeypatch)
    assert log_of(written) == log_of(applied)
    assert digest(written) == digest(applied)
    # The digest leaves out what can be computed from the rest, such as slots.
    assert users_in(written) == users_in(applied)


def test_years_by_rows_are_those_of_apply(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a node proves of each segment, and what no longer is in the state."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", SEGMENT)
    cluster = LocalCluster.load(keys)
    states = {}
    for name in ("apply", "write"):
        state = build(FastBuilder, cluster, tmp_path / f"{name}.db", monkeypatch)
        history = History(
            cluster,
            state,
            USERS,
            events=EVENTS,
            begin_ms=BEGIN_MS,
            end_ms=BEGIN_MS + EVENTS * EACH_MS,
        )
        getattr(history, name)()
        states[name] = state
    assert log_of(states["write"]) == log_of(states["apply"])
    assert digest(states["write"]) == digest(states["apply"])
    state = states["write"]
    create(state)
    file = SealedEvents(state)
    try:
        assert len(file.segments()) > EVENTS // SEGMENT
        for segment in file.segments():
            file.verify(segment)
    finally:
        file.close()
    with contextlib.closing(sqlite3.connect(state)) as db:
        (left,) = db.execute("SELECT count(*) FROM audit_events").fetchone()
    assert left <= SEGMENT, "sealed events are in the file alone"
    assert file_of(state).exists()


@pytest.mark.asyncio
async def test_an_estate_leaves_nodes_nothing_to_do_in_the_background(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they do it while they are measured."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", SEGMENT)
    cluster = LocalCluster.load(keys)
    state = build(Builder, cluster, tmp_path / "applied.db", monkeypatch)
    populations.settle(cluster, state, USERS)
    populations.store_sealed(state)
    await populations.index_names_of(state)
    with contextlib.closing(open_log(state)) as db:
        segments = db.execute("SELECT number FROM audit_segments").fetchall()
        stored = db.execute("SELECT number FROM stored_segments").fetchall()
        (left,) = db.execute("SELECT count(*) FROM main.audit_events").fetchone()
        (events,) = db.execute("SELECT count(*) FROM audit_events").fetchone()
    assert stored == segments
    assert len(segments) == events // SEGMENT > 1
    assert left < SEGMENT
    reading = await LocalState.open(state)
    try:
        async with reading.transaction() as transaction:
            active = (await seals.keys(transaction)).active
            assert await seals.to_replace(transaction, active, most=1) == []
            position = reading.search._file.position()
            assert position is not None
            assert position.sequence == events
    finally:
        await reading.close()
