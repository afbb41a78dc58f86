# SPDX-License-Identifier: Apache-2.0
"""Users."""

from dataclasses import dataclass

from sparecode_client.values.results import ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who signs in with tokens."""

    username: str
    display_name: str
    email: str
    enabled: bool
    token_serials: tuple[str, ...]
    token_failures: int
    emergency_failures: int
    locked: bool
    groups: tuple[str, ...] = ()
    """Groups of the user, in the form used for comparison."""
    position: ReadPosition | None = None
    """None in a list: see the position of the page."""
