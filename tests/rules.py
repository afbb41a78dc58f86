# SPDX-License-Identifier: Apache-2.0
"""
List the tests of each rule, and how many nodes they run on: `make rules`.

The rules are those of `docs/rules.md`. A test names the rules that it shows in
brackets in its docstring: `(A5)`, `(L1-L4, U1)`. Its fixtures tell whether it
runs on a cluster of three nodes (`tests/three_nodes.py`).
"""

import contextlib
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.three_nodes import runs_on_three

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "docs" / "rules.md"

MISSING: Mapping[str, str] = {}
"""Rules that are not built yet, each with the issue that brings them."""

_ROW = re.compile(r"\| ([A-Z]\d+[a-z]?) \| (.+) \|")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_NAMED = re.compile(r"(?<![A-Za-z0-9])([A-Z])(\d+)(?:-\1?(\d+))?(?![A-Za-z0-9])")
_LETTERED = re.compile(r"(?<![A-Za-z0-9])[A-Z]\d+[a-z](?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class RuleTest:
    """A test that names a rule."""

    name: str
    three_nodes: bool


def rules() -> dict[str, str]:
    """Return every rule with its sentence, in the order of the page."""
    return dict(_ROW.findall(RULES.read_text(encoding="utf-8")))


def named_in(docstring: str) -> Iterator[str]:
    """Yield the rules that a docstring names in brackets."""
    for brackets in _BRACKETS.findall(docstring):
        for letter, first, last in _NAMED.findall(brackets):
            for number in range(int(first), int(last or first) + 1):
                yield f"{letter}{number}"
        yield from _LETTERED.findall(brackets)


class _Collector:
    """A pytest plugin that keeps the collected tests."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep all tests; none is run."""
        self.items = list(items)


def collect() -> Sequence[pytest.Function]:
    """Return every test without running it. Raises if collecting fails."""
    collector = _Collector()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = pytest.main(
            [str(ROOT / "tests"), "--collect-only", "-qqq", "-p", "no:cacheprovider"],
            plugins=[collector],
        )
    if status is not pytest.ExitCode.OK:
        raise RuntimeError(f"the tests cannot be collected:\n{output.getvalue()}")
    return [item for item in collector.items if isinstance(item, pytest.Function)]


def tests_by_rule(items: Sequence[pytest.Function]) -> dict[str, list[RuleTest]]:
    """Return every rule with the tests that name it."""
    results: dict[str, dict[str, RuleTest]] = {rule: {} for rule in rules()}
    for item in items:
        name, _, _ = item.nodeid.partition("[")  # One line for all parameters.
        test = RuleTest(name, runs_on_three(item))
        for rule in named_in(item.function.__doc__ or ""):
            if rule in results:
                results[rule][name] = test
    return {rule: list(tests.values()) for rule, tests in results.items()}


def problems(
    rule_tests: Mapping[str, Sequence[RuleTest]], missing: Mapping[str, str] = MISSING
) -> list[str]:
    """Return the problems: rules without a test, or too few rules tested on three nodes."""
    on_three = [rule for rule, tests in rule_tests.items() if _on_three(tests)]
    return [
        *(
            f"{rule} has no test"
            for rule, tests in rule_tests.items()
            if not tests and rule not in missing
        ),
        *(f"{rule} is not a rule" for rule in missing if rule not in rule_tests),
        *(
            [
                f"only {len(on_three)} of {len(rule_tests)} rules are tested on three nodes"
            ]
            if 2 * len(on_three) <= len(rule_tests)
            else []
        ),
    ]


def _on_three(tests: Sequence[RuleTest]) -> bool:
    return any(test.three_nodes for test in tests)


def main() -> int:
    """Print each rule with its tests; return 1 if there are problems."""
    result = tests_by_rule(collect())
    for rule, sentence in rules().items():
        print(f"{rule}  {sentence}")
        for test in result[rule]:
            print(f"  {'3 nodes' if test.three_nodes else '':>9}  {test.name}")
        if not result[rule]:
            print(
                f"             NO TEST: {MISSING.get(rule, 'and no reason is listed')}"
            )
    with_tests = sum(map(bool, result.values()))
    print(f"\n{with_tests} of {len(result)} rules have tests that name them.")
    others = [rule for rule, tests in result.items() if not _on_three(tests)]
    print(f"{len(result) - len(others)} of them have one on a cluster of three nodes.")
    if others:
        print(f"Not on three nodes: {', '.join(others)}.")
    for rule, issue in MISSING.items():
        if result[rule]:
            print(f"{rule} has tests now: remove it from MISSING in tests/rules.py")
        else:
            print(f"not built yet: {rule} ({issue})")
    wrong = problems(result)
    for problem in wrong:
        print(problem)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
