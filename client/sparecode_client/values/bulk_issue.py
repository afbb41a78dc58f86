# SPDX-License-Identifier: Apache-2.0
"""Bulk issue: the tokens to issue codes for, and the result for each."""

from dataclasses import dataclass

from sparecode_client.values.emergency_access import SavedTokencodes, Tokencode


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkIssueRow:
    """One token to issue codes for."""

    serial: str
    count: int | None = None
    """Number of codes; None: the number for the whole bulk issue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkIssueResult:
    """Result of one row. Its codes cannot be shown again."""

    row: int
    """Number of the row, from 1."""
    serial: str
    username: str
    saved: SavedTokencodes | None
    """None: refused."""
    codes: tuple[Tokencode, ...]
    reason: str = ""
    """Why the row was refused, such as `TOKEN_EXPIRED`."""
    problem: str = ""
    """The same in words."""
