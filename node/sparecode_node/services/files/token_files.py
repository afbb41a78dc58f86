# SPDX-License-Identifier: Apache-2.0
"""
The rows of a token file of any format: each is a token or a problem.

A problem of the whole file raises `InvalidFieldError`, and nothing is changed. A problem
of a row concerns that row alone (K4).
"""

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName

ROWS_MAX = 1000
NUMBER_MAX = 2**63 - 1
SHOWN_MAX = 256
"""The most characters of a file's text that an answer repeats."""


class TokenFileFormat(enum.StrEnum):
    """The format of a token file."""

    PSKC = "pskc"
    SDTID = "sdtid"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """An uploaded token file, and how to read it."""

    format: TokenFileFormat
    content: bytes = field(repr=False)
    password: str = field(default="", repr=False)
    """The password of an encrypted file, or"""
    key: bytes = field(default=b"", repr=False)
    """its pre-shared key (PSKC)."""
    default_pin_rule: PinRule | None = None
    """For tokens without a PIN rule in the file. None: such rows are refused."""
    from_row: int = 0
    """Rows before it are skipped: a retry starts where the import stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToken:
    """A token as the file describes it. Its values are not checked yet."""

    serial: str
    algorithm: Algorithm
    hash_name: HashName
    digits: int
    period_s: int
    counter: int
    seed: bytes = field(repr=False)
    pin_rule: PinRule
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One row of the file: a token, or what is wrong with it."""

    row: int
    serial: str
    token: FileToken | None = None
    problem: str = ""


class RowError(Exception):
    """This row cannot be imported. The message never quotes a secret."""


def row_of(number: int, token: FileToken) -> FileRow:
    """Return the row of a token. Raises `RowError`."""
    if max(token.digits, token.period_s, token.counter) > NUMBER_MAX:
        raise RowError("a number is too large")
    return FileRow(row=number, serial=token.serial[:SHOWN_MAX], token=token)


def broken_row(number: int, serial: str, problem: str) -> FileRow:
    """Return the row of something that is not a token."""
    return FileRow(row=number, serial=serial[:SHOWN_MAX], problem=problem[:SHOWN_MAX])


def date_ms(date: datetime) -> int:
    """Return a date in ms since the epoch; without a zone it is UTC."""
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return int(date.timestamp() * 1000)
