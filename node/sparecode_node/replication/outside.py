# SPDX-License-Identifier: Apache-2.0
"""What replication takes from the world outside the log."""

from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""


class Entropy(Protocol):
    """Draws unpredictable values."""

    def token_bytes(self, size: int) -> bytes:
        """Return *size* random bytes."""
