# SPDX-License-Identifier: Apache-2.0
"""
Every caller calls everything that a node serves, at its listeners (P1).

`callers.txt` is the table of who may call what, and `docs/security.md` shows it. What
happened is compared with it; no table of the product is read. After a change that you
mean, `pytest --rewrite` records what happened: read the difference before you commit it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.security import callers_by_browser, callers_by_grpc, callers_by_http
from tests.security.callers import Administration, Caller, administration, callers_of
from tests.security.callers_table import FILE, UNCLEAR, Section, lines, read
from tests.security.whole_node import MONITORING, WholeNode, whole_node

HINT = (
    "the answer does not tell what the caller may do, for example because it is about the "
    "fields. Give the call others: FIELDS in callers_by_grpc.py and callers_by_http.py, "
    "FORMS in callers_by_browser.py"
)
SECTIONS = ("gRPC", "console", "HTTP", "metrics")


@dataclass(frozen=True, slots=True)
class Happened:
    """What the test has seen of a running node."""

    sections: Mapping[str, Section]
    buttons: frozenset[str]
    """The rows of the buttons on the console's pages."""


async def _happened(folder: Path) -> Happened:
    """Start a node, let everyone call everything, and return what happened."""
    async with whole_node(folder) as node, administration(node) as root:
        callers = await callers_of(node, root)
        buttons = frozenset[str]()
        for each in callers:
            if each.administrator and each.name != "temporary":
                buttons |= await callers_by_browser.buttons(node, each)
        async with asyncio.TaskGroup() as group:
            each_did = [group.create_task(_calls(node, root, each)) for each in callers]
        monitoring = Caller(name="monitoring", bearer=MONITORING)
        scraped = await callers_by_http.metrics(node, monitoring)
    happened = {
        section: _by_method(
            {
                caller.name: each.result()[section]
                for caller, each in zip(callers, each_did, strict=True)
            }
        )
        for section in SECTIONS
    }
    for path, words in happened["metrics"].items():
        happened["metrics"][path] = {**words, "monitoring": scraped[path]}
    return Happened(sections=happened, buttons=buttons)


async def _calls(
    node: WholeNode, root: Administration, caller: Caller
) -> Mapping[str, Mapping[str, str]]:
    """
    Make every call of one caller, one after the other.

    A browser that signs out everywhere ends the sessions of programs, too.
    """
    console = await callers_by_browser.outcomes(node, caller)
    caller = await root.signed_in(caller)
    return {
        "console": console,
        "HTTP": await callers_by_http.door(node, caller),
        "metrics": await callers_by_http.metrics(node, caller),
        "gRPC": await callers_by_grpc.outcomes(node, root, caller),
    }


def _by_method(by_caller: Mapping[str, Mapping[str, str]]) -> Section:
    methods = next(iter(by_caller.values()))
    return {
        method: {caller: words[method] for caller, words in by_caller.items()}
        for method in methods
    }


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory, *, rewrite: bool) -> Happened:
    """Let everyone call everything, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARECODE_TESTING", "1")  # For the cheapest hashing.
        found = asyncio.run(_happened(tmp_path_factory.mktemp("node") / "cluster"))
    if rewrite:
        text = [each for each in FILE.read_text().splitlines() if each[:1] == "#"]
        for name, section in found.sections.items():
            text += ["", *lines(name, section)]
        FILE.write_text("\n".join(text) + "\n")
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_everything_that_is_served_has_a_row(happened: Happened, section: str) -> None:
    """(P1) A new method, page or path gets a row in the commit that adds it."""
    served, table = happened.sections[section], read(FILE.read_text())[section]
    missing = {name: served[name] for name in served if name not in table}
    assert not missing, "\n".join(
        [
            f"{FILE.name} has no row for these. If what happened is right, add:",
            *lines(section, missing),
        ]
    )
    gone = sorted(set(table) - set(served))
    assert not gone, f"{FILE.name} has rows for what no node serves: {gone}"


@pytest.mark.parametrize("section", SECTIONS)
def test_each_caller_may_do_what_its_cells_say(
    happened: Happened, section: str
) -> None:
    """(P1, P2, I10) No more and no less, from nobody to a super administrator."""
    table = read(FILE.read_text())[section]
    wrong = [
        f"{method}: {caller} got {words.get(caller)!r}, the table has {cells[caller]!r}"
        for method, words in happened.sections[section].items()
        for cells in [table.get(method, words)]
        for caller in cells
        if words.get(caller) != cells[caller]
    ]
    assert not wrong, "\n".join([*wrong, f"{UNCLEAR!r} means: {HINT}"])


def test_every_button_of_the_console_has_a_row(happened: Happened) -> None:
    """(P1) A page may get another form, or a form another button, and no other route."""
    missing = sorted(happened.buttons - set(read(FILE.read_text())["console"]))
    assert not missing, f"FORMS in callers_by_browser.py lacks {missing}"
    assert len(happened.buttons) > 30, "the pages show fewer forms than they have"
