# SPDX-License-Identifier: Apache-2.0
"""Expired request ids: forgotten at once, deleted in steps (Q3)."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import MINUTE_MS, Policy
from sparecode_node.queries import requests as queries
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.settings import CALLS_PER_ENTRY_MAX
from sparecode_node.statemachine import requests, snapshots
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.requests import ANY_DUE, PURGE, PURGED_PER_ENTRY_MAX
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.tables import request_counts
from tests.statemachine.test_properties import ANYTHING, BEGINNING, LIVES
from tests.statemachine.test_snapshots import FileWorld
from tests.statemachine.world import START_MS, World

LATER = {"11m": "yes"}
"""The time at which a request decided now expires."""
ROOM = 10_000
"""The smallest table that a policy allows."""

Row = tuple[int, str, str, str]


def begun(world: World) -> World:
    """Return a cluster that remembers no request, not even its first."""
    world.begin()
    world.db.execute("DELETE FROM requests")
    request_counts.drop(world.db)
    world.machine = StateMachine(world.db)
    return world


@pytest.fixture
def world() -> World:
    return begun(World())


def add(world: World, count: int, *, seed: int = 0) -> None:
    """Record calls of the first minute, in an order of their own."""
    rng = random.Random(seed)
    rows = [
        (f"agent:{number % 3}", "m", f"r{number}", START_MS + number % 7)
        for number in range(count)
    ]
    rng.shuffle(rows)
    world.db.executemany("INSERT INTO requests VALUES (?, ?, ?, 0, ?, '{}', 0)", rows)
    request_counts.drop(world.db)
    world.machine = StateMachine(world.db)  # The machine counts them when it starts.


def left(world: World) -> list[Row]:
    """Return the remaining ones, in the order of deletion."""
    return world.db.execute(
        "SELECT at_ms, caller, method, request_id FROM requests WHERE method = 'm' "
        "ORDER BY at_ms, caller, method, request_id"
    ).fetchall()


def counted(world: World) -> int:
    """Return the number of rows, which the machine must have counted too."""
    (rows,) = world.db.execute("SELECT count(*) FROM requests").fetchone()
    assert world.machine._requests._shares.total == rows
    return int(rows)


def user(world: World, number: int, **fields: str) -> Call:
    return world.call("create-user", {"name": f"u{number}", **fields})


# --- Rows deleted with an entry


@pytest.mark.parametrize("query", [PURGE, ANY_DUE])
def test_expired_ids_are_found_by_time_without_sorting(
    world: World, query: str
) -> None:
    parameters = (0,) * query.count("?")
    plan = world.db.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
    steps = [step[-1] for step in plan]
    by_time = "SEARCH requests USING COVERING INDEX requests_by_time (at_ms<?)"
    assert by_time in steps
    assert not [step for step in steps if "SCAN requests" in step or "TEMP" in step]


def test_an_entry_deletes_a_bounded_number_and_the_oldest_first(world: World) -> None:
    """After any silence, and for any number of calls in the entry (Q3)."""
    add(world, 3 * PURGED_PER_ENTRY_MAX + 5)
    before = left(world)
    world.handle("wait", LATER)
    for step in range(1, 4):
        calls = [
            replace(
                user(world, 10 * step + each), at_ms=world.now_ms + 10 * step + each
            )
            for each in range(3)
        ]
        world.apply_batch(calls)
        assert left(world) == before[step * PURGED_PER_ENTRY_MAX :]
        counted(world)
    assert len(left(world)) == 5
    world.apply(world.call("barrier", {}))
    assert not left(world)


def test_an_entry_deletes_more_than_it_can_add() -> None:
    """Otherwise the table would grow while all of it has expired."""
    assert PURGED_PER_ENTRY_MAX >= 2 * CALLS_PER_ENTRY_MAX


def test_clock_that_stands_keeps_no_row(world: World) -> None:
    """A primary whose clock is behind stamps the same time repeatedly (T5)."""
    add(world, 2 * PURGED_PER_ENTRY_MAX)
    world.handle("wait", LATER)
    for number in range(2):
        assert left(world)
        world.apply(user(world, number))
    assert not left(world)


def test_what_policy_makes_due_goes_at_once(world: World) -> None:
    """Whether the log's time moves or not."""
    for retention, wait in (("1h", "30m"), ("10m", "0s")):
        changes = {"request_retention_ms": retention, "second_approver": "no"}
        result = world.apply(world.call("update-policy", changes))
        assert not isinstance(result, Rejected)
        if not left(world):
            add(world, 5)
        world.handle("wait", {wait: "yes"})
        world.apply(world.call("barrier", {}))
    assert not left(world)


@pytest.mark.parametrize("passes", ["at once", "restart", "snapshot"])
def test_deleted_rows_depend_on_the_rows_alone(tmp_path: Path, passes: str) -> None:
    """Not on their place on disk, nor on restarts and snapshots."""
    worlds = [FileWorld(tmp_path / f"{name}.db") for name in "ab"]
    for seed, each in enumerate(worlds):
        begun(each)
        add(each, 3 * PURGED_PER_ENTRY_MAX, seed=seed)
        each.handle("wait", LATER)
    one, other = worlds
    for number in range(5):
        if number == 2:
            again(passes, one, other, tmp_path)
        call = user(one, number)
        one.apply(call)
        other.apply(call)
        assert one.machine.digest() == other.machine.digest()
        assert counted(one) == counted(other)
        assert left(one) == left(other)
    for each in worlds:
        each.db.close()


def again(passes: str, one: FileWorld, other: FileWorld, folder: Path) -> None:
    """Restart the other node with its own state, or with the first node's."""
    if passes == "restart":
        other.machine = StateMachine(other.db)
    elif passes == "snapshot":
        snapshots.write_snapshot(one.path, folder / "snapshot")
        other.machine.install(str(folder / "snapshot"))
        other.machine.reload()


# --- Room


@pytest.fixture
def small(world: World) -> Iterator[World]:
    """Return a world whose table is small and full."""
    changes = {"requests_max": str(ROOM), "second_approver": "no"}
    assert not isinstance(world.apply(world.call("update-policy", changes)), Rejected)
    add(world, ROOM - counted(world))
    return world


def test_table_full_of_expired_rows_sheds_no_call(small: World) -> None:
    """
    After a silence all rows have expired: there is room although they are there (Q3).

    The disk stays bounded: never more rows than the policy allows.
    """
    shed = small.apply(user(small, 0))
    assert isinstance(shed, Rejected)
    assert shed.reason is Reason.REQUEST_TABLE_FULL
    small.handle("wait", LATER)
    for entry in range(ROOM // PURGED_PER_ENTRY_MAX + 1):
        assert left(small)
        calls = [
            user(small, entry * CALLS_PER_ENTRY_MAX + each)
            for each in range(CALLS_PER_ENTRY_MAX)
        ]
        results = small.apply_batch(calls)
        assert not [each for each in results if isinstance(each, Rejected)]
        assert counted(small) <= ROOM
    assert not left(small)


def test_a_smaller_table_sheds_no_call_while_rows_are_expired(
    world: World,
) -> None:
    """More rows than allowed, all expired: no call is shed, and their number falls."""
    add(world, ROOM + 2 * PURGED_PER_ENTRY_MAX)
    changes = {"requests_max": str(ROOM), "second_approver": "no"}
    assert not isinstance(world.apply(world.call("update-policy", changes)), Rejected)
    assert isinstance(world.apply(user(world, 0)), Rejected)
    world.handle("wait", LATER)
    before = counted(world)
    assert not isinstance(world.apply(user(world, 1)), Rejected)
    assert counted(world) == before - PURGED_PER_ENTRY_MAX + 1 > ROOM


def test_table_full_of_live_rows_sheds(world: World) -> None:
    """Also with the entry that deletes the last expired ones."""
    changes = {"requests_max": str(ROOM), "second_approver": "no"}
    assert not isinstance(world.apply(world.call("update-policy", changes)), Rejected)
    add(world, PURGED_PER_ENTRY_MAX - counted(world))
    world.handle("wait", LATER)
    world.db.executemany(
        "INSERT INTO requests VALUES ('agent:new', 'n', ?, 0, ?, '{}', 0)",
        [(f"n{number}", world.now_ms) for number in range(ROOM)],
    )
    world.machine = StateMachine(world.db)
    shed = world.apply(user(world, 1))
    assert isinstance(shed, Rejected)
    assert shed.reason is Reason.REQUEST_TABLE_FULL
    assert counted(world) == ROOM


# --- Expired ids


@pytest.fixture
def spent(world: World) -> tuple[World, Call]:
    """Return a world with a code accepted long ago, behind rows deleted first."""
    for directive, arguments in (
        ("create-user", {"name": "alice"}),
        ("enroll", {"serial": "1001", "pin-rule": "none"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("save", {"serial": "1001", "set": "A", "count": "3"}),
    ):
        assert not isinstance(world.apply(world.call(directive, arguments)), Rejected)
    call = world.call("authenticate", {"user": "alice", "code": "A/1", "request": "x"})
    assert decision(world.apply(call)) == "accepted"
    add(world, 3 * PURGED_PER_ENTRY_MAX)
    world.db.execute("UPDATE requests SET at_ms = at_ms - 1000 WHERE method = 'm'")
    world.handle("wait", LATER)
    return world, call


def decision(result: Result) -> str:
    return str(getattr(result, "decision", result))


def stored_rows(world: World, call: Call) -> list[Any]:
    return world.db.execute(
        "SELECT at_ms, tag FROM requests WHERE request_id = ?",
        (call.request.request_id,),
    ).fetchall()


def test_expired_id_is_decided_again_though_its_row_is_there(
    spent: tuple[World, Call],
) -> None:
    """
    As if it had been deleted: the code stays used, and the new answer is stored.

    The id has one row throughout.
    """
    world, call = spent
    world.apply(world.call("barrier", {}))
    assert stored_rows(world, call) == [(START_MS, call.request.tag)]
    again = replace(call, at_ms=world.now_ms)
    result = world.apply(again)
    assert decision(result) == "refused"
    assert stored_rows(world, call) == [(world.now_ms, call.request.tag)]
    assert left(world)
    counted(world)
    assert world.apply(again) == result


def test_id_is_remembered_for_ten_minutes_and_not_less(world: World) -> None:
    call = user(world, 1)
    first = world.apply(call)
    for after_ms, same in ((10 * MINUTE_MS, True), (10 * MINUTE_MS + 1, False)):
        again = replace(call, at_ms=START_MS + after_ms)
        assert (world.apply(again) == first) is same


HOUR_MS = 60 * MINUTE_MS


class Clocks:
    """Repeats a call at times of the primary's two clocks, since its first decision."""

    def __init__(self, world: World, *, level: int = 2) -> None:
        if level > 1:
            world.handle("raise-feature-level", {"level": str(level)})
        self._world = world
        self._call = user(world, 1)
        self._first = self.apply(0, 0)

    def apply(self, wall_ms: int, monotonic_ms: int) -> Result:
        """Apply the call again."""
        return self._world.apply(
            replace(self._call, at_ms=START_MS + wall_ms, monotonic_ms=7 + monotonic_ms)
        )

    def remember(self, wall_ms: int, monotonic_ms: int) -> bool:
        """Return whether the first answer is given."""
        (stored,) = self._world.db.execute(
            "SELECT count(*) FROM requests WHERE request_id = ?",
            (self._call.request.request_id,),
        ).fetchone()
        assert stored == 1
        return self.apply(wall_ms, monotonic_ms) == self._first


def test_id_outlives_a_clock_that_jumps_ahead(world: World) -> None:
    """(Q3) Ten minutes have to pass by the primary's monotonic time, too."""
    clocks = Clocks(world)
    assert clocks.remember(HOUR_MS, 1_000)
    assert clocks.remember(HOUR_MS, 10 * MINUTE_MS)
    assert not clocks.remember(HOUR_MS, 10 * MINUTE_MS + 1)


def test_id_outlives_a_clock_that_stands(world: World) -> None:
    """(Q3) Ten minutes have to pass by the log's time, too, as before."""
    clocks = Clocks(world)
    assert clocks.remember(10 * MINUTE_MS, HOUR_MS)
    assert not clocks.remember(10 * MINUTE_MS + 1, HOUR_MS + 1)


def test_ids_are_forgotten_while_the_time_waits_for_the_clocks(world: World) -> None:
    """(Q3, T5) After a jump that was undone, the log's time stands for an hour."""
    clocks = Clocks(world)
    assert clocks.remember(HOUR_MS, 0)
    assert clocks.remember(0, 9 * MINUTE_MS)
    assert not clocks.remember(0, 11 * MINUTE_MS)


def test_a_monotonic_time_that_goes_back_is_that_of_before(world: World) -> None:
    """(Q3) Of a new primary that has not applied everything yet."""
    clocks = Clocks(world)
    assert clocks.remember(HOUR_MS, 9 * MINUTE_MS)
    assert clocks.remember(HOUR_MS, 0)
    assert not clocks.remember(HOUR_MS, 11 * MINUTE_MS)


def test_a_call_without_a_monotonic_time_counts_by_its_stamp(world: World) -> None:
    """(Q3) The offline beginning of an epoch knows none."""
    clocks = Clocks(world)
    assert clocks.remember(5 * MINUTE_MS, -7)
    assert not clocks.remember(11 * MINUTE_MS, -7)


def test_ages_outlive_a_restart() -> None:
    """(Q3) They are part of the state, so every replica knows the same."""
    world = World()
    world.begin()
    clocks = Clocks(world)
    assert clocks.remember(HOUR_MS, 9 * MINUTE_MS)
    world.machine = StateMachine(world.db)
    assert clocks.remember(HOUR_MS, 10 * MINUTE_MS)
    assert world.machine.digest() == world.replayed().machine.digest()


def test_below_level_2_the_stamped_time_alone_counts(world: World) -> None:
    """As in release 0.1.0, which the state does not differ from."""
    clocks = Clocks(world, level=1)
    assert not clocks.remember(HOUR_MS, 1_000)
    rows = world.db.execute("SELECT name FROM meta WHERE name LIKE '%_ms'").fetchall()
    assert rows == [("now_ms",)]


def test_expired_id_may_be_used_for_something_else(
    spent: tuple[World, Call],
) -> None:
    world, call = spent
    other = world.call(
        "authenticate", {"user": "alice", "code": "A/2", "request": "x", "tag": "8"}
    )
    assert decision(world.apply(other)) == "accepted"
    assert stored_rows(world, call) == [(world.now_ms, 8)]


def test_expired_id_is_gone_even_if_nothing_was_decided(
    spent: tuple[World, Call],
) -> None:
    """Time removed it; a call whose result is not stored does not bring it back."""
    world, call = spent
    stale = world.call(
        "authenticate",
        {"user": "alice", "code": "A/2", "request": "x", "auth-version": "0"},
    )
    result = world.apply(stale)
    assert isinstance(result, Rejected)
    assert result.reason is Reason.STALE_PARAMETERS
    assert not stored_rows(world, call)
    counted(world)


@pytest.mark.asyncio
async def test_nodes_find_no_expired_id(tmp_path: Path) -> None:
    """A node does not answer from the table what apply would decide again (Q2)."""
    world = FileWorld(tmp_path / "state.db")
    begun(world)
    call = user(world, 1)
    world.apply(call)
    add(world, 2 * PURGED_PER_ENTRY_MAX)
    world.db.execute("UPDATE requests SET at_ms = at_ms - 1000 WHERE method = 'm'")
    state = await LocalState.open(world.path)

    async def known() -> bool:
        async with state.transaction() as transaction:
            return await queries.find(transaction, call.request) is not None

    try:
        assert await known()
        for after_ms, expected in ((10 * MINUTE_MS, True), (10 * MINUTE_MS + 1, False)):
            world.now_ms = START_MS + after_ms
            world.apply(world.call("barrier", {}))
            assert stored_rows(world, call)
            assert await known() is expected
        world.handle("raise-feature-level", {"level": "2"})
        call = user(world, 2)
        world.apply(replace(call, monotonic_ms=7))
        world.now_ms += HOUR_MS
        world.apply(replace(world.call("barrier", {}), monotonic_ms=8))
        assert await known()
    finally:
        await state.close()
        world.db.close()


# --- Random histories


def contents(world: World, table: str) -> list[Any]:
    return world.db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()  # noqa: S608


def same_but_for_what_is_due(one: World, other: World) -> None:
    """Compare all tables, and only the live request ids."""
    names = one.db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' "
        "AND name NOT IN ('meta', 'requests') AND name NOT LIKE 'sqlite_%' "
        "AND name NOT LIKE 'request_counts%'"  # They count rows that are due, too.
    ).fetchall()
    for (name,) in names:
        rows = [
            world.db.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
            for world in (one, other)
        ]
        assert sorted(map(repr, rows[0])) == sorted(map(repr, rows[1])), name
    remembered = [
        world.db.execute(
            "SELECT * FROM requests WHERE at_ms >= ? ORDER BY caller, method, request_id",
            (world.machine.now_ms - Policy().request_retention_ms,),
        ).fetchall()
        for world in (one, other)
    ]
    assert remembered[0] == remembered[1]


class AtOnce(requests.Requests):
    """Request ids of which all that are due go with one entry."""

    def begin_entry(self) -> None:
        self._purges_left = 2**63 - 1  # The most that SQLite takes for a limit.


@LIVES
@given(st.lists(ANYTHING, max_size=25), st.integers(1, 2), st.booleans())
def test_purging_in_steps_decides_as_purging_at_once(
    life: Sequence[tuple[str, Any]], most: int, restarts: bool
) -> None:
    """
    Random histories with steps of one or two rows: no answer differs.

    Nor does a node that is restarted between any two entries.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(requests, "PURGED_PER_ENTRY_MAX", most)
        steps, at_once = World(), World()
        begun(steps)
        begun(at_once)
        at_once.machine._requests = AtOnce(at_once.db, at_once.index)
        for directive, arguments in (*BEGINNING[1:], *life):
            if directive == "wait":
                steps.handle(directive, arguments)
                continue
            call = steps.call(directive, arguments)
            assert steps.apply(call) == at_once.apply(call)
            same_but_for_what_is_due(steps, at_once)
            counted(steps)
            if restarts:
                steps.machine = StateMachine(steps.db)
        for _ in range(40):
            steps.apply(steps.call("barrier", {}))
        at_once.apply(steps.call("barrier", {}))
        assert contents(steps, "requests") == contents(at_once, "requests")
