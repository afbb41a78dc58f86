# SPDX-License-Identifier: Apache-2.0
"""Token files: the kinds of them, and how to tell them apart."""

import enum

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
