# SPDX-License-Identifier: Apache-2.0
"""The maps of the code: its layers, and the modules that each DESIGN page names."""

import re
import tomllib
from pathlib import Path

import pytest

import sparecode_node

ROOT = Path(__file__).parents[2]
NODE = ROOT / "node" / "sparecode_node"
PAGES = sorted(NODE.glob("*/DESIGN.md"))

ENTRY = re.compile(r"^( *)(\w+/?)(?:  |$)", re.MULTILINE)
"""A module, or a room with a slash, and what it is for."""


def layers() -> list[str]:
    """Return the layers of the node, the highest first, as import-linter checks them."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = (
        each for each in tools["importlinter"]["contracts"] if each["id"] == "layers"
    )
    return contract["layers"]


def has_chain(text: str) -> bool:
    """Return whether a text shows all layers, a line each, and no other line among them."""
    lines = [line.strip() for line in text.splitlines()]
    chain = layers()
    begins = [at for at, line in enumerate(lines) if line == chain[0]]
    return any(
        lines[at : at + len(chain)] == chain
        and not lines[at + len(chain)].isidentifier()
        for at in begins
    )


def written_modules(page: str) -> list[str]:
    """Return the modules and rooms in the map of a page, each with its folder."""
    (block,) = re.findall(
        r"^## Modules$.*?^```text$(.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    names, room = [], ""
    for indent, name in ENTRY.findall(block):
        names.append(f"{room}{name}" if indent else name)
        if not indent:
            room = name if name.endswith("/") else ""
    return names


def existing_modules(folder: Path) -> list[str]:
    """Return the modules and rooms of a folder, each as a map writes it."""
    files = [each for each in folder.rglob("*.py") if each.parent != folder.parent]
    names = []
    for file in files:
        path = file.relative_to(folder).with_suffix("")
        if file.stem != "__init__":
            names.append(path.as_posix())
        elif file.parent != folder:
            names.append(f"{path.parent.as_posix()}/")
    return names


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "node" / "DESIGN.md").read_text(),
        (ROOT / "CONTRIBUTING.md").read_text(),
        f"{sparecode_node.__doc__}\n",
    ],
    ids=["DESIGN", "CONTRIBUTING", "docstring"],
)
def test_every_map_of_layers_is_the_checked_one(text: str) -> None:
    assert has_chain(text)


@pytest.mark.parametrize(
    "page",
    PAGES,
    ids=lambda page: page.parent.name,
)
def test_design_page_names_every_module_once(page: Path) -> None:
    written = written_modules(page.read_text())
    assert sorted(written) == sorted(existing_modules(page.parent))


def test_table_of_layers_names_every_layer_once() -> None:
    page = (ROOT / "node" / "DESIGN.md").read_text()
    table = page.partition("## The layers")[2].partition("\n## ")[0]
    written = re.findall(r"^\| `(\w+/?)` \|", table, re.MULTILINE)
    existing = [each for each in existing_modules(NODE) if "/" not in each[:-1]]
    assert sorted(written) == sorted(existing)


def test_map_with_a_room_is_read() -> None:
    page = (
        "## Modules\n\nThe rooms.\n\n```text\nloose   a\n\nroom/   b\n  inner  c\n```\n"
    )
    assert written_modules(page) == ["loose", "room/", "room/inner"]
