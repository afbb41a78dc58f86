# SPDX-License-Identifier: Apache-2.0
"""
Live codes that were counted before a change of the policy was proposed (I6, T4).

From feature level 2 on, apply reads only the sets that were issued after the count.
"""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.policy import (
    CountedCodes,
    CountedLength,
    CountedTokens,
    UpdatePolicy,
)
from sparecode_node.statemachine.handlers.policy import TOKENS_COUNTED_MAX
from sparecode_node.statemachine.results import Applied, ApprovalPending, Result
from sparecode_node.statemachine.tables import live_codes
from tests.statemachine.steps import add_crowd, steps
from tests.statemachine.test_policies import OTHER_FORM, begun, holder, play, update
from tests.statemachine.world import World

FEW, MANY = 100, 2_000
"""Users with ten live codes each."""
WEIGHING = {
    "live codes, for another length": {"code_length": "9"},
    "live codes, for more guesses": {"factor_off_at_failures": "51"},
    "live codes, for another alphabet": OTHER_FORM,
    "tokens without a PIN": {"code_length": "6", "factor_off_at_failures": "100"},
    "PINs with letters": {"pin_letters": "no"},
}


def at_level_2() -> World:
    world = begun()
    play(world, ("raise-feature-level", {"level": "2"}))
    return world


def with_crowd(users: int) -> World:
    world = at_level_2()
    before = {"factor_off_at_failures": "50", "pin_letters": "yes"}
    assert isinstance(update(world, **before), Applied)
    add_crowd(world.db, users)
    return world


def cost(users: int, changes: dict[str, str]) -> int:
    """Return the steps of applying a change with this number of users."""
    taken, _ = measured(with_crowd(users), changes)
    return taken


@pytest.mark.parametrize("weighs", WEIGHING)
def test_a_change_costs_the_same_with_any_number_of_codes(weighs: str) -> None:
    """(c) 1,000 and 20,000 live codes: apply answers nobody meanwhile."""
    changes = WEIGHING[weighs]
    assert cost(FEW, changes) == cost(MANY, changes)


def test_below_level_2_a_change_reads_all_codes() -> None:
    """An older member decides in this way, so a newer one does; the count above sees it."""

    def cost_below(users: int) -> int:
        world = begun()
        add_crowd(world.db, users)
        call = world.call("update-policy", {"code_length": "9"})
        assert command_of(call).counted is None
        return steps(world.db, lambda: world.apply(call))

    assert cost_below(MANY) > 10 * cost_below(FEW)


def command_of(call: Call) -> UpdatePolicy:
    assert isinstance(call.command, UpdatePolicy)
    return call.command


def with_count(call: Call, count: Any) -> Call:
    """Return the call with another count."""
    return replace(call, command=replace(command_of(call), counted=count))


def reason_of(result: Result) -> Reason | None:
    return result.reason if isinstance(result, Rejected) else None


def test_codes_issued_after_the_count_are_weighed() -> None:
    """(I6, T4) They are in the log before the change."""
    world = at_level_2()
    call = world.call("update-policy", OTHER_FORM)
    assert command_of(call).counted is not None
    holder(world, "1", 3)
    refused = world.apply(call)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.CODES_LIVE
    assert "3 live codes of 1 token (the first is 1;" in refused.detail


def test_a_change_without_a_count_is_outdated() -> None:
    """(T2) The called node knew a lower feature level, or another policy."""
    world = at_level_2()
    call = with_count(world.call("update-policy", {"code_length": "9"}), None)
    assert reason_of(world.apply(call)) is Reason.STALE_PARAMETERS
    again = world.call("update-policy", {"code_length": "9"})
    assert isinstance(world.apply(again), Applied)


@pytest.mark.parametrize(("sets", "reason"), [(2, None), (3, Reason.STALE_PARAMETERS)])
def test_a_count_is_outdated_after_too_many_sets(
    monkeypatch: pytest.MonkeyPatch, sets: int, reason: Reason | None
) -> None:
    """(c) Apply looks at each later set, so there is a bound."""
    monkeypatch.setattr(live_codes, "NEW_SETS_MAX", 2)
    world = at_level_2()
    call = world.call("update-policy", {"code_length": "9"})
    for serial in range(sets):
        holder(world, f"{serial}", 1)
    assert reason_of(world.apply(call)) is reason


def test_the_later_count_covers_every_set() -> None:
    """(I6) The token with the most codes decides, in whatever order they were counted."""
    world = at_level_2()
    assert isinstance(
        update(world, code_length="6", factor_off_at_failures="5"), Applied
    )
    for serial, codes in (("10", 2), ("40", 20), ("20", 3), ("30", 20)):
        holder(world, serial, codes, **{"pin-rule": "none"})
    holder(world, "05", 21)
    call = world.call(
        "update-policy", {"factor_off_at_failures": "80", "codes_per_set_default": "1"}
    )
    counted = command_of(call).counted
    assert counted is not None
    assert len(counted.groups) == 2  # One for each PIN rule.
    refused = world.apply(call)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.GUESS_ODDS
    assert "token 30 already has these live codes" in refused.detail


GROUP = CountedTokens(
    rule=PinRule.PREPENDED,
    tokens=1,
    first=TokenSerial("1"),
    riskiest=TokenSerial("1"),
    lengths=(CountedLength(length=8, riskiest=3, all=3),),
)
OTHER_LENGTHS = {
    "negative length": CountedLength(length=-1, riskiest=3, all=3),
    "huge length": CountedLength(length=10**9, riskiest=3, all=3),
    "length that is not accepted": CountedLength(length=9, riskiest=3, all=3),
    "no code": CountedLength(length=8, riskiest=0, all=3),
    "negative codes": CountedLength(length=8, riskiest=-3, all=3),
    "codes beyond any": CountedLength(length=8, riskiest=2**31, all=3),
    "no code in all": CountedLength(length=8, riskiest=3, all=0),
    "codes in all beyond any": CountedLength(length=8, riskiest=3, all=2**31),
}
UNSOUND = {
    **{
        name: CountedCodes(last_set=0, groups=(replace(GROUP, lengths=(length,)),))
        for name, length in OTHER_LENGTHS.items()
    },
    "negative set": CountedCodes(last_set=-1, groups=(GROUP,)),
    "set beyond any": CountedCodes(last_set=2**63, groups=(GROUP,)),
    "no token": CountedCodes(last_set=0, groups=(replace(GROUP, tokens=0),)),
    "tokens beyond any": CountedCodes(
        last_set=0, groups=(replace(GROUP, tokens=2**31),)
    ),
    "group twice": CountedCodes(last_set=0, groups=(GROUP, GROUP)),
    "length twice": CountedCodes(
        last_set=0, groups=(replace(GROUP, lengths=2 * GROUP.lengths),)
    ),
    "no length": CountedCodes(last_set=0, groups=(replace(GROUP, lengths=()),)),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_count_that_no_node_made_is_refused(name: str) -> None:
    """(I6) Apply must neither stop nor take long, whatever a member proposes."""
    world = at_level_2()
    assert world.policy.code_lengths == (8,)
    call = with_count(world.call("update-policy", {"code_length": "9"}), UNSOUND[name])
    assert reason_of(world.apply(call)) is Reason.STALE_PARAMETERS


def test_a_sound_count_is_taken() -> None:
    world = at_level_2()
    count = CountedCodes(last_set=0, groups=(GROUP,))
    call = with_count(world.call("update-policy", {"code_length": "9"}), count)
    assert isinstance(world.apply(call), Applied)


def test_an_approval_brings_its_own_count() -> None:
    """(P3, I6) A day may pass between the request and the approval."""
    world = at_level_2()
    play(
        world,
        ("plant-administrator", {"name": "second"}),
        ("sign-in", {"as": "second", "session": "e1"}),
    )
    asked = update(world, **OTHER_FORM)
    assert isinstance(asked, ApprovalPending)
    (change,) = world.db.execute("SELECT change FROM approvals").fetchone()
    assert '"counted":null' in change
    arguments = {"number": str(asked.approval_id), "session": "e1"}
    approve = world.call("approve", arguments)
    assert getattr(approve.command, "counted") is not None  # noqa: B009
    without = replace(approve, command=replace(approve.command, counted=None))
    assert reason_of(world.apply(without)) is Reason.STALE_PARAMETERS
    add_crowd(world.db, 1)
    assert reason_of(world.apply(approve)) is Reason.CODES_LIVE
    world.db.execute("UPDATE codes SET state = 'void'")
    again = world.call("approve", arguments)
    assert isinstance(world.apply(again), Applied)


@pytest.mark.parametrize(
    ("condition", "changes", "before", "words"),
    [
        (
            "pin_rule = 'none'",
            {"code_length": "6"},
            {},
            f"more than {TOKENS_COUNTED_MAX} tokens without a PIN",
        ),
        (
            "pin_lettered = 1",
            {"pin_letters": "no"},
            {"pin_letters": "yes"},
            f"of more than {TOKENS_COUNTED_MAX} tokens (z1, z10, ",
        ),
    ],
)
def test_a_refusal_counts_a_bounded_number_of_tokens(
    condition: str, changes: dict[str, str], before: dict[str, str], words: str
) -> None:
    """(c) Tokens without a PIN, or with a PIN that has letters."""
    costs = []
    for users in (TOKENS_COUNTED_MAX + 1, 4 * TOKENS_COUNTED_MAX):
        world = at_level_2()
        if before:
            update(world, **before)
        add_crowd(world.db, users)
        world.db.execute(f"UPDATE tokens SET {condition}")  # noqa: S608
        world.db.execute("UPDATE codes SET state = 'void'")
        taken, refused = measured(world, changes)
        assert isinstance(refused, Rejected)
        assert words in refused.detail
        costs.append(taken)
    assert costs[0] == costs[1]


def measured(world: World, changes: dict[str, str]) -> tuple[int, Result]:
    """Return the steps of a change, and its result."""
    call = world.call("update-policy", changes)
    results: list[Result] = []
    return steps(world.db, lambda: results.append(world.apply(call))), results[0]
