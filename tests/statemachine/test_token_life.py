# SPDX-License-Identifier: Apache-2.0
"""Effects of every token change on its codes, its lost mark and its drafts."""

import pytest

from sparecode_node.domain.emergency_access import CodeState
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.results import Applied
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from tests.statemachine.world import World

SERIAL = TokenSerial("1001")
ENDING = ("unassign", "disable-token", "delete-token", "replace")
CHANGES = {
    "unassign": {},
    "enable-token": {},
    "disable-token": {},
    "update-token": {"never": "yes"},
    "delete-token": {},
    "replace": {"by": "1002", "keep-pin": "yes"},
    "clear-pin": {},
}


@pytest.fixture
def world() -> World:
    """Return a cluster in which Alice has lost her token and has three codes."""
    world = World()
    world.begin()
    world.play(
        ("create-user", {"name": "alice"}),
        ("enroll", {"serial": SERIAL}),
        ("enroll", {"serial": "1002"}),
        ("assign", {"serial": SERIAL, "user": "alice"}),
        ("set-pin", {"serial": SERIAL, "pin": "1234"}),
        ("save", {"serial": SERIAL, "count": "3"}),
    )
    return world


def change(world: World, directive: str) -> None:
    call = world.call(directive, {"serial": SERIAL, **CHANGES[directive]})
    assert isinstance(world.apply(call), Applied)


def voided(world: World) -> list[str]:
    """Return the details of the events that void codes."""
    rows = world.db.execute(
        "SELECT detail FROM audit_events WHERE action = 'CODES_VOIDED'"
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize("directive", ENDING)
def test_ending_a_token_voids_its_codes_in_the_same_commit(
    world: World, directive: str
) -> None:
    """(R3) The audit log has an event with the cause (R4)."""
    change(world, directive)
    states = {
        code.state
        for each in code_tables.find_sets(world.db, SERIAL)
        for code in each.codes
    }
    assert CodeState.LIVE not in states
    assert [detail.partition(": ")[2] for detail in voided(world)] == ["3 codes"]


@pytest.mark.parametrize("directive", [each for each in CHANGES if each not in ENDING])
def test_other_changes_leave_the_codes_alone(world: World, directive: str) -> None:
    """(R3) Only changes that end the token void them."""
    change(world, directive)
    [codes] = code_tables.find_sets(world.db, SERIAL)
    assert {code.state for code in codes.codes} == {CodeState.LIVE}
    assert voided(world) == []


@pytest.mark.parametrize(
    "directive", [each for each in CHANGES if "delete" not in each]
)
def test_no_change_of_a_token_clears_the_lost_mark(
    world: World, directive: str
) -> None:
    """(R2) It stays until the token is reinstated."""
    change(world, directive)
    token = token_tables.find_token(world.db, SERIAL)
    assert token is not None
    assert token.lost


@pytest.mark.parametrize("directive", CHANGES)
def test_change_of_a_token_makes_drafts_and_candidates_stale(
    world: World, directive: str
) -> None:
    """(I3, T2) They were computed for the token as it was."""
    save = world.call("save", {"serial": SERIAL, "set": "B", "draft": "d1"})
    attempt = world.call(
        "authenticate", {"user": "alice", "pin": "1234", "code": "A/1"}
    )
    change(world, directive)
    saved, judged = world.apply_batch([save, attempt])
    gone = Reason.TOKEN_UNKNOWN if directive == "delete-token" else Reason.DRAFT_STALE
    assert isinstance(saved, Rejected)
    assert saved.reason is gone
    assert judged == Rejected(Reason.STALE_PARAMETERS)


def test_expired_token_s_codes_are_void_as_well(world: World) -> None:
    """(R3) Otherwise a later end of the token would revive them (I7)."""
    world.apply(world.call("update-token", {"serial": SERIAL, "expires": "0s"}))
    change(world, "disable-token")
    world.apply(world.call("update-token", {"serial": SERIAL, "never": "yes"}))
    change(world, "enable-token")
    [codes] = code_tables.find_sets(world.db, SERIAL)
    assert {code.state for code in codes.codes} == {CodeState.VOID}
