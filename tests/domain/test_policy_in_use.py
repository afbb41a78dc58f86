# SPDX-License-Identifier: Apache-2.0
"""A policy change reads live tokens and codes only where they matter (I6, T4)."""

from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.issuing import ODDS_ONE_IN, code_space
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import (
    BOUNDS,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    FactorRule,
    Policy,
    policy_problem,
)
from sparecode_node.domain.policy_changes import (
    LiveCodes,
    changed,
    merged,
    weighs_lettered_pins,
    weighs_live_codes,
)
from tests.domain.policies_in_use import NOTHING, POLICY, InUse, alike

LENGTHS = st.dictionaries(st.sampled_from((6, 8, 9)), st.integers(1, 40), min_size=1)
RULES = st.sampled_from(PinRule)
SENSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "code_length": st.integers(6, 10),
    "further_code_lengths": st.sampled_from(("", "6", "8", "6 8", "6 9", "9 10")),
    "code_alphabet": st.sampled_from(
        ("0123456789", POLICY.code_alphabet, POLICY.code_alphabet[::-1])
    ),
    "codes_per_set_default": st.integers(1, 20),
    "codes_per_set_max": st.integers(20, 60),
    "set_low_threshold": st.integers(0, 20),
    "lifetime_ms_max": st.sampled_from((None, HOUR_MS, 30 * DAY_MS)),
    "pin_length_min": st.integers(4, 6),
    "pin_length_max": st.integers(6, 16),
    "lock_from_failures": st.integers(3, 5),
    "lock_ms": st.integers(MINUTE_MS, HOUR_MS),
    "lock_ms_max": st.integers(HOUR_MS, DAY_MS),
    "factor_off_at_failures": st.sampled_from((5, 20, 100)),
    "backup_recipients": st.sampled_from(("", "age1" + 58 * "q")),
    "administrators_second_factor": st.sampled_from(list(FactorRule)).map(str),
    "silent_notices": st.sampled_from(("", "new_device", "new_device locked")),
    "manager_notices": st.sampled_from(("", "codes_issued", "codes_issued locked")),
    "passkey_domain": st.sampled_from(("", "example.com", "localhost")),
}
"""Values most of which go together; of other fields any do that are within bounds."""


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Return sensible values of a field; add a missing field to `SENSIBLE`."""
    if isinstance(getattr(POLICY, name), bool):
        return st.booleans()
    return SENSIBLE[name] if name in SENSIBLE else st.integers(*BOUNDS[name])


NAMES = [field.name for field in fields(Policy) if field.name != "version"]
VALUES = {name: values_of(name) for name in NAMES}
CHANGES = st.fixed_dictionaries({}, optional=VALUES)
POLICIES = st.builds(
    lambda values: replace(POLICY, **values),
    CHANGES.filter(lambda values: policy_problem(replace(POLICY, **values)) is None),
)


@st.composite
def uses(draw: st.DrawFn) -> InUse:
    """Draw tokens and codes that may exist under a policy."""
    tokens = draw(st.lists(st.tuples(LENGTHS, RULES), max_size=4))
    return InUse(
        live=tuple(
            alike(lengths, rule, first=f"{serial}")
            for serial, (lengths, rule) in enumerate(tokens)
        ),
        without_pin=draw(st.integers(0, 1)),
        lettered_pins=draw(st.sampled_from(((), (TokenSerial("1"),)))),
    )


@settings(deadline=None)
@given(POLICIES, st.lists(st.tuples(LENGTHS, RULES), max_size=6), CHANGES)
def test_tokens_that_are_alike_are_judged_as_one_by_one(
    policy: Policy,
    tokens: list[tuple[dict[int, int], PinRule]],
    wanted: dict[str, Any],
) -> None:
    """(I6, T4) To the word: every replica's audit log has the answer."""
    singly = [
        alike(lengths, rule, first=f"{serial}")
        for serial, (lengths, rule) in enumerate(tokens)
    ]
    together: dict[str, LiveCodes] = {}
    for each in singly:
        kind = repr((sorted(each.lengths.items()), each.rule))
        known = together.setdefault(kind, replace(each, tokens=0))
        together[kind] = LiveCodes.alike(
            each.lengths, each.rule, known.tokens + 1, known.first
        )
    one, other = (
        changed(policy, 1, wanted, InUse(live=live))
        for live in (singly, tuple(reversed(together.values())))
    )
    assert one == other


@settings(deadline=None)
@given(
    POLICIES,
    st.lists(st.tuples(LENGTHS, RULES, st.integers(1, 3)), max_size=6),
    CHANGES,
)
def test_few_groups_judge_as_all_tokens_do(
    policy: Policy,
    tokens: list[tuple[dict[int, int], PinRule, int]],
    wanted: dict[str, Any],
) -> None:
    """(I6, T4) One group for each PIN rule and set of lengths."""
    live = [
        alike(lengths, rule, first=f"{serial}", tokens=number)
        for serial, (lengths, rule, number) in enumerate(tokens)
    ]
    few = merged(live, policy.code_alphabet)
    assert len(few) == len({(each.rule, *sorted(each.lengths)) for each in live})
    one, other = (
        changed(policy, 1, wanted, InUse(live=groups)) for groups in (live, few)
    )
    if isinstance(one, Rejected) and one.reason is Reason.GUESS_ODDS:
        # Another token may be named: the riskiest of its group, not the first.
        assert isinstance(other, Rejected)
        assert other.reason is Reason.GUESS_ODDS
    else:
        assert one == other


def test_the_riskiest_token_of_a_group_is_named() -> None:
    groups = merged(
        [alike({6: 2}, first="1"), alike({6: 9}, first="3"), alike({6: 9}, first="2")],
        POLICY.code_alphabet,
    )
    (group,) = groups
    assert (group.riskiest, group.first, group.tokens) == ("2", "1", 3)
    assert (group.lengths, group.codes) == ({6: 9}, {6: 20})


def test_refusals_say_how_many_codes_and_tokens_stand_in_the_way() -> None:
    """All equal ones count, and only those of the length in question."""
    use = replace(
        NOTHING,
        live=(
            alike({8: 7}, tokens=3),
            alike({8: 2, 9: 5}, first="4"),
            alike({9: 1}, first="5"),
        ),
    )
    policy = replace(POLICY, code_length=9, further_code_lengths="8")
    for wanted, says in (
        ({"code_alphabet": "0123456789ABCDEF"}, "29 live codes of 5 tokens"),
        ({"further_code_lengths": ""}, "23 live codes of 4 tokens (the first is 1; "),
    ):
        refused = changed(policy, 1, wanted, use)
        assert isinstance(refused, Rejected)
        assert says in refused.detail


def in_order(policy: Policy, use: InUse) -> InUse:
    """Return the tokens and codes that are allowed under this policy."""

    def may(part: InUse) -> bool:
        return isinstance(changed(policy, 1, {}, part), Policy)

    return InUse(
        live=[each for each in use.live if may(InUse(live=(each,)))],
        without_pin=use.without_pin if may(InUse(without_pin=1)) else 0,
        lettered_pins=use.lettered_pins if policy.pin_letters else (),
    )


@settings(max_examples=300, deadline=None)
@given(POLICIES, uses(), st.fixed_dictionaries(VALUES))
def test_a_change_that_does_not_weigh_what_lives_is_never_refused_for_it(
    policy: Policy, use: InUse, values: dict[str, Any]
) -> None:
    """(I6, T4) Allowed codes stay allowed: for each field, and for all at once."""
    use = in_order(policy, use)
    assume(isinstance(changed(policy, 1, {}, use), Policy))
    for weighs, without in (
        (weighs_live_codes, replace(use, live=())),
        (weighs_lettered_pins, replace(use, lettered_pins=())),
    ):
        each = [{name: value} for name, value in values.items()]
        light = [change for change in each if not weighs(policy, change)]
        together = {name: value for change in light for name, value in change.items()}
        for change in (*light, together):
            assert changed(policy, 1, change, use) == changed(
                policy, 1, change, without
            ), change


def test_most_changes_do_not_weigh_live_codes() -> None:
    assert {
        name for name in NAMES if weighs_live_codes(POLICY, {name: "other than before"})
    } == {
        "code_alphabet",
        "code_length",
        "further_code_lengths",
        "factor_off_at_failures",
    }
    assert not weighs_live_codes(POLICY, {"code_length": POLICY.code_length})


@pytest.mark.parametrize(("more", "weighed"), [(-1, False), (0, False), (1, True)])
def test_only_more_guesses_weigh_live_codes(more: int, *, weighed: bool) -> None:
    values = {"factor_off_at_failures": POLICY.factor_off_at_failures + more}
    assert weighs_live_codes(POLICY, values) is weighed
    assert weighs_live_codes(POLICY, values, fewer_guesses=True) is (more != 0)
    other_form = values | {"code_length": POLICY.code_length + 1}
    assert weighs_live_codes(POLICY, other_form)


# --- When it is asked for


@dataclass
class RecordingUse:
    """Returns what exists, and records which attributes were read."""

    use: InUse
    names: set[str] = field(default_factory=set)

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.use, name)


CROWD = InUse(live=(alike({8: 10}),), without_pin=1, lettered_pins=(TokenSerial("1"),))
LETTERED = replace(POLICY, pin_letters=True)


@pytest.mark.parametrize(
    ("version", "wanted", "names"),
    [
        (2, {"code_length": 9}, set()),
        (1, {"code_length": 99}, set()),
        (1, {"code_length": 9, "codes_per_set_max": 0}, set()),
        (1, {"code_length": 9, "codes_per_set_default": 51}, set()),
        (1, {"factor_off_at_failures": 101}, set()),
        (1, {"further_code_lengths": "8"}, set()),
        (1, {"code_alphabet": "ABC"}, set()),
        (1, {"code_alphabet": "0123456789"}, {"live"}),
        (1, {"lock_ms": HOUR_MS}, {"live"}),
        (1, {"pin_letters": False}, {"lettered_pins", "tokens_max"}),
    ],
)
def test_live_codes_are_read_only_where_the_answer_depends_on_them(
    version: int, wanted: dict[str, Any], names: set[str]
) -> None:
    """A stale or out-of-bounds change costs no count (c)."""
    use = RecordingUse(CROWD)
    changed(LETTERED, version, wanted, use)
    assert use.names == names


def test_tokens_without_pin_are_read_only_where_they_matter() -> None:
    """(I6) They do not, where a set of the default size is safe without a PIN."""
    for length, names in ((6, {"live", "without_pin"}), (7, {"live"})):
        use = RecordingUse(replace(CROWD, live=(), without_pin=0))
        assert isinstance(changed(LETTERED, 1, {"code_length": length}, use), Policy)
        assert use.names == names


def judged(policy: Policy, wanted: dict[str, Any], use: InUse) -> Policy | Reason:
    """Return the new policy or the refusal, with everything known in advance."""
    after = replace(policy, **wanted, version=policy.version + 1)
    lengths = {length for each in use.live for length in each.lengths}
    longer = after.code_length != policy.code_length
    same = after.further_code_lengths == policy.further_code_lengths
    if longer and same:
        kept = lengths & {*policy.code_lengths} - {after.code_length}
        further = " ".join(str(length) for length in sorted(kept))
        after = replace(after, further_code_lengths=further)
    if policy_problem(after) is not None:
        return Reason.POLICY_VALUE
    other = {*policy.code_alphabet} != {*after.code_alphabet}
    gone = lengths & {*policy.code_lengths} - {*after.code_lengths}
    if gone or (use.live and other):
        return Reason.CODES_LIVE
    if use.lettered_pins and not after.pin_letters:
        return Reason.PINS_LETTERED
    owners: list[tuple[Any, PinRule]] = [
        ({after.code_length: after.codes_per_set_max}, PinRule.PREPENDED)
    ]
    if use.without_pin:
        owners.append(({after.code_length: after.codes_per_set_default}, PinRule.NONE))
    owners += [(each.lengths, each.rule) for each in use.live]
    for codes, rule in owners:
        chance = sum(
            Fraction(codes[length], code_space(after.code_alphabet, length))
            for length in codes
        )
        if chance * after.factor_off_at_failures > Fraction(1, ODDS_ONE_IN[rule]):
            return Reason.GUESS_ODDS
    return after


@settings(deadline=None)
@given(POLICIES, uses(), CHANGES)
def test_late_reads_decide_as_if_all_were_known_in_advance(
    policy: Policy, use: InUse, wanted: dict[str, Any]
) -> None:
    """(I6, T4) For any change, and any live codes."""
    after = changed(policy, 1, wanted, use)
    result = after.reason if isinstance(after, Rejected) else after
    assert result == judged(policy, wanted, use)
