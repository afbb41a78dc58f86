# SPDX-License-Identifier: Apache-2.0
"""Every rule of `docs/rules.md` has a test that names it, most on three nodes."""

import os
import subprocess
import sys
from collections.abc import Iterator

from local_cluster.cluster import LocalCluster

from tests.rules import MISSING, ROOT, RuleTest, named_in, problems, rules
from tests.three_nodes import of_three

ALONE = RuleTest("alone", three_nodes=False)
ON_THREE = RuleTest("on three", three_nodes=True)


def test_every_rule_has_a_test_and_most_have_one_on_three_nodes() -> None:
    """A separate process collects all tests."""
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
    """A row in another form would not be read, and its rule would not be missed."""
    assert {rule[0] for rule in rules()} == set("IAQTRKLDENUP")
    assert len(rules()) > 50


def test_a_rule_without_a_test_is_a_problem() -> None:
    results = {"X1": [ON_THREE], "X2": [], "X3": [], "X4": [ON_THREE], "X5": [ON_THREE]}
    assert problems(results, {"X3": "issue 9"}) == ["X2 has no test"]


def test_too_few_rules_on_three_nodes_are_a_problem() -> None:
    """More than half of the rules need a test on three nodes."""
    results = {"X1": [ALONE, ON_THREE], "X2": [ALONE]}
    assert problems(results, {}) == ["only 1 of 2 rules are tested on three nodes"]
    assert not problems({**results, "X3": [ON_THREE]}, {})


def test_a_rule_that_is_not_built_yet_is_a_rule() -> None:
    assert problems({"X1": [ON_THREE]}, {"X9": "issue 9"}) == ["X9 is not a rule"]
    assert set(MISSING) <= set(rules())


def test_docstrings_name_rules_in_brackets() -> None:
    docstring = (
        "(A5, L1-L4) A name such as B7 is none; (T2) is (see RFC 4226), (R, P3a)."
    )
    assert list(named_in(docstring)) == ["A5", "L1", "L2", "L3", "L4", "T2", "P3a"]


def test_the_return_type_of_a_fixture_tells_of_three_nodes() -> None:
    """Directly or from a generator; a cluster of one node has another type."""

    def direct() -> LocalCluster: ...

    def yielded() -> Iterator[LocalCluster]: ...

    def other() -> Iterator[str]: ...

    assert [of_three(each) for each in (direct, yielded, other)] == [True, True, False]
