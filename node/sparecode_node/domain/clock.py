# SPDX-License-Identifier: Apache-2.0
"""The clock that replication, services and what uses them get as an argument."""

from typing import Protocol


class Clock(Protocol):
    """Tells the time. The domain itself never asks: its time is in the commands."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never steps, for deadlines."""
