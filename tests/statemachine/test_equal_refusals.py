# SPDX-License-Identifier: Apache-2.0
"""Equal refusals of one minute share their audit events (U1)."""

import pytest

from sparecode_node.domain.outcomes import Rejected
from sparecode_node.statemachine.results import Authenticated
from sparecode_node.statemachine.tables.refusals import TARGETS_MAX
from tests.statemachine.world import Arguments, World

FLOOD = 50


@pytest.fixture
def world() -> World:
    """Return a cluster of feature level 2."""
    world = World()
    world.begin()
    world.apply(world.call("raise-feature-level", {"level": "2"}))
    return world


def refuse(world: World, directive: str, arguments: Arguments) -> None:
    assert isinstance(world.apply(world.call(directive, arguments)), Rejected)


def refusals(world: World) -> list[tuple[str, str, str]]:
    """Return actor, target and detail of each refusal in the audit log."""
    return world.db.execute(
        "SELECT actor, target, detail FROM audit_events WHERE outcome = 'refused' "
        "ORDER BY sequence"
    ).fetchall()


def test_the_first_is_an_event_and_the_others_are_counted(world: World) -> None:
    """(U1) With the minute, one event tells their number."""
    for _ in range(FLOOD):
        refuse(world, "unlock-user", {"name": "nobody"})
    assert len(refusals(world)) == 1
    world.handle("wait", {"1m": "yes"})
    world.handle("barrier", {})
    assert len(refusals(world)) == 2
    assert refusals(world)[-1] == (
        *("administrator:root", refusals(world)[0][1]),
        f"{FLOOD - 1} more within a minute",
    )
    refuse(world, "unlock-user", {"name": "nobody"})
    assert len(refusals(world)) == 3


def test_one_refusal_leaves_one_event(world: World) -> None:
    """(U1)."""
    refuse(world, "unlock-user", {"name": "nobody"})
    world.handle("wait", {"1h": "yes"})
    world.handle("barrier", {})
    assert len(refusals(world)) == 1


def test_many_targets_leave_a_bounded_number_of_events(world: World) -> None:
    """(U1)."""
    for number in range(2 * TARGETS_MAX):
        refuse(world, "unlock-user", {"name": f"nobody-{number}"})
    assert len(refusals(world)) == TARGETS_MAX + 1
    world.handle("wait", {"1m": "yes"})
    world.handle("barrier", {})
    assert refusals(world)[-1][2] == f"{TARGETS_MAX - 1} more within a minute"


def test_sign_ins_with_unknown_names_are_one_kind(world: World) -> None:
    """(U1, L7)."""
    for number in range(FLOOD):
        refuse(world, "sign-in", {"as": f"unknown {number}"})
    assert len(refusals(world)) == 1


def test_wrong_passwords_are_events_each(world: World) -> None:
    """(U1, L7) They charged something."""
    for _ in range(3):
        refuse(world, "sign-in", {"password": "wrong"})
        world.handle("wait", {"10s": "yes"})
    assert len(refusals(world)) == 3


def test_each_answer_to_an_agent_is_an_event(world: World) -> None:
    """(U1) Also if nothing is charged: the agent was given the id of that decision."""
    for _ in range(3):
        result = world.apply(
            world.call("authenticate", {"user": "nobody", "code": "WRONG"})
        )
        assert isinstance(result, Authenticated)
    assert len(refusals(world)) == 3


def test_a_replay_and_a_restart_count_the_same(world: World) -> None:
    """(U1) The counts are part of the state."""
    for _ in range(3):
        refuse(world, "unlock-user", {"name": "nobody"})
    assert world.replayed().machine.digest() == world.machine.digest()


def test_level_1_records_each() -> None:
    """(U1) As release 0.1.0 does."""
    world = World()
    world.begin()
    for _ in range(3):
        refuse(world, "unlock-user", {"name": "nobody"})
    assert len(refusals(world)) == 3
