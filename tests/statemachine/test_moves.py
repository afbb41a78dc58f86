# SPDX-License-Identifier: Apache-2.0
"""Moves of users that never began here."""

import pytest

from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.users import fold
from sparecode_node.statemachine.handlers import moves, reclaimed_users
from sparecode_node.statemachine.tables import moves as move_tables
from tests.statemachine.steps import steps
from tests.statemachine.world import World


@pytest.fixture
def world() -> World:
    """Return a cluster of feature level 2 whose root is signed in."""
    started = World()
    started.handle("begin", {})
    started.handle("raise-feature-level", {"level": "2"})
    return started


def end(world: World, move_id: str) -> str:
    return world.handle("end-move", {"move": move_id, "proof": "canceled"})


def test_the_number_of_moves_that_never_began_is_limited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but their own tickets tells of them."""
    monkeypatch.setattr(moves, "NEVER_MAX", 2)
    assert "m1 applied" in end(world, "m1")
    assert "m2 applied" in end(world, "m2")
    assert "m3 refused move_step" in end(world, "m3")
    assert "m2 applied" in end(world, "m2")
    assert move_tables.count_never(world.db) == 2


def test_no_call_walks_the_moves_that_never_began(world: World) -> None:
    statements: list[str] = []
    world.db.set_trace_callback(statements.append)
    move_tables.newest_of(world.db, 7)
    move_tables.overlapping(world.db, 0, 7)
    world.db.set_trace_callback(None)
    assert len(statements) == 2
    for statement in statements:
        plan = world.db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        assert [row[-1] for row in plan] == ["SCAN moves USING INDEX moves_that_decide"]


def names_in(slot: int, count: int) -> list[str]:
    """Return names of users that have one slot."""
    names = (f"u{number}" for number in range(1_000_000))
    found = (name for name in names if slot_of(fold(name)) == slot)
    return [next(found) for _ in range(count)]


def with_users(slot: int, count: int) -> World:
    started = World()
    started.handle("begin", {})
    started.handle("raise-feature-level", {"level": "2"})
    for number, name in enumerate(names_in(slot, count)):
        serial = f"{1000 + number}"
        started.handle("create-user", {"name": name})
        started.handle("enroll", {"serial": serial, "pin-rule": "none"})
        started.handle("assign", {"serial": serial, "user": name})
    return started


def versions(world: World) -> list[int]:
    """Return the version of each user: it rises when their codes end."""
    rows = world.db.execute("SELECT auth_version FROM users ORDER BY name_key")
    return [version for (version,) in rows]


def test_users_of_one_slot_are_taken_back_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot may have any number of users, and each step blocks the engine's thread."""
    monkeypatch.setattr(reclaimed_users, "RECLAIMED_MAX", 2)
    world = with_users(7, 5)
    world.handle("freeze-users", {"move": "m", "first": "6", "last": "8"})
    world.handle("wait", {"11m": ""})
    world.handle("sign-in", {})
    before, counts = versions(world), []
    while "more are left" in (answer := world.handle("reclaim-move", {"move": "m"})):
        counts.append(answer.count("2 users"))
    assert counts == [1, 1]
    assert "served here again" in answer
    assert versions(world) == [version + 1 for version in before]
    assert world.replayed().machine.digest() == world.machine.digest()


def test_users_whom_a_later_move_has_brought_back_cost_nothing() -> None:
    def cost(count: int) -> int:
        world = with_users(7, count)
        for move_id in ("first", "second"):
            world.handle("freeze-users", {"move": move_id, "first": "7", "last": "8"})
            proof = "activated" if move_id == "first" else "canceled"
            world.handle("end-move", {"move": move_id, "proof": proof})
            if move_id == "first":
                world.db.execute("UPDATE moves SET state = 'returned'")
        world.db.execute("UPDATE moves SET state = 'gone' WHERE move_id = 'first'")
        world.handle("wait", {"25h": ""})
        world.handle("sign-in", {})
        move = move_tables.find(world.db, "first")
        assert move is not None
        assert move_tables.slots_of(world.db, move) == []
        return steps(world.db, lambda: move_tables.users_of(world.db, move, 1))

    assert cost(2) == cost(40)
