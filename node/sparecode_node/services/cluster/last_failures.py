# SPDX-License-Identifier: Apache-2.0
"""The order of what has failed last: it is tried after everything else (U1, U2)."""

import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class LastFailures(Generic[K]):
    """Members or segments whose last attempt has failed, by the order of these attempts."""

    def __init__(self) -> None:
        self._numbers: dict[K, int] = {}
        self._next = itertools.count(1)

    def add(self, key: K) -> None:
        """Record a failure."""
        self._numbers[key] = next(self._next)

    def forget(self, key: K) -> None:
        """Record a success."""
        self._numbers.pop(key, None)

    def last_of(self, key: K) -> int:
        """Return a number to sort by; 0: it has not failed since its last success."""
        return self._numbers.get(key, 0)
