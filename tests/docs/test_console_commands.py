# SPDX-License-Identifier: Apache-2.0
"""Commands that pages of the Security Console print: they exist, with their options."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sparecode_client.cli import app as client
from sparecode_node.__main__ import app as node

TEMPLATES = Path(__file__).parents[2] / "node/sparecode_node/console/templates"
COMMAND = re.compile(r"<code[^>]*>(sparecode(?:-node)? [^<]*)</code>")
PROGRAMS = {"sparecode": client, "sparecode-node": node}
PRINTED = sorted(
    {
        command
        for path in TEMPLATES.rglob("*.html")
        for command in COMMAND.findall(path.read_text())
    }
)


def test_the_backups_page_prints_the_commands_of_its_runbook() -> None:
    runbook = TEMPLATES.parents[3] / "docs/runbooks/backups.md"
    typed = runbook.read_text().splitlines()
    for command in COMMAND.findall((TEMPLATES / "backups.html").read_text()):
        assert [line for line in typed if line.startswith(command)], command


@pytest.mark.parametrize("printed", PRINTED)
def test_a_printed_command_exists_with_its_options(printed: str) -> None:
    program, *words = printed.split()
    command: Any = typer.main.get_command(PROGRAMS[program])
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or words == ["--help"], printed
    options = {name for each in command.params for name in each.opts}
    assert {word for word in words if word.startswith("--")} <= options | {"--help"}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    named = [word for word in words if not word.startswith("--")]
    assert len(named) >= sum(each.required for each in arguments) or not named
