# SPDX-License-Identifier: Apache-2.0
"""What the state knows of the members' sealed segments, and what it refuses (U1)."""

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.segments import Holding
from sparecode_node.statemachine import audit
from sparecode_node.statemachine.tables import segments
from tests.statemachine.world import World

EVENTS = 5


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    world = World()
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    for number in range(3 * EVENTS):
        world.handle("create-user", {"name": f"user-{number}"})
    return world


def note(
    world: World, node: str, through: int, missing: str = "", via: str = ""
) -> str:
    return world.handle(
        "note-segments",
        {
            "node": node,
            "through": str(through),
            "missing": missing,
            "via": via or node,
        },
    )


def remove(world: World, node: str, staying: str = "", copies: int = 0) -> str:
    return world.handle(
        "remove-member",
        {"node": node, "member": "yes", "staying": staying, "copies": str(copies)},
    )


def holdings(world: World) -> dict[NodeId, Holding]:
    return segments.holdings(world.db)


def test_a_member_tells_what_it_holds_without_an_event(world: World) -> None:
    (before,) = world.db.execute("SELECT max(sequence) FROM audit_events").fetchone()
    assert note(world, "n2", 3, "1+1") == "applied"
    assert holdings(world) == {NodeId("n2"): Holding(through=3, missing=((1, 1),))}
    note(world, "n2", 3)
    assert holdings(world) == {NodeId("n2"): Holding(through=3)}
    assert world.db.execute("SELECT max(sequence) FROM audit_events").fetchone() == (
        before,
    )
    assert world.replayed().machine.digest() == world.machine.digest()


def test_a_member_speaks_for_itself_alone(world: World) -> None:
    """(U1) Otherwise one member could have the others discard what only it claims."""
    assert "stale_parameters" in note(world, "n2", 3, via="n3")
    assert holdings(world) == {}


@pytest.mark.parametrize(
    ("through", "missing"),
    [
        (-1, ""),
        (1000, ""),
        (3, "1"),
        (3, "2+1"),
        (3, "1+3"),
        (3, "0+1"),
        (3, "1+1+2+2"),
        (3, "2+2+1+1"),
    ],
)
def test_what_are_no_segments_is_refused(
    world: World, through: int, missing: str
) -> None:
    assert "stale_parameters" in note(world, "n2", through, missing)
    assert holdings(world) == {}


def test_the_last_member_with_a_segment_is_not_removed(world: World) -> None:
    """(U1) A rolling replacement of all machines loses no audit event."""
    note(world, "n1", 3)
    note(world, "n2", 3, "2+2")
    refused = remove(world, "n1")
    assert "last_segment_holder" in refused
    assert "segments 2 of" in refused
    assert "wait until another member has them" in refused
    note(world, "n2", 3)
    assert "RemoveMember n1 applied" in remove(world, "n1")
    assert NodeId("n1") not in holdings(world)
    assert "last_segment_holder" in remove(world, "n2")


def test_the_others_may_hold_them_together(world: World) -> None:
    note(world, "n1", 3)
    note(world, "n2", 3, "1+1")
    note(world, "n3", 1)
    assert "RemoveMember n1 applied" in remove(world, "n1")


def test_machines_are_replaced_no_faster_than_their_segments_are_copied(
    world: World,
) -> None:
    """(U1) A majority of the voters that stay have each segment, at every moment."""
    for node in ("n1", "n2", "n3"):
        note(world, node, 3)
    note(world, "n4", 3, "1+2")
    assert "RemoveMember n1 applied" in remove(world, "n1", "n2+n3+n4", 2)
    refused = remove(world, "n2", "n3+n4+n5", 2)
    assert "last_segment_holder" in refused
    assert "n2 has segments 1 to 2 of" in refused
    assert "fewer than 2 have them: wait" in refused
    assert "stop its machine first" in refused
    note(world, "n5", 2, "1+1")
    assert "n2 has segments 1 of" in remove(world, "n2", "n3+n4+n5", 2)
    note(world, "n4", 3)
    assert "RemoveMember n2 applied" in remove(world, "n2", "n3+n4+n5", 2)
    assert world.replayed().machine.digest() == world.machine.digest()


def test_two_removals_at_once_do_not_both_count_on_the_other(world: World) -> None:
    """(U1) Each was judged before the other was carried out."""
    for node in ("n1", "n2", "n3"):
        note(world, node, 3)
    assert "RemoveMember n1 applied" in remove(world, "n1", "n2+n3+n4", 2)
    assert "last_segment_holder" in remove(world, "n2", "n1+n3+n4", 2)


def test_a_member_that_does_not_answer_is_no_copy_to_count_on(world: World) -> None:
    """(U1) n3 has told that it has them, and is down: n2 would be the only one."""
    for node in ("n1", "n2", "n3"):
        note(world, node, 3)
    assert "last_segment_holder" in remove(world, "n1", "n2+n4", 2)


def test_a_destroyed_member_is_removed_while_one_other_has_its_segments(
    world: World,
) -> None:
    """(U1) Its copy is gone, whether or not it is a member, so the removal waits for none."""
    note(world, "n1", 3)
    note(world, "n2", 3)
    note(world, "n4", 3, "1+2")
    assert "RemoveMember n1 applied" in remove(world, "n1")


def test_a_removed_member_tells_nothing_any_more(world: World) -> None:
    """(U1) A note under way must not count it among the holders again."""
    note(world, "n1", 3)
    note(world, "n2", 3)
    remove(world, "n2")
    assert "member_removed" in note(world, "n2", 3)
    assert "last_segment_holder" in remove(world, "n1")


def test_a_lost_segment_keeps_no_member(world: World) -> None:
    """(U1) A destroyed machine can be removed after its segments were declared lost."""
    note(world, "n1", 3)
    note(world, "n2", 3, "1+2")
    assert "last_segment_holder" in remove(world, "n1")
    refused = world.handle("declare-lost", {"first": "1", "last": "2"})
    assert "segment_held" in refused
    assert segments.lost(world.db) == ()
    lost = world.handle("declare-lost", {"first": "1", "last": "2", "destroyed": "n1"})
    assert "applied" in lost
    first, last = segments.find(world.db, 1), segments.find(world.db, 2)
    assert first is not None
    assert last is not None
    assert (
        f"2 segments, events 1 to 10, hash before {first.hash_before.hex()}, hash after "
        f"{last.hash_after.hex()}: taken for destroyed although it may have the events: "
        "n1; its disk was destroyed"
    ) in lost
    assert segments.lost(world.db) == (1, 2)
    assert "RemoveMember n1 applied" in remove(world, "n1")
    assert world.replayed().machine.digest() == world.machine.digest()


@pytest.mark.parametrize("named", ["", "n3"])
def test_a_member_that_may_have_it_must_be_named(world: World, named: str) -> None:
    """(U1) No answer from n1 does not mean that the events are lost."""
    note(world, "n1", 3)
    note(world, "n2", 3, "2+2")
    refused = world.handle("declare-lost", {"first": "2", "destroyed": named})
    assert "segment_held" in refused
    assert "--destroyed n1" in refused
    assert segments.lost(world.db) == ()


def test_a_member_that_comes_back_with_a_lost_segment_stays(world: World) -> None:
    """(U1) It is the only one with the events, whatever was declared."""
    note(world, "n1", 3)
    note(world, "n2", 3, "2+2")
    world.handle("declare-lost", {"first": "2", "destroyed": "n1"})
    assert holdings(world)[NodeId("n1")] == Holding(through=3, missing=((2, 2),))
    note(world, "n1", 3)
    assert "last_segment_holder" in remove(world, "n1")
    note(world, "n2", 3)
    assert "RemoveMember n1 applied" in remove(world, "n1")
    assert world.replayed().machine.digest() == world.machine.digest()


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 1000)])
def test_only_sealed_segments_can_be_lost(world: World, first: int, last: int) -> None:
    lost = world.handle("declare-lost", {"first": str(first), "last": str(last)})
    assert "segment_unknown" in lost
    assert segments.lost(world.db) == ()


def test_a_segment_is_lost_once(world: World) -> None:
    world.handle("declare-lost", {"first": "1"})
    assert "segment_unknown" in world.handle("declare-lost", {"first": "1"})


def test_a_loss_needs_a_second_approver(world: World) -> None:
    """(P3, P7) It hides events, so one administrator alone must not declare it."""
    for directive, arguments in (
        ("create-admin", {"name": "eve"}),
        ("sign-in", {"as": "eve", "password": "temporary", "session": "e0"}),
        (
            "change-password",
            {"name": "eve", "old": "temporary", "new": "hers", "session": "e0"},
        ),
    ):
        world.handle(directive, arguments)
    held = world.handle("declare-lost", {"first": "1"})
    assert "DeclareSegmentsLost audit segments 1 to 1 pending" in held
    assert segments.lost(world.db) == ()


def test_a_new_epoch_knows_no_holders(world: World) -> None:
    """(E1) Its members are others."""
    note(world, "n1", 3)
    world.handle("begin-epoch", {})
    assert holdings(world) == {}
