# SPDX-License-Identifier: Apache-2.0
"""The DESIGN page tells in numbers what is ours around PySyncObj, and they are right."""

import ast
import json
import re

import pytest

from tests.results import FOLDER
from tests.simulation.inherited import (
    CONSENSUS,
    OURS,
    PACKAGE,
    inherited,
    ours,
    statements,
)

DESIGN = (OURS / "DESIGN.md").read_text()
NUMBERS = DESIGN[DESIGN.index("In numbers: ") :].partition("\n\n")[0]


@pytest.mark.parametrize(("room", "count"), ours().items())
def test_the_design_page_has_the_number_of_our_statements(
    room: str, count: int
) -> None:
    """Correct the page if this fails: `make sim-inherited` has the numbers."""
    told = re.search(rf"([\d,]+)(?: statements)? in `{room}/`", NUMBERS)
    assert told, NUMBERS
    assert int(told[1].replace(",", "")) == pytest.approx(count, rel=0.05)


def test_the_design_page_has_what_runs_reach_of_the_package() -> None:
    """By the last `make sim-inherited`: all, its main module, constructors, the rest."""
    counted = json.loads((FOLDER / "simulation.json").read_text())["inherited"]
    constructors = counted["functions"]["__init__"]
    functions = sum(counted["functions"].values()) - constructors
    told = re.search(
        r"reach about (\d+) of .* about (\d+) of them in `syncobj.py`."
        r" Of these, (\d+) are constructors, and\s(\d+) are in functions",
        NUMBERS,
    )
    assert told, NUMBERS
    assert [int(each) for each in told.groups()] == [
        pytest.approx(count, rel=0.05)
        for count in (
            sum(counted["modules"].values()),
            counted["modules"][CONSENSUS],
            constructors,
            functions,
        )
    ]


def test_the_design_page_has_the_size_of_the_package() -> None:
    everything = inherited({})["everything"]
    assert f"of the {everything:,} statements of the package" in NUMBERS


def test_statements_are_counted_once_and_by_function() -> None:
    source = 'import a\n\ndef f():\n    """Doc."""\n    if a:\n        return 1\n'
    assert statements(ast.parse(source)) == [5, 6]
    path = PACKAGE / CONSENSUS
    lines = set(statements(ast.parse(path.read_text())))
    found = inherited({path: lines})
    assert found["modules"].keys() == {CONSENSUS}
    assert found["functions"]["__onMessageReceived"] > 50
