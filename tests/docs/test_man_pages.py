# SPDX-License-Identifier: Apache-2.0
"""The manual pages describe every command and option, and `man` shows them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sparecode_client.cli import app as client_app
from sparecode_node.__main__ import app as node_app

ROOT = Path(__file__).parents[2]
PROGRAMS = {"sparecode": client_app, "sparecode-node": node_app}
ESCAPES = {r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(dq": '"', r"\fB": "", r"\fP": ""}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "sparecode-former.1").write_text("")
    # In a process of its own: the script settles its terminal before it imports.
    subprocess.run([sys.executable, ROOT / "docs/man_pages.py", folder], check=True)
    return folder


def plain(page: Path) -> str:
    text = page.read_text()
    for escape, character in ESCAPES.items():
        text = text.replace(escape, character)
    return text


def leaves(
    command: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
    for name, each in (children or {}).items():
        if not each.hidden:
            yield from leaves(each, (*path, name))


def test_every_command_has_its_options_on_a_page(pages: Path):
    """The page of the program, or of the group that the command belongs to."""
    count = 0
    for program, app in PROGRAMS.items():
        for path, command in leaves(typer.main.get_command(app), (program,)):
            page = pages / f"{'-'.join(path[: min(2, len(path) - 1)])}.1"
            _, found, section = plain(page).partition(f".SS {' '.join(path)}\n")
            assert found, path
            section = re.split(r"^\.S[SH] ", section, maxsplit=1, flags=re.MULTILINE)[0]
            shown = (each for each in command.params if not getattr(each, "hidden", 0))
            for option in (name for each in shown for name in each.opts):
                if option.startswith("-"):
                    assert option in section, (path, option)
            count += 1
    assert count > 80


def test_pages_name_their_parts(pages: Path):
    text = plain(pages / "sparecode.1")
    for heading in ("NAME", "SYNOPSIS", "OPTIONS", "ENVIRONMENT", "EXIT STATUS"):
        assert f".SH {heading}\n" in text
    assert "sparecode-emergency(1)" in text
    assert "SPARECODE_NODES" in text
    assert ".SH SEE ALSO\n.sp\nsparecode-node(1)\n" in text


def test_page_of_a_former_group_is_deleted(pages: Path):
    assert not (pages / "sparecode-former.1").exists()


@pytest.mark.skipif(
    shutil.which("man") is None, reason="man is missing: make system-packages"
)
def test_man_shows_the_pages_without_warnings(pages: Path):
    environment = {"PATH": os.environ["PATH"], "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    texts = sorted(pages.glob("*.1"))
    assert len(texts) > 10
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", *texts],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not shown.stderr
    # Lines of examples are not broken.
    # `man -k` and `whatis` find them.
    known = subprocess.run(
        ["lexgrog", *texts], env=environment, capture_output=True, text=True, check=True
    )
    for page, line in zip(texts, known.stdout.splitlines(), strict=True):
        assert line.startswith(f'{page}: "{page.stem} - '), line
    assert (
        "allow-and-disable   it works, and its first use voids the codes"
        in shown.stdout
    )
