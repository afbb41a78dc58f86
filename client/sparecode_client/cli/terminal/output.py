# SPDX-License-Identifier: Apache-2.0
"""
Output of commands: text and tables for people; JSON, YAML or CSV for programs.

JSON has stable snake_case keys and RFC 3339 times; a missing value is null. It contains
no secrets except issued codes and join tickets. YAML has the same values.

CSV has the items of a list, one a row, or else the whole value in one row. A value in a
value has a column of its own, such as `position.node_id`. A list in a cell is its items
with `;` between them, and a backslash before a `;` or a backslash in an item. Items that
are values themselves are JSON there.
"""

import csv
import dataclasses
import enum
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sparecode_client.cli.terminal.words import plain, show_timestamp, wrap
from sparecode_client.values.results import Commit, ReadPosition


class OutputFormat(enum.StrEnum):
    """The output format of a command."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


class Output:
    """Writes the output of one command in the requested format."""

    def __init__(self, form: OutputFormat) -> None:
        self.form = form
        self._has_header = False
        self._console = Console(
            file=sys.stdout, highlight=False, markup=False, emoji=False
        )

    @property
    def is_json(self) -> bool:
        """Whether programs read the output: as JSON, or the same value in another form."""
        return self.form is not OutputFormat.TABLE

    def json(self, value: object, items: str = "") -> None:
        """
        Write *value* for programs.

        *items* is the key of its list, whose items are the rows of CSV.
        """
        match self.form:
            case OutputFormat.YAML:
                sys.stdout.write(_yaml(value))
            case OutputFormat.CSV:
                self._csv(value, items)
            case _:
                sys.stdout.write(json.dumps(to_json(value), indent=2) + "\n")

    def line(self, value: object, items: str = "") -> None:
        """Write *value* as one of several: a line of JSON, a document of YAML, or rows."""
        match self.form:
            case OutputFormat.YAML:
                sys.stdout.write(f"---\n{_yaml(value)}")
            case OutputFormat.CSV:
                self._csv(value, items)
            case _:
                sys.stdout.write(json.dumps(to_json(value)) + "\n")
        sys.stdout.flush()

    def _csv(self, value: object, items: str) -> None:
        """Write the rows of a value; the first line has the names of the columns."""
        content = to_json(value)
        rows = [_cells(row) for row in (content[items] if items else [content])]
        if not rows:
            return
        columns = dict.fromkeys(column for row in rows for column in row)
        writer = csv.DictWriter(
            sys.stdout, columns, extrasaction="ignore", lineterminator="\n"
        )
        if not self._has_header:
            writer.writeheader()
        self._has_header = True
        writer.writerows(rows)

    def say(self, words: str = "", style: str = "") -> None:
        """
        Write a line for people; a terminal gets it wrapped at word boundaries.

        *style* is a color of Rich, such as `bold red`. Only terminals show it, and none
        with `NO_COLOR`.
        """
        line = wrap(plain(words), sys.stdout)
        if style and self._console.is_terminal:
            self._console.print(Text(line, style), soft_wrap=True)
        else:
            sys.stdout.write(f"{line}\n")

    def note(self, words: str) -> None:
        """Write a line for people on stderr, apart from the output of the command."""
        sys.stderr.write(f"{wrap(plain(words), sys.stderr)}\n")

    def announce(self, value: object) -> None:
        """Write *value* for programs on stderr, as a line of JSON, before the output."""
        sys.stderr.write(json.dumps(to_json(value)) + "\n")
        sys.stderr.flush()

    def done(self, words: str, commit: Commit, **facts: object) -> None:
        """Report that a change was committed, and where."""
        if self.is_json:
            self.json({**facts, "node_id": commit.node_id, "index": commit.index})
        else:
            self.say(f"{words} (node {commit.node_id}, log index {commit.index}).")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """
        Write a table for people. A wide cell continues on the next line.

        The cells of a column whose name begins with `>` are right-aligned.
        """
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            right = column.startswith(">")
            table.add_column(
                column.removeprefix(">"),
                justify="right" if right else "left",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        with self._console.capture() as captured:
            self._console.print(table)
        for line in captured.get().splitlines():
            sys.stdout.write(f"{line.rstrip()}\n")

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Write pairs of name and value, one per line."""
        pairs = list(facts)
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self.say(f"{name:<{width}}  {value}".rstrip())

    def position(self, position: ReadPosition | None) -> None:
        """Note on stderr if the output may miss recent changes."""
        if position is not None and position.stale:
            self.note(
                f"Read at log index {position.applied_index} of node "
                f"{position.node_id}; later changes may be missing."
            )


FORMULA_BEGINNINGS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""First characters of a formula in a spreadsheet; the last four are full-width forms."""


def escape_formula(cell: str) -> str:
    """Return a cell that no spreadsheet executes. Names come from other people."""
    return f"'{cell}" if cell.lstrip(" ")[:1] in FORMULA_BEGINNINGS else cell


def _cells(row: object, name: str = "") -> dict[str, object]:
    """Return the cells of a row by their columns, such as `position.index`."""
    match row:
        case dict() if row or not name:
            return {
                column: cell
                for key, each in row.items()
                for column, cell in _cells(each, f"{name}.{key}".lstrip(".")).items()
            }
        case str():
            return {name: escape_formula(row)}
        case list():
            return {name: escape_formula(LIST_SEPARATOR.join(map(_item, row)))}
        case _:
            return {name: _plain_cell(row)}


LIST_SEPARATOR = ";"


def _item(item: object) -> str:
    """Return an item of a list in a cell, as `csv` would write it alone."""
    cell = _plain_cell(item)
    text = "" if cell is None else str(cell)
    return text.replace("\\", "\\\\").replace(LIST_SEPARATOR, "\\" + LIST_SEPARATOR)


def _plain_cell(value: object) -> object:
    """Return a value as one cell: `true`, JSON of a list or an object, or itself."""
    return json.dumps(value) if isinstance(value, bool | list | dict) else value


def _yaml(value: object) -> str:
    text: str = yaml.safe_dump(to_json(value), sort_keys=False, allow_unicode=False)
    return text


def to_json(value: object) -> Any:  # noqa: ANN401  JSON has no narrower type.
    """Return *value* in JSON types, without the fields that `repr` hides."""
    match value:
        case datetime():
            return show_timestamp(value)
        case timedelta():
            return value.total_seconds()
        case enum.Enum():
            return value.value
        case dict():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {
                field.name: to_json(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if field.repr
            }
        case _:
            return value
