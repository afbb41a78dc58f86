# SPDX-License-Identifier: Apache-2.0
"""Codes for many tokens at once: what is asked for, and what became of each."""

from dataclasses import dataclass

from sparecode_client.values.emergency_access import SavedTokencodes, Tokencode


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkIssueRow:
    """One token that is to get codes."""

    serial: str
    count: int | None = None
    """None: as many as the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkIssueResult:
    """What became of one row. Nobody can read its codes again."""

    row: int
    """Its position, from 1."""
    serial: str
    username: str
    saved: SavedTokencodes | None
    """None: refused."""
    codes: tuple[Tokencode, ...]
    reason: str = ""
    """Why it was refused, as `TOKEN_EXPIRED`."""
    problem: str = ""
    """The same in words."""
