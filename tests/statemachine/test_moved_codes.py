# SPDX-License-Identifier: Apache-2.0
"""
Codes that arrive from another cluster under this cluster's policy (I6, T4).

A change of the policy trusts that all live codes conform to it, and that none is left
out of its count.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.moves import ImportMovedUsers
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.tables.live_codes import lengths_of
from tests.statemachine.moves import text, token_row, user_row
from tests.statemachine.test_policies import OTHER_FORM, begun, holder, play
from tests.statemachine.world import ROOT, START_MS, World

SERIAL = "2001"


def codes(*ordinals: int) -> tuple[str, dict[str, Any]]:
    live = [[each, text(f"code {each}"), "live", *4 * [None]] for each in ordinals]
    return "codes", {"user_id": "u-bob", "set_id": "B", "codes": live}


def rows(length: int = 8, **token: object) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a user whose set has no code yet."""
    return [
        ("user", user_row("bob")),
        ("token", token_row("bob", SERIAL) | token),
        (
            "set",
            {
                "user_id": "u-bob",
                "set_id": "B",
                "serial": SERIAL,
                "code_length": length,
                "issuer": ROOT,
                "node_id": "n1",
                "issued_at_ms": 1,
                "issued_index": 1,
                "ends_at_ms": START_MS * 2,
                "voided": 0,
                "untold": 0,
                "fixed": 0,
                "issued_elsewhere": 0,
            },
        ),
    ]


@pytest.fixture
def world() -> World:
    """Return a cluster to which users arrive."""
    started = begun()
    play(started, ("raise-feature-level", {"level": "2"}), ("prepare-move", {}))
    return started


def arrive(
    world: World, sent: list[tuple[str, dict[str, Any]]], number: int = 0
) -> Result:
    arguments = {"number": str(number)} | ({"more": "yes"} if number == 0 else {})
    return world.apply(carrying(world.call("import-moved", arguments), sent))


def carrying(call: Call, sent: list[tuple[str, dict[str, Any]]]) -> Call:
    """Return the call with these rows."""
    assert isinstance(call.command, ImportMovedUsers)
    command = replace(call.command, rows=json.dumps(sent).encode())
    return replace(call, command=command)


def refusal(result: Result) -> Rejected:
    assert isinstance(result, Rejected), result
    return result


def test_codes_of_a_counted_set_escape_no_change(world: World) -> None:
    """(I6) A piece may add codes to a set that was counted without them."""
    assert not isinstance(arrive(world, rows()), Rejected)
    counted_before = world.call("update-policy", OTHER_FORM)
    assert not isinstance(arrive(world, [codes(1, 2)], 1), Rejected)
    refused = refusal(world.apply(counted_before))
    assert refused.reason is Reason.MOVE_STEP
    play(world, ("activate-move", {}))
    counted_after = refusal(world.apply(world.call("update-policy", OTHER_FORM)))
    assert counted_after.reason is Reason.CODES_LIVE
    assert "2 live codes of 1 token" in counted_after.detail


def test_codes_that_arrive_whole_after_a_count_are_weighed(world: World) -> None:
    play(world, ("cancel-move", {}), ("wait", {"11m": "yes"}), ("barrier", {}))
    play(world, ("reauthenticate", {}))
    counted_before = world.call("update-policy", OTHER_FORM)
    play(world, ("prepare-move", {"move": "m2"}))
    call = world.call("import-moved", {"move": "m2"})
    world.apply(carrying(call, [*rows(), codes(1)]))
    play(world, ("activate-move", {"move": "m2"}))
    assert refusal(world.apply(counted_before)).reason is Reason.CODES_LIVE


def test_other_changes_go_on_while_users_arrive(world: World) -> None:
    play(
        world,
        ("update-policy", {"codes_per_set_default": "5"}),
        # Fewer guesses weigh no codes: they conform to such a policy, too.
        ("update-policy", {"factor_off_at_failures": "9"}),
    )
    assert world.policy.factor_off_at_failures == 9


def test_codes_of_a_length_that_is_not_accepted_are_refused(world: World) -> None:
    """(T4) Nobody could use them, and a policy change would miss them."""
    refused = refusal(arrive(world, [*rows(length=10), codes(1)]))
    assert refused.reason is Reason.MOVE_EXPORT
    assert "length 10" in refused.detail


def test_codes_that_are_too_easy_to_guess_are_refused() -> None:
    """(I6) By their number over all pieces; the source may allow fewer guesses."""
    world = begun()
    guesses = {"code_length": "6", "factor_off_at_failures": "50"}
    play(
        world,
        ("raise-feature-level", {"level": "2"}),
        ("update-policy", guesses),
        ("prepare-move", {}),
    )
    sent = [*rows(length=6), codes(*range(1, 16))]
    assert not isinstance(arrive(world, sent), Rejected)
    refused = refusal(arrive(world, [codes(*range(16, 31))], 1))
    assert refused.reason is Reason.MOVE_EXPORT
    assert "30 live codes x 50 guesses" in refused.detail
    play(world, ("update-policy", {"factor_off_at_failures": "20"}))
    assert not isinstance(arrive(world, [codes(*range(16, 31))], 1), Rejected)


def test_letters_in_pins_arrive_only_if_they_are_allowed(world: World) -> None:
    """(T4) The policy may have changed since the first piece."""
    assert not world.policy.pin_letters
    refused = refusal(arrive(world, rows(pin_lettered=1)))
    assert refused.reason is Reason.MOVE_EXPORT
    assert "pin_letters" in refused.detail


def test_the_live_codes_of_a_token_are_counted_by_length() -> None:
    """Used, void and ended ones do not count."""
    world = begun()
    holder(world, "1", 3)
    holder(world, "2", 2)
    assert lengths_of(world.db, TokenSerial("1"), world.machine.now_ms) == {8: 3}
