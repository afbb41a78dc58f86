# SPDX-License-Identifier: Apache-2.0
"""Moves of users: which one decides for a slot, and what they cost."""

import random
from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.moves import ELSEWHERE, OPEN, Move, MoveState, MoveTicket
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.users import fold
from sparecode_node.statemachine.commands.moves import ImportMovedUsers
from sparecode_node.statemachine.handlers import moves, reclaimed_users
from sparecode_node.statemachine.results import Applied
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


def move_of(
    number: int, first: int, last: int, state: MoveState = MoveState.GONE
) -> Move:
    """Return a move from this cluster."""
    ticket = MoveTicket(
        move_id=f"m{number}",
        first_slot=first,
        last_slot=last,
        source="c1",
        target="c2",
        source_key_id=1,
        public_key=b"",
        activated_lock=b"",
        canceled_lock=b"",
    )
    return Move(ticket=ticket, state=state, began_at_ms=1, ended_at_ms=2, key_id=1)


SERVED, MOVED = 0, 1
"""A slot that never moved, and one that left by the first of all moves."""
MOVES_MAX = 4_000


def add_moves(world: World, count: int) -> None:
    """Move single slots, many of them several times."""
    for number in range(count):
        slot = MOVED + (number and 1 + number % 1_000)
        move_tables.begin(world.db, move_of(number, slot, slot))


def test_looking_a_slot_up_costs_the_same_with_any_number_of_moves() -> None:
    """Every node looks up the slot of each sign-in while it applies it."""

    def cost(slot: int, count: int) -> int:
        world = World()
        add_moves(world, count)
        found = move_tables.newest_of(world.db, slot)
        assert (found is not None) is (slot == MOVED)
        return steps(world.db, lambda: move_tables.newest_of(world.db, slot))

    assert cost(SERVED, 0) == cost(SERVED, 1) == cost(SERVED, MOVES_MAX)
    assert cost(MOVED, 1) == cost(MOVED, MOVES_MAX)


@pytest.mark.parametrize("slot", [SERVED, MOVED], ids=["served", "moved"])
def test_a_sign_in_costs_the_same_with_any_number_of_moves(slot: int) -> None:
    def cost(count: int) -> int:
        world = with_users(slot, 1)
        add_moves(world, count)
        [name] = names_in(slot, 1)
        call = world.call("authenticate", {"user": name, "serial": "1000", "step": "9"})
        results: list[object] = []
        taken = steps(world.db, lambda: results.append(world.apply(call)))
        assert isinstance(results[0], Rejected) is (slot == MOVED)
        return taken

    assert cost(1) == cost(MOVES_MAX)


def test_the_newest_move_decides_for_each_slot(world: World) -> None:
    """A move that never began decides for none."""
    rng = random.Random(7)
    began: list[Move] = []
    for number in range(300):
        first = rng.randrange(40)
        state = rng.choice([*OPEN, *ELSEWHERE, MoveState.RETURNED, MoveState.NEVER])
        move = move_of(number, first, rng.randrange(first, 40), state)
        if state is MoveState.NEVER:
            move_tables.save(world.db, move)
        else:
            move_tables.begin(world.db, move)
            began.append(move)
    deciding: dict[int, Move] = {}
    for move in began:
        slots = range(move.ticket.first_slot, move.ticket.last_slot + 1)
        deciding |= dict.fromkeys(slots, move)
    for slot in range(42):
        assert move_tables.newest_of(world.db, slot) == deciding.get(slot)
    kept = [move for move in reversed(began) if move in deciding.values()]
    assert move_tables.newest_of_each(world.db, 0, 41) == kept
    for move in began:
        owned = [slot for slot in sorted(deciding) if deciding[slot] == move]
        ranges = move_tables.slots_of(world.db, move)
        assert [slot for each in ranges for slot in each] == owned


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"number": 0, "chain": b"chain 0", "last": False}, None),
        ({"number": 1, "chain": b"chain 1", "last": False}, None),
        ({"number": 0, "chain": b"chain 0", "last": True}, Reason.MOVE_EXPORT),
        ({"number": 1, "chain": b"chain 1", "last": True}, Reason.MOVE_EXPORT),
        ({"number": 1, "chain": b"another", "last": False}, Reason.MOVE_EXPORT),
    ],
)
def test_a_piece_of_another_export_is_not_taken_for_an_imported_one(
    world: World, changed: dict[str, Any], reason: Reason | None
) -> None:
    """A node that is behind sends what it has not compared."""
    world.handle("prepare-move", {"move": "in"})
    for number in ("0", "1"):
        world.handle("import-moved", {"move": "in", "number": number, "more": "yes"})
    call = world.call("import-moved", {"move": "in"})
    assert isinstance(call.command, ImportMovedUsers)
    result = world.apply(replace(call, command=replace(call.command, **changed)))
    if reason is None:
        assert isinstance(result, Applied)
    else:
        assert isinstance(result, Rejected)
        assert result.reason is reason


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
