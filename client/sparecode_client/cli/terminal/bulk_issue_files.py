# SPDX-License-Identifier: Apache-2.0
"""
The two files of a bulk issue: the list of tokens, and their codes.

The codes file has one code per line, and only its owner can read it. All codes of a
token are written and synced before the next token. So after an interruption, the file
shows which tokens are done.
"""

import csv
import io
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.output import escape_formula
from sparecode_client.cli.terminal.words import show_code, show_timestamp
from sparecode_client.values.bulk_issue import BulkIssueResult, BulkIssueRow

COLUMNS = ("serial", "username", "ordinal", "of", "code", "end_time")
OTHERS = stat.S_IRWXG | stat.S_IRWXO
ROWS_MAX = 100_000
COUNT_DIGITS_MAX = 9
SHOWN_MAX = 20
"""Length to which a wrong number is cut in an error message."""


def read_rows(path: Path) -> list[BulkIssueRow]:
    """Return the tokens in a file. Raise `UsageError` with the line of a mistake."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[BulkIssueRow] = []
    try:
        names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        if names.count("serial") != 1:
            raise UsageError(f"{path}: the first line must have a column named serial")
        reader.fieldnames = names
        for record in reader:
            row = _row(f"{path}, line {reader.line_num}", record)
            if row is not None:
                rows.append(row)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
    if not 1 <= len(rows) <= ROWS_MAX:
        raise UsageError(f"{path} has {len(rows)} tokens; it must have 1 to {ROWS_MAX}")
    [(serial, times)] = Counter(row.serial for row in rows).most_common(1)
    if times > 1:
        raise UsageError(f"{path}: token {serial} occurs {times} times")
    return rows


def _row(where: str, record: dict[str, str | None]) -> BulkIssueRow | None:
    """Return the token in a line; None if the line is blank."""
    serial = (record["serial"] or "").strip().removeprefix("'")
    count = (record.get("count") or "").strip()
    if not serial:
        if any(isinstance(cell, str) and cell.strip() for cell in record.values()):
            raise UsageError(f"{where}: no serial")
        return None
    if count and not (
        count.isascii() and count.isdigit() and len(count) <= COUNT_DIGITS_MAX
    ):
        raise UsageError(
            f"{where}: count must be a number of codes, not {count[:SHOWN_MAX]}"
        )
    return BulkIssueRow(serial=serial, count=int(count) if count else None)


class CodesFile:
    """A file of codes, written token by token."""

    def __init__(self, file: IO[str], complete: frozenset[str]) -> None:
        self._file = file
        self.complete = complete
        """Tokens whose codes are in the file from an earlier run."""
        self.written = False

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, resume: bool) -> Iterator[Self]:
        """Open a new file, or with *resume* an existing one. Raise `UsageError` on failure."""
        flags = os.O_RDWR if resume else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
            with os.fdopen(
                descriptor, "r+" if resume else "w", encoding="utf-8", newline=""
            ) as file:
                if resume:
                    complete = _resume(path, file)
                else:
                    complete = frozenset()
                    _append(file, [COLUMNS])
                output = cls(file, complete)
                try:
                    yield output
                except BaseException:
                    if not resume and not output.written:
                        path.unlink()
                    raise
        except FileExistsError as error:
            raise UsageError(
                f"{path} exists already: name another file with --codes, or add --resume"
            ) from error
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error

    def write(self, result: BulkIssueResult) -> None:
        """Add the codes of one token and sync the file."""
        if result.saved is None:
            return
        end = result.saved.end_time
        self.written = True
        _append(
            self._file,
            [
                (
                    escape_formula(result.serial),
                    escape_formula(result.username),
                    str(code.ordinal),
                    str(len(result.codes)),
                    show_code(code.code),
                    "" if end is None else show_timestamp(end),
                )
                for code in result.codes
            ],
        )


def _append(file: IO[str], rows: Sequence[Sequence[str]]) -> None:
    csv.writer(file).writerows(rows)
    file.flush()
    os.fsync(file.fileno())


def _resume(path: Path, file: IO[str]) -> frozenset[str]:
    """Return the tokens whose codes are complete; remove incomplete ones from the file."""
    if os.fstat(file.fileno()).st_mode & OTHERS:
        raise UsageError(f"{path} can be read by other users: chmod 600 {path}")
    lines = file.read().splitlines(keepends=True)
    if not lines or tuple(next(csv.reader(lines[:1]))) != COLUMNS:
        raise UsageError(f"{path} is not a codes file of an earlier run")
    complete_lines, complete = 1, set[str]()
    count = 0
    for number, line in enumerate(lines[1:], start=2):
        cells = next(csv.reader([line]), [])
        if len(cells) != len(COLUMNS) or not line.endswith("\n"):
            break
        serial, _, ordinal, of, *_ = cells
        count = 1 if ordinal == "1" else count + 1
        if ordinal == of == str(count):
            complete_lines = number
            complete.add(serial.removeprefix("'"))
    # An interrupted token gets new codes, and those in the file become void.
    os.ftruncate(file.fileno(), len("".join(lines[:complete_lines]).encode()))
    file.seek(0, os.SEEK_END)
    return frozenset(complete)
