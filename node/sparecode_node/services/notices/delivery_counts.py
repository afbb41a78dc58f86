# SPDX-License-Identifier: Apache-2.0
"""Attempts to deliver notices, by channel and outcome, since the start of this node."""

import collections
import threading
from collections.abc import Mapping

from sparecode_node.domain.ids import NameKey

DELIVERED, FAILED = "delivered", "failed"
OUTCOMES = (DELIVERED, FAILED)


class DeliveryCounts:
    """Counts attempts. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: collections.Counter[tuple[str, str]] = collections.Counter()

    def count(self, channel: NameKey, *, delivered: bool, number: int = 1) -> None:
        """Count attempts of a channel."""
        with self._lock:
            self._attempts[channel, DELIVERED if delivered else FAILED] += number

    def attempts(self) -> Mapping[tuple[str, str], int]:
        """Return the number of attempts by channel and outcome."""
        with self._lock:
            return dict(self._attempts)
