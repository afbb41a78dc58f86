# SPDX-License-Identifier: Apache-2.0
"""Commands that pages, the console and messages show can be copied: they parse."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sparecode_client.cli import app as client_app
from sparecode_client.cli.app import options_first
from sparecode_node.__main__ import app as node_app

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "sparecode": typer.main.get_command(client_app),
    "sparecode-node": typer.main.get_command(node_app),
}
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if page.name != "commands.md" and "results" not in page.parts
]
TEMPLATES = ROOT / "node/sparecode_node/console/templates"
BLOCK = re.compile(r"^```\w*[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r'<code class="line">(.*?)</code>')
COMMAND = re.compile(r"(?:^(?:[$#] )?|[(&;] ?)((?:sparecode|sparecode-node) [^\n]*)")
END = re.compile(r" ?(?:[;|)&]|[12]?> | < | # ).*$")


def shown() -> Iterator[tuple[str, str]]:
    """Yield commands with the name of the file that shows them."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                for command in COMMAND.findall(line.strip()):
                    yield page.name, command
    for template in TEMPLATES.glob("*.html"):
        for command in LINE.findall(template.read_text()):
            yield template.name, re.sub(r"{{.*?}}", "x", command)


SHOWN = sorted(set(shown()))


def parse(command: str) -> str:
    """Parse a command as its program does, without running it; return its name."""
    command = re.sub(r"\$\(.*\)|<\([^)]*\)", "x", command)
    program, *words = shlex.split(END.sub("", command))
    group: Any = PROGRAMS[program]
    if program == "sparecode":
        words = options_first(words)
    context = group.make_context(program, words)
    while words := [*getattr(context, "_protected_args", ()), *context.args]:
        if not hasattr(group, "commands"):
            break
        name, group, words = group.resolve_command(context, words)
        context = group.make_context(name, words, parent=context)
    return str(context.info_name)


def test_pages_show_commands() -> None:
    assert len(SHOWN) > 50
    assert {"backups.html", "ticket.html", "restore.md"} <= {name for name, _ in SHOWN}


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_command_of_a_page_parses(page: str, command: str) -> None:
    assert parse(command) in command


def commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group of a program."""
    yield path
    for name, each in getattr(group, "commands", {}).items():
        yield from commands(each, (*path, name))


EVERY = [path for name in PROGRAMS for path in commands(PROGRAMS[name], (name,))]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_has_one_style(path: tuple[str, ...]) -> None:
    """In both programs: 80 columns, `-h`, a sentence for each option, and no colors."""
    program, *words = path
    app = client_app if program == "sparecode" else node_app
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "FORCE_COLOR": "1"}
    shown = CliRunner(env=environment).invoke(app, [*words, "-h"], prog_name=program)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines()[1:])) <= 80
    command: Any = PROGRAMS[program]
    for word in words:
        command = command.commands[word]
    for each in command.params:
        text = getattr(each, "help", None) or ""
        assert text[:1].isupper() or text.startswith(("super-admin", "json-lines")), (
            each.name
        )
        assert text.endswith((".", "?")), (each.name, text)
        for phrase in ("may repeat", "Repeatable", "(default"):
            assert phrase not in text, (each.name, text)
