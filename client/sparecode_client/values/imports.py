# SPDX-License-Identifier: Apache-2.0
"""Files of tokens and users: the kinds of them, and what becomes of their rows."""

import enum
from dataclasses import dataclass

_BEGINNING_BYTES = 4096


class TokenFileFormat(enum.StrEnum):
    """The form of a token file."""

    PSKC = "pskc"
    """Portable Symmetric Key Container (RFC 6030)."""
    SDTID = "sdtid"
    """SecurID."""
    CSV = "csv"
    """Comma-separated values, seeds in clear; see `TokenFileFormat` of the contract."""


def token_file_format(content: bytes) -> TokenFileFormat:
    """Return what a file looks like; whether it is one, the node says."""
    beginning = content[:_BEGINNING_BYTES]
    if b"<" not in beginning[:8]:  # After a mark of UTF-8 or UTF-16, perhaps.
        return TokenFileFormat.CSV
    if b"TKNBatch" in beginning.replace(b"\0", b""):
        return TokenFileFormat.SDTID
    return TokenFileFormat.PSKC


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedToken:
    """What became of one row of a token file."""

    row: int
    serial: str
    imported: bool
    problem: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedUser:
    """What became of one row of a file of users."""

    row: int
    username: str
    imported: bool
    problem: str
    reason: str
