# SPDX-License-Identifier: Apache-2.0
"""Users: the people who authenticate."""

from dataclasses import dataclass

from sparecode_client.values.results import ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who authenticates."""

    username: str
    display_name: str
    email: str
    enabled: bool
    token_serials: tuple[str, ...]
    token_failures: int
    emergency_failures: int
    locked: bool
    groups: tuple[str, ...] = ()
    """That the user is in, as they are compared."""
    position: ReadPosition | None = None
    """Of the answer; in a list the page has it."""
