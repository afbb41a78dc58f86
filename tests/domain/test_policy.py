# SPDX-License-Identifier: Apache-2.0
"""The policy: its bounds, its relations, and its effect on live codes (I6, T4)."""

from dataclasses import fields, replace
from typing import Any

import pytest

from sparecode_node.domain.issuing import ODDS_ONE_IN, code_space
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import (
    BOUNDS,
    DAY_MS,
    Policy,
    changes,
    policy_problem,
    public_name,
)
from sparecode_node.domain.policy_changes import changed
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from tests.domain.policies_in_use import NOTHING, POLICY, InUse, alike


def in_use(live: int, rule: PinRule = PinRule.PREPENDED, without_pin: int = 0) -> InUse:
    return InUse(live=(alike({8: live}, rule),), without_pin=without_pin)


def refused(wanted: dict[str, Any], use: InUse = NOTHING) -> Rejected:
    result = changed(POLICY, POLICY.version, wanted, use)
    assert isinstance(result, Rejected)
    return result


def test_the_defaults_are_within_their_bounds() -> None:
    assert policy_problem(POLICY) is None
    assert isinstance(changed(POLICY, 1, {}, NOTHING), Policy)


def test_every_number_has_bounds_and_every_field_a_place_in_the_command() -> None:
    numbers = {
        field.name
        for field in fields(Policy)
        if field.type in (int, int | None) and field.name != "version"
    }
    assert numbers == set(BOUNDS)
    assert {field.name for field in fields(Policy)} == {
        field.name for field in fields(UpdatePolicy) if field.name != "counted"
    }


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_beyond_its_bounds_is_refused_by_name(name: str) -> None:
    """(I4) The refusal names the field as in the API, and its bounds."""
    for value in (BOUNDS[name][0] - 1, BOUNDS[name][1] + 1, -(2**63), 2**63 - 1):
        result = refused({name: value})
        assert (result.reason, result.field) == (
            Reason.POLICY_VALUE,
            public_name(name),
        )
        assert "must be" in result.detail


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"codes_per_set_default": 51}, "codes_per_set_default"),
        ({"set_low_threshold": 51}, "set_low_threshold"),
        ({"pin_length_min": 8, "pin_length_max": 7}, "pin_length_min"),
        ({"lock_from_failures": 6, "factor_off_at_failures": 5}, "lock_from_failures"),
        ({"lock_ms": DAY_MS, "lock_ms_max": DAY_MS // 2}, "lock"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(
    wanted: dict[str, int], field: str
) -> None:
    result = refused(wanted)
    assert (result.reason, result.field) == (Reason.POLICY_VALUE, field)


@pytest.mark.parametrize(
    "alphabet",
    [
        "",
        "ABC",
        "AAABBBCCCDDD",
        "abcdefghijkl",
        "ABCDEFGHIJ\u00c4",
        "ABCDEFGHIJ -",
        "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669A",
    ],
)
def test_an_alphabet_is_of_symbols_that_can_be_typed(alphabet: str) -> None:
    """(I5, T4) Distinct, as normalized; one letter at least tells codes from tokencodes."""
    result = refused({"code_alphabet": alphabet})
    assert (result.reason, result.field) == (Reason.POLICY_VALUE, "code_alphabet")


def test_another_version_is_refused_first() -> None:
    for version in (0, 2, -1):
        result = changed(POLICY, version, {"code_length": 99}, NOTHING)
        assert isinstance(result, Rejected)
        assert result.reason is Reason.VERSION


def test_a_policy_that_lets_codes_be_guessed_is_refused_with_the_arithmetic() -> None:
    """(I6) 1 in 10,000, to the last code, with the bound of L4 as the guesses."""
    short = {"code_length": 6, "code_alphabet": "2345678ABC"}
    space = code_space("2345678ABC", 6)
    most = space // (ODDS_ONE_IN[PinRule.PREPENDED] * 10)
    few = {"codes_per_set_default": 1, "set_low_threshold": 1, "lock_from_failures": 5}
    sized = {**short, **few, "factor_off_at_failures": 10}
    assert isinstance(
        changed(POLICY, 1, {**sized, "codes_per_set_max": most}, NOTHING), Policy
    )
    result = refused({**sized, "codes_per_set_max": most + 1})
    assert result.reason is Reason.GUESS_ODDS
    assert f"{most + 1} live codes x 10 guesses / {space} possible" in result.detail


def test_tokens_without_pin_want_more() -> None:
    """(I6) 1 in 1,000,000 for a set of the default size, if there is such a token."""
    short = {"code_length": 6}
    assert isinstance(changed(POLICY, 1, short, NOTHING), Policy)
    result = refused(short, replace(NOTHING, without_pin=1))
    assert (result.reason, result.field) == (
        Reason.GUESS_ODDS,
        "codes_per_set_default",
    )
    assert "1 in 1000000" in result.detail


def test_codes_that_live_count_by_the_pin_rule_of_their_token() -> None:
    """(I6) More allowed guesses would make the live codes too easy to guess."""
    few = replace(POLICY, code_length=6, factor_off_at_failures=5)
    more = {"factor_off_at_failures": 100}
    with_pin = changed(few, 1, more, replace(NOTHING, live=(alike({6: 20}),)))
    without = changed(
        few, 1, more, replace(NOTHING, live=(alike({6: 20}, PinRule.NONE),))
    )
    assert isinstance(with_pin, Policy)
    assert isinstance(without, Rejected)
    assert without.reason is Reason.GUESS_ODDS
    assert "20 live codes x 100 guesses" in without.detail


def test_the_alphabet_of_codes_stays_while_codes_live() -> None:
    """(T4) Only one is accepted at a time; the refusal tells how many codes use it."""
    wanted = {"code_alphabet": "0123456789ABCDEF"}
    result = refused(wanted, in_use(7))
    assert (result.reason, result.field) == (Reason.CODES_LIVE, "code_alphabet")
    assert "7 live codes of 1 token" in result.detail
    assert isinstance(changed(POLICY, 1, wanted, NOTHING), Policy)


@pytest.mark.parametrize(
    ("before", "wanted", "use", "further"),
    [
        ("", {"code_length": 9}, in_use(7), "8"),
        ("", {"code_length": 9}, NOTHING, ""),
        ("", {"code_length": 9, "further_code_lengths": ""}, in_use(7), "8"),
        ("", {"code_length": 9, "further_code_lengths": "8 10"}, NOTHING, "8 10"),
        ("10", {"code_length": 10}, in_use(7), "8"),
        ("10", {"code_length": 12}, in_use(7), "8"),  # Of 10 symbols, none lives.
        ("10", {"code_length": 10}, NOTHING, ""),
        ("10", {"lock_from_failures": 4}, NOTHING, "10"),
        ("10", {"further_code_lengths": ""}, in_use(7), ""),
    ],
)
def test_codes_of_the_old_length_are_accepted_while_they_live(
    before: str, wanted: dict[str, Any], use: InUse, further: str
) -> None:
    """(T4) An administrator can make codes longer without voiding any."""
    policy = replace(POLICY, further_code_lengths=before)
    after = changed(policy, 1, wanted, use)
    assert isinstance(after, Policy)
    assert after.further_code_lengths == further
    assert after.code_lengths[0] == after.code_length


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (replace(POLICY, code_length=9, further_code_lengths="8"), ""),
        (replace(POLICY, code_length=9, further_code_lengths="8"), "10"),
        (replace(POLICY, code_length=9, further_code_lengths="8 10"), "10"),
    ],
)
def test_a_length_that_live_codes_have_cannot_be_taken_out(
    policy: Policy, wanted: str
) -> None:
    """(T4) Otherwise they would be void without notice."""
    change = {"further_code_lengths": wanted}
    result = changed(policy, 1, change, in_use(7))
    assert isinstance(result, Rejected)
    assert (result.reason, result.field) == (
        Reason.CODES_LIVE,
        "further_code_lengths",
    )
    assert (
        "must include 8, the length of 7 live codes of 1 token "
        "(the first is 1; expired tokens count): wait"
    ) in result.detail
    assert isinstance(changed(policy, 1, change, NOTHING), Policy)


@pytest.mark.parametrize(
    ("further", "says"),
    [
        ("8", "none twice or that of new codes (8)"),
        ("9 9", "none twice"),
        ("10 9", "ascending"),
        ("5", "6 to 16"),
        ("17", "6 to 16"),
        ("9 10 11", "at most 2 lengths, not 3"),
        ("9  10", "one space between two"),
        (" 9", "one space between two"),
        ("9,10", "one space between two"),
        ("nine", "must be numbers"),
        ("09", "must be numbers"),
        ("\u0669", "must be numbers"),
    ],
)
def test_further_lengths_are_few_and_in_order(further: str, says: str) -> None:
    """(T4) Each choice has one form, and a node can bear the hashes."""
    result = refused({"further_code_lengths": further})
    assert (result.reason, result.field) == (
        Reason.POLICY_VALUE,
        "further_code_lengths",
    )
    assert says in result.detail


def test_a_fourth_length_is_refused_by_the_bound() -> None:
    """(T4) Every attempt pays for at most three lengths."""
    use = replace(NOTHING, live=(alike({6: 1, 7: 1, 8: 1}),))
    policy = replace(POLICY, further_code_lengths="6 7")
    result = changed(policy, 1, {"code_length": 9}, use)
    assert isinstance(result, Rejected)
    assert (result.reason, result.field) == (
        Reason.POLICY_VALUE,
        "further_code_lengths",
    )


def test_another_order_of_the_same_symbols_is_no_other_form() -> None:
    turned = {"code_alphabet": POLICY.code_alphabet[::-1]}
    assert isinstance(changed(POLICY, 1, turned, in_use(7)), Policy)


def test_a_change_is_described_in_words() -> None:
    """(U1) The audit log has the old and the new value."""
    after = replace(
        POLICY,
        version=2,
        lifetime_ms_max=30 * DAY_MS,
        lock_until_unlocked=True,
        lock_ms=90_000,
    )
    assert changes(POLICY, after) == (
        "lifetime_max none -> 30d, lock 15m -> 90s, lock_until_unlocked no -> yes"
    )
