# SPDX-License-Identifier: Apache-2.0
"""One entry, one transaction: all or nothing, in the database and in memory."""

import sqlite3
from typing import Any

import pytest

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import TIME_MS_MAX
from sparecode_node.statemachine.commands.users import UnlockUser
from sparecode_node.statemachine.handlers import sessions, users
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import Applied, BarrierPassed
from tests.databases import open_database
from tests.statemachine.world import START_MS, World


class DiskError(Exception):
    """The error that a test raises in the middle of an entry."""


@pytest.fixture
def world() -> World:
    """Return an initialized cluster with a user."""
    world = World()
    world.begin()
    world.apply(world.call("create-user", {"name": "alice"}))
    return world


def breaks(*_: object) -> None:
    raise DiskError


def remembered(world: World) -> tuple[Any, ...]:
    """Return what the machine keeps in memory, as it was told."""
    machine = world.machine
    return (
        machine.applied_index,
        machine._now_ms,
        machine._audit.head,
        machine._audit.sequence,
        machine._requests._shares.total,
        machine._policy,
        machine._initialized,
    )


def test_an_exception_rolls_the_whole_entry_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nothing of the entry stays: rows, index, time, audit head, request count.

    The node stops then; until that, it would answer from the previous state.
    """
    before = world.machine.digest(), remembered(world)
    world.now_ms += 1_000
    calls = [
        world.call("create-user", {"name": "bob"}),
        world.call("unlock-user", {"name": "bob"}),
    ]
    with monkeypatch.context() as broken:
        broken.setattr(users, "unlock_user", breaks)
        with pytest.raises(DiskError):
            world.machine.apply(world.index + 1, calls)
    assert (world.machine.digest(), remembered(world)) == before

    again = World.replayed(world)
    results = world.apply_batch(calls)
    assert results == again.machine.apply(world.index, calls)
    assert [type(result) for result in results] == [Applied, Applied]
    assert world.machine.digest() == again.machine.digest()


def test_a_failed_initialization_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The policy in memory is that of the database."""
    world = World()
    calls = [world.call("init", {}), world.call("sign-in", {})]
    with monkeypatch.context() as broken:
        broken.setattr(sessions, "open_session", breaks)
        with pytest.raises(DiskError):
            world.machine.apply(1, calls)
    result = world.apply(world.call("create-user", {"name": "alice"}))
    assert isinstance(result, Rejected)
    assert result.reason is Reason.NOT_INITIALIZED


class FailingCommit(sqlite3.Connection):
    """A database whose disk is full at the right moment."""

    full = False
    rolls_back = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Fail at COMMIT, as SQLite does: with the transaction open, or rolled back."""
        if sql == "COMMIT" and self.full:
            if self.rolls_back:
                super().execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *arguments)


@pytest.mark.parametrize("rolls_back", [True, False])
def test_a_commit_that_fails_leaves_no_transaction_open(*, rolls_back: bool) -> None:
    """The error is SQLite's own, and nothing is half done."""
    db = open_database(factory=FailingCommit)
    machine = StateMachine(db)
    world = World()
    machine.apply(1, [world.call("init", {})])
    digest = machine.digest()
    db.full, db.rolls_back = True, rolls_back
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        machine.apply(2, [world.call("sign-in", {})])
    assert not db.in_transaction
    assert (machine.applied_index, machine.digest()) == (1, digest)
    db.full = False
    machine.apply(2, [world.call("sign-in", {})])
    assert machine.applied_index == 2


def test_a_barrier_changes_nothing_but_the_time(world: World) -> None:
    """Its result covers everything that was committed before."""
    barrier = world.call("barrier", {})
    digest = world.machine.digest()
    assert world.apply(barrier) == BarrierPassed(index=world.index, at_ms=START_MS)
    assert world.apply(barrier) == BarrierPassed(index=world.index, at_ms=START_MS)
    assert world.machine.digest() == digest


def test_the_calls_of_an_entry_see_one_another(world: World) -> None:
    """Each is judged in the state that the previous one left."""
    first, second = world.apply_batch(
        [
            world.call("create-user", {"name": "bob"}),
            world.call("create-user", {"name": "BOB"}),
        ]
    )
    assert isinstance(first, Applied)
    assert isinstance(second, Rejected)
    assert second.reason is Reason.USER_EXISTS


def rows(world: World) -> dict[str, list[Any]]:
    """Return everything but the audit log, the requests and the index."""
    tables = [
        name
        for (name,) in world.db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        )
        if name not in {"audit_events", "requests", "meta"}
        and not name.startswith("request_counts")
    ]
    return {
        name: world.db.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608 - names of the schema.
        for name in tables
    }


def test_a_refusal_leaves_its_event_and_its_answer_and_nothing_else(
    world: World,
) -> None:
    """`DisableEmergencyAccess` voids before it knows; that is undone (U1, Q2)."""
    for directive, arguments in (
        ("enroll", {"serial": "1001", "pin-rule": "none"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("save", {"serial": "1001", "count": "1"}),
        ("authenticate", {"user": "alice", "code": "A/1"}),
    ):
        world.apply(world.call(directive, arguments))
    before, counts = rows(world), world.machine._requests._shares.total
    events = world.machine._audit.sequence
    result = world.apply(world.call("disable", {"serial": "1001"}))
    assert isinstance(result, Rejected)
    assert rows(world) == before
    assert world.machine._audit.sequence == events + 1
    assert world.machine._requests._shares.total == counts + 1


def test_time_ends_with_the_year_9999(world: World) -> None:
    """A broken clock gives no number that the database cannot hold (T5)."""
    for at_ms in (TIME_MS_MAX + 1, 2**63 - 1):
        world.now_ms = at_ms
        result = world.apply(world.call("barrier", {}))
        assert result == BarrierPassed(index=world.index, at_ms=TIME_MS_MAX)
    opened = world.apply(world.call("sign-in", {"session": "s9"}))
    assert not isinstance(opened, Rejected)


def test_a_command_that_is_refused_early_is_not_decided(world: World) -> None:
    """A caller without a session does not learn whether the user exists (P1)."""
    call = world.call("unlock-user", {"name": "nobody", "session": "none"})
    assert isinstance(call.command, UnlockUser)
    result = world.apply(call)
    assert isinstance(result, Rejected)
    assert result.reason is Reason.SESSION_ENDED
