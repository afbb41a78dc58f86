# SPDX-License-Identifier: Apache-2.0
"""
Token files in CSV, for tokens whose seeds came on paper or from another system.

Seeds are in clear: the file is as secret as the tokens.
"""

import base64
import binascii
import enum
from datetime import datetime
from typing import TypeVar

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.services.files.csv_files import Cells, CsvRow, read_csv
from sparecode_node.services.files.token_files import (
    ROWS_MAX,
    FileRow,
    FileToken,
    RowError,
    TokenFile,
    broken_row,
    date_ms,
    row_of,
)

NEEDED = ("serial", "seed")
KNOWN = (
    "seed_format",
    "algorithm",
    "hash",
    "digits",
    "period",
    "counter",
    "pin_rule",
    "expires",
)
PERIODS_S = {Algorithm.TOTP: 30, Algorithm.SECURID: 60, Algorithm.HOTP: 0}
"""The defaults, if the file has no period."""
NUMBER_DIGITS_MAX = 18

E = TypeVar("E", bound=enum.StrEnum)


def read_token_csv(file: TokenFile, *, now_ms: int) -> list[FileRow]:
    """
    Return every row of the file, in its order.

    Raises `InvalidFieldError` if the file as a whole cannot be read.
    """
    del now_ms  # This format has no start dates.
    rows = read_csv(file.content, needed=NEEDED, known=KNOWN, at_most=ROWS_MAX)
    return [
        _row(number, row, file.default_pin_rule)
        for number, row in enumerate(rows, start=1)
    ]


def _row(number: int, row: CsvRow, default_pin_rule: PinRule | None) -> FileRow:
    serial = row.cells["serial"]
    if row.problem:
        return broken_row(number, serial, row.problem)
    try:
        return row_of(number, _token(row.cells, default_pin_rule))
    except RowError as error:
        return broken_row(number, serial, str(error))


def _token(cells: Cells, default_pin_rule: PinRule | None) -> FileToken:
    """Return the token of a row. Raises `RowError`."""
    if not cells["serial"]:
        raise RowError("no serial")
    algorithm = _one_of(Algorithm, cells, "algorithm", Algorithm.TOTP)
    return FileToken(
        serial=cells["serial"],
        algorithm=algorithm,
        hash_name=_one_of(HashName, cells, "hash", HashName.SHA1),
        digits=_number(cells, "digits", 6),
        period_s=_number(cells, "period", PERIODS_S[algorithm]),
        counter=_number(cells, "counter", 0),
        seed=_seed(cells),
        pin_rule=_pin_rule(cells, default_pin_rule),
        expires_at_ms=_end(cells),
    )


def _one_of(kind: type[E], cells: Cells, name: str, default: E) -> E:
    """Return the value of an enumeration, in upper or lower case."""
    text = cells.get(name, "").lower()
    if not text:
        return default
    try:
        return kind(text)
    except ValueError:
        allowed = ", ".join(kind)
        raise RowError(f"{name} must be one of {allowed}") from None


def _number(cells: Cells, name: str, default: int) -> int:
    text = cells.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise RowError(f"{name} must be a number")
    return int(text)


def _seed(cells: Cells) -> bytes:
    """Return the seed, with or without groups. The message does not repeat it."""
    text = "".join(cells["seed"].split()).replace("-", "").upper()
    form = cells.get("seed_format", "").lower() or "base32"
    try:
        match form:
            case "hex":
                return bytes.fromhex(text)
            case "base32":
                text = text.rstrip("=")
                return base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise RowError(f"seed is not {form}") from None
    raise RowError("seed_format must be base32 or hex")


def _pin_rule(cells: Cells, default: PinRule | None) -> PinRule:
    if cells.get("pin_rule"):
        return _one_of(PinRule, cells, "pin_rule", PinRule.NONE)
    if default is None:
        raise RowError("no pin_rule, and no default PIN rule is set")
    return default


def _end(cells: Cells) -> int | None:
    text = cells.get("expires", "")
    if not text:
        return None
    try:
        return date_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise RowError(
            "expires must be a date or time, as 2031-12-31 or 2031-12-31T12:00:00Z"
        ) from None
