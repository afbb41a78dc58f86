# SPDX-License-Identifier: Apache-2.0
"""
Which tests show which rule: `make rules`.

The rules are those of `docs/rules.md`; a test names in its docstring, in
brackets, what it shows: `(A5)`, `(L1-L4, U1)`.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "docs" / "rules.md"
TESTS = ROOT / "tests"

MISSING: Mapping[str, str] = {}
"""Rules of what is not built yet, with the issue that brings it and its tests."""

_ROW = re.compile(r"\| ([A-Z]\d+) \| (.+) \|")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_NAMED = re.compile(r"(?<![A-Za-z0-9])([A-Z])(\d+)(?:-\1?(\d+))?(?![A-Za-z0-9])")


def rules() -> dict[str, str]:
    """Return every rule with its sentence, in the order of the page."""
    return dict(_ROW.findall(RULES.read_text(encoding="utf-8")))


def named_in(docstring: str) -> Iterator[str]:
    """Name the rules that a docstring has in brackets."""
    for brackets in _BRACKETS.findall(docstring):
        for letter, first, last in _NAMED.findall(brackets):
            for number in range(int(first), int(last or first) + 1):
                yield f"{letter}{number}"


def tests() -> Iterator[tuple[str, str]]:
    """Yield every test with its docstring."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef
            ) and node.name.startswith("test_"):
                where = f"{path.relative_to(ROOT)}::{node.name}"
                yield where, ast.get_docstring(node) or ""


def shown() -> dict[str, list[str]]:
    """Return every rule with the tests that name it."""
    found: dict[str, list[str]] = {rule: [] for rule in rules()}
    for name, docstring in tests():
        for rule in dict.fromkeys(named_in(docstring)):
            if rule in found:
                found[rule].append(name)
    return found


def problems(
    found: Mapping[str, list[str]], missing: Mapping[str, str] = MISSING
) -> list[str]:
    """Say what is wrong: a rule without a test that nobody has said is to come."""
    return [
        *(
            f"{rule} has no test"
            for rule, names in found.items()
            if not names and rule not in missing
        ),
        *(f"{rule} is no rule" for rule in missing if rule not in found),
    ]


def main() -> int:
    """Print rule, sentence and tests; return 1 if a rule has none."""
    found = shown()
    for rule, sentence in rules().items():
        print(f"{rule}  {sentence}")
        for name in found[rule]:
            print(f"      {name}")
        if not found[rule]:
            print(f"      NONE: {MISSING.get(rule, 'and nobody said why')}")
    wrong = problems(found)
    with_tests = sum(map(bool, found.values()))
    print(f"\n{with_tests} of {len(found)} rules have tests that name them.")
    for rule, issue in MISSING.items():
        if found[rule]:
            print(f"{rule} has tests now: take it out of MISSING in tests/rules.py")
        else:
            print(f"not built yet: {rule} ({issue})")
    for problem in wrong:
        print(problem)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
