# SPDX-License-Identifier: Apache-2.0
"""The clock that replication and services take as an argument."""

from typing import Protocol


class Clock(Protocol):
    """Tells the time. The domain never reads it: it takes the time of the command."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never jumps, for deadlines."""
