# SPDX-License-Identifier: Apache-2.0
"""What became of one attempt to deliver a notice."""

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What became of one attempt."""

    DELIVERED = enum.auto()
    UNREACHABLE = enum.auto()
    """The receiver is down or too busy: other notices would fail, too."""
    REFUSED = enum.auto()
    """The receiver answered, and did not take this notice."""
    GONE = enum.auto()
    """The receiver wants no more notices."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, and in words why it failed."""

    outcome: Outcome
    cause: str
