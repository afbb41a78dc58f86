# SPDX-License-Identifier: Apache-2.0
"""The readings of a passcode that a user types."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.passcodes import (
    evaluations,
    is_lettered,
    normalized,
    read_alike,
    splits,
)
from sparecode_node.domain.pins import pin_problem
from sparecode_node.domain.policy import Policy
from tests.domain.examples import POLICY


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("1234k7pm4xq2", "1234K7PM4XQ2"),
        ("1234 K7PM-4XQ2", "1234K7PM4XQ2"),
        ("１２３４Ｋ７ＰＭ４ＸＱ２", "1234K7PM4XQ2"),  # noqa: RUF001
        ("1234\u00a0K7PM\u20114XQ2", "1234K7PM4XQ2"),
        ("\t1234K7PM\u20134XQ2 ", "1234K7PM4XQ2"),
        # Copied from a page or mail: a minus, a soft hyphen, characters without width.
        ("1234\u2009K7PM\u22124XQ2\r\n", "1234K7PM4XQ2"),
        ("\ufeff1234\u200bK7PM\u00ad4XQ2\u2028", "1234K7PM4XQ2"),
        # The marks of direction that a bidirectional page puts around a code.
        ("\u200f1234\u2066K7PM4XQ2\u2069\u200e", "1234K7PM4XQ2"),
        ("1234\u2060K7PM\u200c4XQ2\u1680\x85", "1234K7PM4XQ2"),
        # Digits of other scripts are in no code or PIN.
        ("\u0661\u0662\u0663\u0664", "\u0661\u0662\u0663\u0664"),
        ("", ""),
    ],
)
def test_formatting_of_a_code_does_not_count(typed: str, expected: str) -> None:
    """Case, width, spaces, hyphens and what is not seen are no part of it (I5, K2)."""
    assert normalized(typed) == expected


@pytest.mark.parametrize(
    ("passcode", "lettered"),
    [
        ("1234567890", False),
        ("1234K7PM4XQ2", True),
        ("1234!", True),
        ("\u0661\u0662\u0663\u0664\u0665\u0666", True),  # Digits, but no token's.
        ("", False),
    ],
)
def test_anything_but_digits_makes_it_an_emergency_passcode(
    passcode: str,
    lettered: bool,
) -> None:
    """All digits charge the token factor, anything else the emergency factor (L)."""
    assert is_lettered(passcode) is lettered


def test_digits_have_two_readings() -> None:
    """A tokencode has 6 or 8 digits, so there are two splits (T4)."""
    six, eight = splits("1234567890", POLICY)
    assert (six.pin, six.code, six.emergency) == ("1234", "567890", False)
    assert (eight.pin, eight.code, eight.emergency) == ("12", "34567890", False)


def test_letters_have_one_reading() -> None:
    """A letter marks an emergency code, which has the policy's length (T4)."""
    (split,) = splits("1234K7PM4XQ2", POLICY)
    assert (split.pin, split.code, split.emergency) == ("1234", "K7PM4XQ2", True)


def test_a_code_alone_has_no_pin() -> None:
    """PIN rule NONE: the code alone (A1)."""
    assert [split.pin for split in splits("K7PM4XQ2", POLICY)] == [""]
    assert [split.pin for split in splits("123456", POLICY)] == [""]


@pytest.mark.parametrize("passcode", ["", "1", "12345", "K7PM4XQ"])
def test_too_short_a_passcode_has_no_reading(passcode: str) -> None:
    """The service computes dummies for it (T4)."""
    assert splits(passcode, POLICY) == ()


def test_the_length_of_codes_is_the_policys() -> None:
    """Emergency codes of the policy's length are accepted, and no others (T4)."""
    (split,) = splits("1234K7PM4XQ2", Policy(code_length=10))
    assert split.code == "34K7PM4XQ2"


def test_codes_of_every_accepted_length_are_read() -> None:
    """Codes of other lengths are not read (T4)."""
    policy = Policy(code_length=10, further_code_lengths="6 8")
    results = [(each.pin, each.code) for each in splits("1234K7PM4XQ2", policy)]
    assert results == [
        ("12", "34K7PM4XQ2"),
        ("1234K7", "PM4XQ2"),
        ("1234", "K7PM4XQ2"),
    ]
    assert [each.code for each in splits("K7PM4XQ2", policy)] == ["PM4XQ2", "K7PM4XQ2"]


def test_a_split_does_not_print_the_passcode() -> None:
    """Types of secrets print as ***."""
    (split,) = splits("1234K7PM4XQ2", POLICY)
    assert "1234" not in repr(split)
    assert "K7PM4XQ2" not in repr(split)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_reading_is_the_whole_passcode(typed: str) -> None:
    """PIN and code together are the passcode; there are at most two readings (T4)."""
    passcode = normalized(typed)
    result = splits(passcode, POLICY)
    assert len(result) <= 2
    for split in result:
        assert split.pin + split.code == passcode
        assert len(split.code) == (8 if split.emergency else len(split.code))
        assert split.emergency is is_lettered(passcode)


@given(
    pin=st.text("0123456789", min_size=4, max_size=8),
    code=st.text(POLICY.code_alphabet, min_size=8, max_size=8),
    between=st.sampled_from(["", " ", "-", "\u2011"]),
)
def test_pin_and_code_are_found_again(pin: str, code: str, between: str) -> None:
    """PIN followed by the code is read as that (A1)."""
    if code.isdigit():
        return  # No code is without a letter (I5).
    (split,) = splits(normalized(f"{pin}{between}{code.lower()}"), POLICY)
    assert (split.pin, split.code) == (pin, code)


@pytest.mark.parametrize("pin", ["1234", "12345678", "0000"])
def test_four_to_eight_digits_are_a_pin(pin: str) -> None:
    """PIN: 4 to 8 digits by default (K2)."""
    assert pin_problem(pin, POLICY) == ""


@pytest.mark.parametrize("pin", ["", "123", "123456789", "12a4", "１２３４"])  # noqa: RUF001
def test_other_pins_are_refused_with_the_bound(pin: str) -> None:
    """The message names the bounds and never the PIN (K2)."""
    assert pin_problem(pin, POLICY) == "a PIN is 4 to 8 digits"


def test_the_length_of_pins_is_the_policys() -> None:
    """Policy may ask for longer PINs (K2)."""
    policy = Policy(pin_length_min=6, pin_length_max=10)
    assert pin_problem("1234", policy) == "a PIN is 6 to 10 digits"
    assert pin_problem("1234567890", policy) == ""


LETTERS = Policy(pin_letters=True)
FIGURES = Policy(code_alphabet="0123456789")
BOTH = Policy(code_alphabet="0123456789", pin_letters=True)
LONG = Policy(pin_letters=True, code_length=10)


@pytest.mark.parametrize(
    ("policy", "passcode", "readings"),
    [
        (LETTERS, "AB12123456", [("AB12", "123456"), ("AB", "12123456")]),
        (LETTERS, "AB12K7PM4XQ2", [("AB12", "K7PM4XQ2*")]),
        (LETTERS, "ABK7123456", [("ABK7", "123456"), ("AB", "K7123456*")]),
        (LETTERS, "1234567890", [("1234", "567890"), ("12", "34567890")]),
        (
            FIGURES,
            "1234567890",
            [("1234", "567890"), ("12", "34567890"), ("12", "34567890*")],
        ),
        (FIGURES, "AB34567890", [("AB", "34567890*")]),
        (FIGURES, "AB", []),
        (
            BOTH,
            "AB34567890",
            [("AB34", "567890"), ("AB", "34567890"), ("AB", "34567890*")],
        ),
        (
            LONG,
            "1AB12345678",
            [("1AB12", "345678"), ("1AB", "12345678"), ("1", "AB12345678*")],
        ),
    ],
)
def test_an_ambiguous_passcode_is_read_both_ways(
    policy: Policy, passcode: str, readings: list[tuple[str, str]]
) -> None:
    """(T4) A star marks an emergency code here."""
    result = splits(passcode, policy)
    assert [
        (split.pin, split.code + "*" * split.emergency) for split in result
    ] == readings


POLICIES = st.builds(
    Policy,
    pin_letters=st.booleans(),
    code_length=st.integers(6, 8),
    further_code_lengths=st.sampled_from(["", "10", "9 10", "12 16"]),
    code_alphabet=st.sampled_from([Policy().code_alphabet, "0123456789"]),
)


@given(POLICIES, st.text(alphabet="01289ABZ!", max_size=24))
def test_no_passcode_takes_more_hashes_than_any_other(
    policy: Policy, passcode: str
) -> None:
    """(T4) It has at most as many distinct PINs and codes as every attempt hashes."""
    result = splits(passcode, policy)
    pins = {split.pin for split in result}
    codes = {split.code for split in result if split.emergency}
    assert len(pins) + len(codes) <= evaluations(policy)


@given(
    policy=POLICIES,
    pin=st.text("0123456789AB", max_size=8),
    code=st.text(POLICY.code_alphabet, min_size=16, max_size=16),
    which=st.integers(0, 2),
)
def test_pin_and_code_of_every_accepted_length_are_found_again(
    policy: Policy, pin: str, code: str, which: int
) -> None:
    """(A1, T4) For any lengths, one of the tried splits is the right one."""
    length = policy.code_lengths[which % len(policy.code_lengths)]
    digits = policy.code_alphabet.isdigit()
    code = "".join("0123456789"[ord(each) % 10] if digits else each for each in code)
    code = code[:length]
    if not digits and code.isdigit():
        return  # No code is without a letter (I5).
    assert (pin, code, True) in [
        (each.pin, each.code, each.emergency) for each in splits(pin + code, policy)
    ]


TWO = Policy(further_code_lengths="10")
THREE = Policy(code_length=9, further_code_lengths="8 10")


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        (Policy(), 2),
        (LETTERS, 3),
        (FIGURES, 3),
        (BOTH, 3),
        (LONG, 4),
        (TWO, 4),
        (THREE, 6),
        (Policy(pin_letters=True, further_code_lengths="10"), 5),
        (Policy(code_alphabet="0123456789", further_code_lengths="6"), 4),
    ],
)
def test_letters_in_pins_and_codes_without_any_cost_a_hash_more(
    policy: Policy, count: int
) -> None:
    """(T4) And every further length a PIN, if no other code has it, and a code."""
    assert evaluations(policy) == count


@given(
    policy=POLICIES,
    other=POLICIES,
    waits=st.integers(1, 10),
    passcode=st.text("01289ABZ!", max_size=24),
)
def test_policies_that_read_alike_have_the_same_readings(
    policy: Policy, other: Policy, waits: int, passcode: str
) -> None:
    """(T2) What was computed under one is right under the other."""
    other = replace(other, lock_from_failures=waits)
    if read_alike(policy, other):
        assert splits(passcode, policy) == splits(passcode, other)
        assert evaluations(policy) == evaluations(other)


@pytest.mark.parametrize("other", [LETTERS, FIGURES, LONG, TWO, THREE])
def test_only_what_changes_the_readings_makes_attempts_stale(other: Policy) -> None:
    """(T2) Attempts that are on their way outlast any other change of the policy."""
    assert not read_alike(Policy(), other)
    changed = replace(other, version=7, lock_from_failures=2, factor_off_at_failures=9)
    assert read_alike(other, changed)


@pytest.mark.parametrize(
    ("pin", "right"), [("AB12", True), ("ABCD", True), ("12 4", False), ("ÄB12", False)]
)
def test_pins_have_letters_where_policy_says(pin: str, right: bool) -> None:
    """(K2)."""
    assert (pin_problem(pin, LETTERS) == "") is right
    assert pin_problem(pin, POLICY) == "a PIN is 4 to 8 digits"
