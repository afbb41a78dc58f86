# SPDX-License-Identifier: Apache-2.0
"""Imports: formats of token files, and the result of each row."""

import enum
from dataclasses import dataclass

_BEGINNING_BYTES = 4096


class TokenFileFormat(enum.StrEnum):
    """Format of a token file."""

    PSKC = "pskc"
    """Portable Symmetric Key Container (RFC 6030)."""
    SDTID = "sdtid"
    """SecurID."""
    CSV = "csv"
    """Comma-separated values with seeds in clear; see `TokenFileFormat` in the protos."""


def token_file_format(content: bytes) -> TokenFileFormat:
    """Return the format that a file appears to have. The node validates the content."""
    beginning = content[:_BEGINNING_BYTES]
    if b"<" not in beginning[:8]:  # Allows for a byte order mark of UTF-8 or UTF-16.
        return TokenFileFormat.CSV
    if b"TKNBatch" in beginning.replace(b"\0", b""):
        return TokenFileFormat.SDTID
    return TokenFileFormat.PSKC


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedToken:
    """Result of one row of a token file."""

    row: int
    serial: str
    imported: bool
    problem: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedUser:
    """Result of one row of a user file."""

    row: int
    username: str
    imported: bool
    problem: str
    reason: str
