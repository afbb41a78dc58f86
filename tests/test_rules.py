# SPDX-License-Identifier: Apache-2.0
"""Every rule of `docs/rules.md` has a test that names it, most on three nodes."""

import os
import subprocess
import sys
from collections.abc import Iterator

from local_cluster.cluster import LocalCluster

from tests.rules import MISSING, ROOT, Showing, named_in, problems, rules
from tests.three_nodes import of_three

ALONE = Showing("alone", three_nodes=False)
ON_THREE = Showing("on three", three_nodes=True)


def test_every_rule_has_a_test_and_most_have_one_on_three_nodes() -> None:
    """All tests are collected, by a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.rules"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "deploy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_page_has_every_letter() -> None:
    """A row that is written otherwise would be a rule that nobody misses."""
    assert {rule[0] for rule in rules()} == set("IAQTRKLEUP")
    assert len(rules()) > 50


def test_a_rule_without_a_test_is_a_problem() -> None:
    found = {"X1": [ON_THREE], "X2": [], "X3": [], "X4": [ON_THREE], "X5": [ON_THREE]}
    assert problems(found, {"X3": "issue 9"}) == ["X2 has no test"]


def test_too_few_rules_on_three_nodes_are_a_problem() -> None:
    """One more than half must have one, beside others or alone."""
    found = {"X1": [ALONE, ON_THREE], "X2": [ALONE]}
    assert problems(found, {}) == ["only 1 of 2 rules are tested on three nodes"]
    assert not problems({**found, "X3": [ON_THREE]}, {})


def test_what_is_to_come_is_a_rule() -> None:
    assert problems({"X1": [ON_THREE]}, {"X9": "issue 9"}) == ["X9 is no rule"]
    assert set(MISSING) <= set(rules())


def test_docstrings_name_rules_in_brackets() -> None:
    said = "(A5, L1-L4) A name such as B7 is none; (T2) is (see RFC 4226), (R)."
    assert list(named_in(said)) == ["A5", "L1", "L2", "L3", "L4", "T2"]


def test_three_nodes_are_told_by_what_a_fixture_returns() -> None:
    """Directly, and out of a generator; a cluster of one has a type of its own."""

    def direct() -> LocalCluster: ...

    def yielded() -> Iterator[LocalCluster]: ...

    def other() -> Iterator[str]: ...

    assert [of_three(each) for each in (direct, yielded, other)] == [True, True, False]
