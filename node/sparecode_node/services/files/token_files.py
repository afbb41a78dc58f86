# SPDX-License-Identifier: Apache-2.0
"""
What every kind of token file comes down to: rows, each a token or a problem.

What is wrong with the file as a whole is `InvalidFieldError`, and nothing is
changed; what is wrong with a row concerns that row alone (K4).
"""

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName

ROWS_MAX = 1000
SHOWN_MAX = 256
"""So many characters of what a file says are repeated in an answer."""


class TokenFileFormat(enum.StrEnum):
    """The form of a token file."""

    PSKC = "pskc"
    SDTID = "sdtid"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """A token file as it was uploaded, and what is said of it."""

    format: TokenFileFormat
    content: bytes = field(repr=False)
    password: str = field(default="", repr=False)
    """Of an encrypted file; or"""
    key: bytes = field(default=b"", repr=False)
    """its pre-shared key (PSKC)."""
    default_pin_rule: PinRule | None = None
    """Of tokens whose file does not say; None: such a row is refused."""
    from_row: int = 0
    """Rows before it are not looked at: a retry says how far it got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToken:
    """A token as the file describes it; its values are still to be checked."""

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
    """Return the row of a token."""
    return FileRow(row=number, serial=token.serial[:SHOWN_MAX], token=token)


def broken_row(number: int, serial: str, problem: str) -> FileRow:
    """Return the row of what is no token."""
    return FileRow(row=number, serial=serial[:SHOWN_MAX], problem=problem[:SHOWN_MAX])


def date_ms(date: datetime) -> int:
    """Return the time since the epoch; a date without a zone is taken as UTC."""
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return int(date.timestamp() * 1000)
