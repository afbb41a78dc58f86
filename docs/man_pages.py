# SPDX-License-Identifier: Apache-2.0
"""
Writes the manual pages of both programs: python docs/man_pages.py FOLDER.

One page for each program, and one for each of its groups of commands: `man` finds
`sparecode-tokens(1)` for `man sparecode tokens`. The text is the help of the commands.
The date is that of the latest version in CHANGELOG.md, so that equal sources give equal
pages.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from docutils.core import publish_from_doctree
from docutils.frontend import get_default_settings
from docutils.utils import new_document

# Set before typer measures the terminal, so that pages are the same on any machine.
os.environ.update(COLUMNS="80", TERM="dumb", NO_COLOR="1")

from sparecode_client.cli import app as client_app
from sparecode_node.__main__ import app as node_app

ROOT = Path(__file__).parent.parent
PROGRAMS = {"sparecode": client_app, "sparecode-node": node_app}
_RELEASE = re.compile(r"^## \[[\d.]+\] - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)
_VARIABLE = re.compile(r"\[env var: (\w+)")
_EXIT_CODES = "Exit codes: "
_MARK = "\b"
"""Click's mark of a paragraph whose lines stay as they are."""


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    texts = {}
    for program, app in PROGRAMS.items():
        command: Any = typer.main.get_command(app)
        context = command.make_context(program, ["help"], resilient_parsing=True)
        groups = {
            name: each
            for name, each in command.commands.items()
            if hasattr(each, "commands") and not each.hidden
        }
        names = [f"{program}-{name}" for name in groups]
        texts[f"{program}.1"] = _program_page(context, names)
        for name, group in groups.items():
            texts[f"{program}-{name}.1"] = _group_page(
                _below(context, name, group), program
            )
    return texts


def _program_page(context: typer.Context, group_pages: Sequence[str]) -> str:
    command = context.command
    page = _Page(context)
    page.add("Synopsis", _usage(context))
    page.add("Description", *_text(command.help))
    page.add("Options", _records(context))
    own = [
        each
        for each in _children(context)
        if f"{context.command_path}-{each.info_name}" not in group_pages
    ]
    page.add("Commands", *_sections(own))
    page.add("Groups of commands", *_group_list(context, group_pages))
    page.add("Environment", *_environment(context))
    page.end(command.epilog, [name for name in PROGRAMS if name != context.info_name])
    return page.text()


def _group_page(context: typer.Context, program: str) -> str:
    page = _Page(context)
    page.add("Synopsis", _usage(context))
    page.add("Description", *_text(context.command.help))
    page.add("Commands", *_sections(_leaves(context)))
    page.end(context.command.epilog, [program])
    return page.text()


class _Page:
    """A page in the making: a document of docutils, whose writer escapes all text."""

    def __init__(self, context: typer.Context) -> None:
        self._document = new_document("help", get_default_settings())
        name = context.command_path.replace(" ", "-")
        summary = context.command.get_short_help_str(limit=200).rstrip(".")
        self._document += nodes.title("", name)
        self._document += nodes.subtitle("", summary)
        facts = nodes.docinfo()
        facts += nodes.date("", _released_on())
        facts += nodes.version(
            "", f"sparecode {importlib.metadata.version('sparecode')}"
        )
        for key, value in (("manual_section", "1"), ("manual_group", "Sparecode")):
            body = nodes.field_body("", nodes.paragraph("", value))
            facts += nodes.field("", nodes.field_name("", key), body)
        self._document += facts

    def add(self, heading: str, *content: nodes.Node) -> None:
        """Add a section, unless it is empty."""
        if content:
            self._document += nodes.section(
                "", nodes.title("", heading.upper()), *content
            )

    def end(self, epilog: str | None, related: Sequence[str]) -> None:
        """Add what stands after the commands in the help, and the last section."""
        paragraphs = _paragraphs(epilog)
        codes = [each for each in paragraphs if each[0].startswith(_EXIT_CODES)]
        notes = [
            line for each in paragraphs if each not in codes for line in (*each, "")
        ]
        self.add("Notes", *_text("\n".join(notes)))
        if codes:
            statuses = " ".join(codes[0]).removeprefix(_EXIT_CODES)
            self.add(
                "Exit status",
                nodes.paragraph("", f"{statuses[:1].upper()}{statuses[1:]}"),
            )
        names = ", ".join(f"{each}(1)" for each in related)
        self.add("See also", nodes.paragraph("", names))

    def text(self) -> str:
        """Return the page in roff."""
        text: str = publish_from_doctree(
            self._document,
            writer="manpage",
            settings_overrides={"output_encoding": "unicode"},
        )
        # The writer capitalizes this heading alone, and manual pages have capitals.
        return text.replace("\n.SH Name\n", "\n.SH NAME\n", 1)


def _released_on() -> str:
    released = _RELEASE.search((ROOT / "CHANGELOG.md").read_text())
    assert released is not None  # noqa: S101  The first release has a date.
    return released[1]


def _below(context: typer.Context, name: str, command: object) -> typer.Context:
    return type(context)(command, info_name=name, parent=context)


def _children(context: typer.Context) -> Iterator[typer.Context]:
    """Yield the contexts of the commands of a group."""
    for name, each in getattr(context.command, "commands", {}).items():
        if not each.hidden:
            yield _below(context, name, each)


def _leaves(context: typer.Context) -> Iterator[typer.Context]:
    """Yield the contexts of all commands below a group, also of its groups."""
    for each in _children(context):
        if hasattr(each.command, "commands"):
            yield from _leaves(each)
        else:
            yield each


def _sections(contexts: Iterable[typer.Context]) -> Iterator[nodes.Node]:
    for context in contexts:
        yield nodes.section(
            "",
            nodes.title("", context.command_path),
            _usage(context),
            *_text(context.command.help),
            _records(context),
            *_text(context.command.epilog),
        )


def _usage(context: typer.Context) -> nodes.Node:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return nodes.paragraph(
        "", "", nodes.strong("", context.command_path), nodes.Text(f" {pieces}")
    )


def _records(context: typer.Context) -> nodes.Node:
    """Return the arguments and options of a command."""
    records = [
        each.get_help_record(context) for each in context.command.get_params(context)
    ]
    return _definitions([record for record in records if record is not None])


def _definitions(pairs: Sequence[tuple[str, str]]) -> nodes.Node:
    return nodes.definition_list(
        "",
        *(
            nodes.definition_list_item(
                "",
                nodes.term("", name),
                nodes.definition("", nodes.paragraph("", re.sub(r"\s+", " ", text))),
            )
            for name, text in pairs
        ),
    )


def _group_list(
    context: typer.Context, group_pages: Sequence[str]
) -> Iterator[nodes.Node]:
    pairs = [
        (f"{page}(1)", each.command.get_short_help_str(limit=200))
        for each in _children(context)
        for page in [f"{context.command_path}-{each.info_name}"]
        if page in group_pages
    ]
    if pairs:
        yield _definitions(pairs)


def _environment(context: typer.Context) -> Iterator[nodes.Node]:
    """Yield the variables that set options of the program, and of its own commands."""
    pairs = {}
    for each in (context, *_children(context)):
        for parameter in each.command.params:
            names, text = parameter.get_help_record(each) or ("", "")
            for variable in _VARIABLE.findall(text):
                pairs.setdefault(variable, f"The value of {names}, if it is not set.")
    if pairs:
        yield _definitions(list(pairs.items()))


def _paragraphs(text: str | None) -> list[list[str]]:
    """Return the paragraphs of a help text, each as its lines."""
    lines = [line.rstrip() for line in (text or "").replace(_MARK, "").splitlines()]
    margin = min(
        (len(line) - len(line.lstrip()) for line in lines[1:] if line), default=0
    )
    paragraphs: list[list[str]] = [[]]
    for line in [line[margin:] if line[:margin].isspace() else line for line in lines]:
        if line:
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [each for each in paragraphs if each]


def _text(text: str | None) -> Iterator[nodes.Node]:
    """Yield the paragraphs of a help text; indented lines stay as they are."""
    for lines in _paragraphs(text):
        at = next((n for n, line in enumerate(lines) if line[:1].isspace()), len(lines))
        if lines[:at]:
            yield nodes.paragraph("", " ".join(lines[:at]))
        if lines[at:]:
            yield nodes.literal_block(
                "", "\n".join(line.strip() for line in lines[at:])
            )


def main(arguments: list[str]) -> int:
    """Write the pages into a folder, and delete those that are no longer written."""
    (folder,) = map(Path, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    texts = pages()
    for old in folder.glob("*.1"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
