# SPDX-License-Identifier: Apache-2.0
"""
Sets that end by time are told in batches, once each, and in their order (N6).

The golden script `set_ends_level_2` has the rules.
"""

from copy import deepcopy

import pytest

from sparecode_node.statemachine import outbox
from sparecode_node.statemachine.handlers.set_ends import NOTED_MAX
from tests.statemachine.steps import FAR_MS, steps
from tests.statemachine.test_moved_rows import ROWS, arrived
from tests.statemachine.world import START_MS, World


def with_sets(count: int) -> World:
    """Return a world of *count* users, whose codes end one after the other."""
    world = World()
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    for number in range(count):
        name, serial = f"user{number}", f"{1000 + number}"
        world.handle("create-user", {"name": name})
        world.handle("enroll", {"serial": serial, "pin-rule": "none"})
        world.handle("assign", {"serial": serial, "user": name})
        world.handle(
            "save",
            # Not in the order of the ids.
            {
                "serial": serial,
                "set": f"S{count - number:03}",
                "ends": f"{number + 1}m",
            },
        )
    return world


def ended(world: World) -> list[str]:
    """Return the tokens of the sets whose end was told, in the order of the events."""
    rows = world.db.execute(
        "SELECT target FROM audit_events WHERE action = 'SET_ENDED' ORDER BY sequence"
    )
    return [target for (target,) in rows]


def test_a_command_tells_a_bounded_number_of_ends() -> None:
    """The oldest first: a million sets that end together must not stop the sign-ins."""
    world = with_sets(NOTED_MAX + 2)
    world.handle("wait", {"1h": ""})
    told = []
    while "stale_parameters" not in (answer := world.handle("note-ended-sets", {})):
        told.append(answer)
    assert len(told) == 2
    assert ended(world) == [f"{1000 + number}" for number in range(NOTED_MAX + 2)]
    assert world.replayed().machine.digest() == world.machine.digest()


def test_only_ends_that_have_passed_are_told() -> None:
    world = with_sets(3)
    world.handle("wait", {"2m": ""})
    world.handle("note-ended-sets", {})
    world.handle("note-ended-sets", {})
    assert ended(world) == ["1000", "1001"]


def test_ends_that_are_not_due_cost_nothing() -> None:
    """The command looks into an index, and not at all sets."""

    def cost(others: int) -> int:
        world = with_sets(3)
        world.db.executemany(
            "INSERT INTO set_ends VALUES (?, ?, ?)",
            [(set_id, FAR_MS, FAR_MS) for set_id in add_sets(world, others)],
        )
        world.handle("wait", {"1h": ""})
        return steps(world.db, lambda: world.handle("note-ended-sets", {}))

    assert cost(3) == cost(300)


def add_sets(world: World, count: int) -> list[str]:
    ids = [f"other{number:03}" for number in range(count)]
    world.db.executemany(
        "INSERT INTO code_sets (set_id, serial, key_id, code_length, issuer, node_id, "
        "issued_at_ms, issued_index, voided, fixed) "
        "VALUES (?, '1000', 1, 8, 'a', 'n1', 0, 0, 0, 0)",
        [(each,) for each in ids],
    )
    return ids


def test_after_a_restore_no_earlier_end_is_told() -> None:
    """The earlier cluster may have told it, under another id; the codes are void (E1)."""
    world = with_sets(2)
    world.handle("wait", {"1m": ""})
    world.handle("begin-epoch", {"cluster": "c2"})
    world.handle("wait", {"1h": ""})
    assert "stale_parameters" in world.handle("note-ended-sets", {})
    assert ended(world) == []


@pytest.mark.parametrize(
    ("ends", "untold", "told"),
    [(60_000, 1, ["2001"]), (60_000, 0, ["2001"]), (0, 0, []), (0, 1, ["2001"])],
)
def test_a_set_that_arrives_has_an_end(ends: int, untold: int, told: list[str]) -> None:
    """One that has passed is told here if it came while the users were frozen there."""
    rows = deepcopy(ROWS)
    for kind, row in rows:
        if kind == "set":
            row["ends_at_ms"] = START_MS + ends
            row["untold"] = untold
        if kind == "codes":
            row["codes"][0][2:] = ["live", None, None, None, None]
    world, _ = arrived(rows)
    world.handle("activate-move", {"move": "in"})
    world.handle("wait", {"1h": ""})
    world.handle("note-ended-sets", {})
    assert ended(world) == told


def test_ends_that_are_put_off_leave_no_event() -> None:
    """A move that lasts for days must not fill the audit log every ten minutes."""
    world = with_sets(2)
    world.handle("freeze-users", {"move": "m"})
    world.handle("wait", {"1h": ""})
    assert world.handle("note-ended-sets", {}) == "applied"
    assert "stale_parameters" in world.handle("note-ended-sets", {})
    assert world.replayed().machine.digest() == world.machine.digest()


def test_an_end_of_long_ago_is_no_news_after_a_move() -> None:
    """(N6) It was put off again and again; its time stays."""
    world = with_sets(2)
    world.handle("freeze-users", {"move": "m"})
    for _ in range(25):
        world.handle("wait", {"1h": ""})
        world.handle("note-ended-sets", {})
    world.handle("sign-in", {})
    assert "returned" in world.handle("end-move", {"move": "m", "proof": "canceled"})
    world.handle("wait", {"10m": ""})
    answer = world.handle("note-ended-sets", {})
    assert "0 sets ended, 2 more than a day ago" in answer
    assert ended(world) == []


def test_ends_push_no_other_notice_out_of_a_full_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many sets may end at once; a new PIN that its owner did not set is worse news."""
    monkeypatch.setattr(outbox, "NOTICES_MAX", 3)
    world = with_sets(4)
    world.handle(
        "save-channel",
        {
            "name": "siem",
            "kind": "webhook",
            "tells": "emergency+sessions",
            "secret": "x",
        },
    )
    world.handle("wait", {"1h": ""})
    world.handle("note-ended-sets", {})
    world.handle("sign-in", {})
    rows = world.db.execute("SELECT action FROM notices ORDER BY number").fetchall()
    assert rows == [("SET_ENDED",), ("SET_ENDED",), ("OpenSession",)]
