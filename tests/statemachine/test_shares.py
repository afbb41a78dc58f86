# SPDX-License-Identifier: Apache-2.0
"""How callers share the table of request ids, and what it does not remember (Q3)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.shares import SIGN_IN, Shares
from tests.statemachine.world import Arguments, World

ROOM = 1600


@pytest.fixture
def world() -> World:
    """Return a cluster of feature level 2."""
    world = World()
    world.begin()
    world.apply(world.call("raise-feature-level", {"level": "2"}))
    return world


def filled(
    callers: int, rows_max: int = ROOM, directive: str = "create-user"
) -> tuple[Shares, dict[str, int]]:
    """Let callers flood until all are shed; return the shares and each one's rows."""
    world, shares = World(), Shares()
    arguments = {"name": "u", "number": "1"}
    calls = [by(world.call(directive, arguments), f"c{n}") for n in range(callers)]
    rows = dict.fromkeys((call.request.caller for call in calls), 0)
    while busy := [call for call in calls if shares.has_room(call, rows_max)]:
        for call in busy:
            if shares.has_room(call, rows_max):
                shares.add(
                    call.request.caller,
                    call.request.method,
                    in_reserve=shares.goes_to_reserve(call, rows_max),
                )
                rows[call.request.caller] += 1
    return shares, rows


def by(call: Call, caller: str, method: str = "m") -> Call:
    return replace(call, request=replace(call.request, caller=caller, method=method))


@pytest.mark.parametrize(
    ("callers", "share"), [(1, 1000), (2, 600), (10, 143)], ids=["one", "two", "ten"]
)
def test_busy_callers_have_equal_shares_and_leave_room(
    callers: int, share: int
) -> None:
    """(Q3) Each has 2 / (2 n + 1) of the table less its reserve."""
    shares, rows = filled(callers)
    assert set(rows.values()) <= {share - 1, share, share + 1}
    quiet = by(World().call("create-user", {"name": "u"}), "quiet")
    assert shares.has_room(quiet, ROOM)


@given(callers=st.integers(1, 40))
def test_any_number_of_callers_leave_room_for_one_more(callers: int) -> None:
    """(Q3)."""
    shares, _ = filled(callers, rows_max=400)
    quiet = by(World().call("create-user", {"name": "u"}), "quiet")
    assert shares.has_room(quiet, 400)


@given(callers=st.integers(1, 40))
def test_calls_of_the_reserve_take_no_room_of_others(callers: int) -> None:
    """(Q3) However many callers use it, there is room for ordinary calls and in it."""
    shares, _ = filled(callers, directive="approve")
    for directive in ("create-user", "approve", "sign-out"):
        quiet = World().call(directive, {"name": "u", "number": "1"})
        assert shares.has_room(by(quiet, "quiet"), ROOM)


@pytest.mark.parametrize(
    ("directive", "arguments"),
    [
        ("deny-certificate", {"serial-number": "51af"}),
        ("update-user", {"name": "u", "enabled": "no"}),
        ("update-agent", {"name": "vpn", "enabled": "no"}),
        ("update-admin", {"name": "ada", "enabled": "no"}),
        ("remove-admin", {"name": "ada"}),
        ("remove-member", {"node": "n2"}),
        ("reset-admin", {"name": "root"}),
        ("approve", {"number": "1"}),
        ("sign-out", {}),
    ],
)
def test_changes_that_stop_an_attack_have_a_reserve(
    directive: str, arguments: Arguments
) -> None:
    """(Q3) The flooding caller may use it too, but never all of it."""
    world, (shares, _) = World(), filled(1)
    flood = by(world.call("create-user", {"name": "u"}), "c0")
    assert not shares.has_room(flood, ROOM)
    command = world.command(directive, arguments)
    assert shares.has_room(replace(flood, command=command), ROOM)


def test_enabling_has_no_reserve() -> None:
    """(Q3)."""
    world, (shares, _) = World(), filled(1)
    call = by(world.call("update-user", {"name": "u", "enabled": "yes"}), "c0")
    assert not shares.has_room(call, ROOM)


def test_sign_ins_are_counted_apart(world: World) -> None:
    """(Q3) So the owner of a flooding session can sign in, and end it."""
    shares, _ = filled(1)
    sign_in = world.call("sign-in", {})
    assert not shares.has_room(
        by(replace(sign_in, command=commands.PassBarrier()), "c0"), ROOM
    )
    assert shares.has_room(by(sign_in, "c0", SIGN_IN), ROOM)


def test_a_restart_counts_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(Q3) The counts are a function of the rows."""
    for number in range(5):
        world.apply(world.call("create-user", {"name": f"u{number}"}))
    monkeypatch.setattr(Shares, "goes_to_reserve", lambda *_: True)
    world.apply(
        by(world.call("sign-in", {"session": "s2"}), "administrator:root", SIGN_IN)
    )
    counted = world.machine._requests._shares
    again = StateMachine(world.db)._requests._shares
    assert (again._rows, again.total) == (counted._rows, counted.total)
    assert again._in_reserve == 1


def remembered(world: World, call: Call) -> bool:
    rows = world.db.execute(
        "SELECT 1 FROM requests WHERE request_id = ?", (call.request.request_id,)
    )
    return rows.fetchone() is not None


@pytest.mark.parametrize(
    ("directive", "arguments", "reason"),
    [
        ("sign-in", {"as": "unknown"}, Reason.SIGN_IN_REFUSED),
        ("approve", {"number": "9"}, Reason.APPROVAL_UNKNOWN),
        ("reject", {"number": "9"}, Reason.APPROVAL_UNKNOWN),
        ("update-user", {"name": "u", "enabled": "no"}, Reason.USER_UNKNOWN),
        ("disable-token", {"serial": "9"}, Reason.TOKEN_UNKNOWN),
        ("disable", {"serial": "9"}, Reason.TOKEN_UNKNOWN),
        ("update-admin", {"name": "u"}, Reason.ADMINISTRATOR_UNKNOWN),
        ("update-agent", {"name": "u"}, Reason.AGENT_UNKNOWN),
        (
            "allow-certificate",
            {"serial-number": "51af"},
            Reason.CERTIFICATE_NOT_DENIED,
        ),
        ("remove-member", {"node": "n9"}, Reason.MEMBER_UNKNOWN),
        ("cancel-reset", {"name": "u"}, Reason.RESET_UNKNOWN),
    ],
)
def test_what_is_refused_before_it_is_judged_is_not_remembered(
    world: World, directive: str, arguments: Arguments, reason: Reason
) -> None:
    """(Q3)."""
    call = world.call(directive, arguments)
    result = world.apply(call)
    assert isinstance(result, Rejected)
    assert result.reason is reason
    assert not remembered(world, call)


def test_a_wrong_password_is_remembered(world: World) -> None:
    """(Q2, L7) It was charged: a retry must not charge it again."""
    call = world.call("sign-in", {"password": "wrong"})
    assert isinstance(world.apply(call), Rejected)
    assert remembered(world, call)


def test_level_1_remembers_and_shares_as_release_0_1_0_did() -> None:
    """(Q3) Replicas of both releases decide alike until the level is raised."""
    world = World()
    world.begin()
    call = world.call("sign-in", {"as": "unknown"})
    assert isinstance(world.apply(call), Rejected)
    assert remembered(world, call)
