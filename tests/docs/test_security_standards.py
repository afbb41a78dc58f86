# SPDX-License-Identifier: Apache-2.0
"""
The page on security standards answers every requirement, and names what exists.

Whether a requirement is met is for people to judge.
"""

import re
from collections import Counter
from pathlib import Path

from tests.rules import rules

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security-standards.md"
PLACES = (ROOT, ROOT / "node/sparecode_node")
STATES = {"met", "**not met**", "not ours"}

# Requirements of levels 1 and 2 in OWASP ASVS 5.0.0, by section.
ASVS = """
V1.1: 1 2
V1.2: 1 2 3 4 5 6 7 8 9
V1.3: 1 2 3 4 5 6 7 8 9 10 11
V1.4: 1 2 3
V1.5: 1 2
V2.1: 1 2 3
V2.2: 1 2 3
V2.3: 1 2 3 4
V2.4: 1
V3.2: 1 2
V3.3: 1 2 3 4
V3.4: 1 2 3 4 5 6
V3.5: 1 2 3 4 5
V3.7: 1 2
V4.1: 1 2 3
V4.2: 1
V4.3: 1 2
V4.4: 1 2 3 4
V5.1: 1
V5.2: 1 2 3
V5.3: 1 2
V5.4: 1 2 3
V6.1: 1 2 3
V6.2: 1 2 3 4 5 6 7 8 9 10 11 12
V6.3: 1 2 3 4
V6.4: 1 2 3 4
V6.5: 1 2 3 4 5
V6.6: 1 2 3
V6.8: 1 2 3 4
V7.1: 1 2 3
V7.2: 1 2 3 4
V7.3: 1 2
V7.4: 1 2 3 4 5
V7.5: 1 2
V7.6: 1 2
V8.1: 1 2
V8.2: 1 2 3
V8.3: 1
V8.4: 1
V9.1: 1 2 3
V9.2: 1 2 3 4
V10.1: 1 2
V10.2: 1 2
V10.3: 1 2 3 4
V10.4: 1 2 3 4 5 6 7 8 9 10 11
V10.5: 1 2 3 4 5
V10.6: 1 2
V10.7: 1 2 3
V11.1: 1 2
V11.2: 1 2 3
V11.3: 1 2 3
V11.4: 1 2 3 4
V11.5: 1
V11.6: 1
V12.1: 1 2 3
V12.2: 1 2
V12.3: 1 2 3 4
V13.1: 1
V13.2: 1 2 3 4 5
V13.3: 1 2
V13.4: 1 2 3 4 5
V14.1: 1 2
V14.2: 1 2 3 4
V14.3: 1 2 3
V15.1: 1 2 3
V15.2: 1 2 3
V15.3: 1 2 3 4 5 6 7
V16.1: 1
V16.2: 1 2 3 4 5
V16.3: 1 2 3 4
V16.4: 1 2 3
V16.5: 1 2 3
V17.1: 1
V17.2: 1 2 3 4
V17.3: 1 2
"""

ROW = re.compile(r"^\| ([V2-5].*?) \| (.+?) \| (.*?) \| (.+) \|$", re.MULTILINE)
PATH = re.compile(r"`([\w./-]+(?:\.\w+|/v1))`")
RULES = re.compile(r"rules? ([A-Z]\d+(?:(?:, | and | to |-)[A-Z]\d+)*)")
COUNTS = re.compile(r"Of (\d+) requirements, (\d+) are met, (\d+) are not met")


def asvs_ids() -> list[str]:
    """Return the ids in the order of the standard."""
    ids = []
    for line in ASVS.split("\n"):
        section, _, numbers = line.partition(": ")
        ids += [f"{section}.{number}" for number in numbers.split()]
    return ids


def answered(cell: str) -> list[str]:
    """Return the ids of a row: single ones, or all from one to another."""
    first, _, last = cell.partition(" to ")
    if not last:
        return cell.split(", ")
    ids = asvs_ids()
    return ids[ids.index(first) : ids.index(last) + 1]


def test_every_requirement_of_asvs_is_answered_once() -> None:
    rows = ROW.findall(PAGE.read_text())
    answers = [
        (each, state)
        for cell, _, state, _ in rows
        if cell.startswith("V")
        for each in answered(cell)
    ]
    assert sorted(each for each, _ in answers) == sorted(asvs_ids())
    states = Counter(state for _, state in answers)
    counts = COUNTS.search(PAGE.read_text())
    assert counts is not None
    assert [int(number) for number in counts.groups()] == [
        len(answers),
        states["met"],
        states["**not met**"],
    ]


def test_every_answer_is_one_of_three() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert {state for _, _, state, _ in rows} == STATES


def test_named_files_and_rules_exist() -> None:
    known = rules()
    for cell, _, _, shown in ROW.findall(PAGE.read_text()):
        for path in PATH.findall(shown):
            if "/" in path or path.endswith((".py", ".lock")):
                assert any((place / path).exists() for place in PLACES), (cell, path)
        for names in RULES.findall(shown):
            for name in re.findall(r"[A-Z]\d+", names):
                assert name in known, (cell, name)
