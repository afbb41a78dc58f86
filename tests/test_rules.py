# SPDX-License-Identifier: Apache-2.0
"""Every rule of `docs/rules.md` has a test that names it."""

from tests.rules import MISSING, named_in, problems, rules, shown


def test_every_rule_has_a_test() -> None:
    assert not problems(shown())


def test_the_page_has_every_letter() -> None:
    """A row that is written otherwise would be a rule that nobody misses."""
    assert {rule[0] for rule in rules()} == set("IAQTRKLEUP")
    assert len(rules()) > 50


def test_a_rule_without_a_test_is_a_problem() -> None:
    found = {"X1": ["a"], "X2": [], "X3": []}
    assert problems(found, {"X3": "issue 9"}) == ["X2 has no test"]


def test_what_is_to_come_is_a_rule() -> None:
    assert problems({"X1": ["a"]}, {"X9": "issue 9"}) == ["X9 is no rule"]
    assert set(MISSING) <= set(rules())


def test_docstrings_name_rules_in_brackets() -> None:
    said = "(A5, L1-L4) A name such as B7 is none; (T2) is (see RFC 4226), (R)."
    assert list(named_in(said)) == ["A5", "L1", "L2", "L3", "L4", "T2"]
