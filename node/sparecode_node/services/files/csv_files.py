# SPDX-License-Identifier: Apache-2.0
"""
CSV files from administrators: the first line names the columns, the others are rows.

An unknown column is refused, not skipped: it may be a misspelled one. Spreadsheets put
an apostrophe before a cell that must stay text; it is removed.
"""

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import bounds

Cells = Mapping[str, str]
"""A row's cells by column, without surrounding spaces. Missing cells are empty."""


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row: its cells, or what is wrong with it."""

    cells: Cells
    problem: str = ""


def read_csv(
    content: bytes,
    *,
    needed: Collection[str],
    known: Collection[str],
    at_most: int,
) -> list[CsvRow]:
    """
    Return the rows, without blank ones. *known* are the optional columns.

    A file with no rows or more than *at_most* is refused, and its rows are not kept.

    Raises `InvalidFieldError` on `content`; the message names the line.
    """
    bounds.file_size(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidFieldError("content", "not text in UTF-8") from None
    if "\0" in text:
        raise InvalidFieldError("content", "not text: it contains a zero byte")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[CsvRow] = []
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        _check(columns, needed, known)
        count = 0
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            count += 1
            if count <= at_most:
                rows.append(_row(columns, cells))
    except csv.Error as error:
        raise InvalidFieldError("content", f"line {reader.line_num}: {error}") from None
    bounds.file_rows(count, "rows", "the file holds no row", at_most=at_most)
    return rows


def _check(columns: list[str], needed: Collection[str], known: Collection[str]) -> None:
    """Refuse a first line that does not name the right columns."""
    allowed = [*needed, *known]
    says = f"the first line names columns: {', '.join(allowed)}"
    for name in columns:
        if name not in allowed:
            raise InvalidFieldError(
                "content", f"column {name[:64]!r} is not known; {says}"
            )
        if columns.count(name) > 1:
            raise InvalidFieldError("content", f"column {name} appears twice")
    for name in needed:
        if name not in columns:
            raise InvalidFieldError("content", f"no column {name}; {says}")


def _row(columns: list[str], cells: list[str]) -> CsvRow:
    named = {
        name: cell.strip().removeprefix("'")
        for name, cell in zip(columns, cells, strict=False)
    }
    missing = {name: "" for name in columns if name not in named}
    problem = ""
    if len(cells) > len(columns):
        problem = f"it has {len(cells)} cells; there are {len(columns)} columns"
    return CsvRow(cells=named | missing, problem=problem)
