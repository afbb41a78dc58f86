# SPDX-License-Identifier: Apache-2.0
"""Until when a caller waits, over all tries and steps of one call."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

DEFAULT_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the clock of the running event loop."""

    at_s: float

    @classmethod
    def after(cls, timeout: timedelta) -> Self:
        """Return the moment that is *timeout* from now."""
        return cls(asyncio.get_running_loop().time() + timeout.total_seconds())

    def remaining_s(self) -> float:
        """Return the seconds that are left; not positive: none."""
        return self.at_s - asyncio.get_running_loop().time()

    def remaining(self) -> timedelta:
        """Return the time that is left, as the time-out of a step."""
        return timedelta(seconds=max(0.0, self.remaining_s()))
