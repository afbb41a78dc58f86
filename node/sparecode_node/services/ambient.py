# SPDX-License-Identifier: Apache-2.0
"""
The only source of nondeterminism: the clock and the operating system's entropy.

Everything else gets time and randomness as an argument, so that a test or another
replica can repeat a decision.
"""

import secrets
import time
import uuid
from collections.abc import Sequence
from typing import Protocol

from sparecode_node.domain.clock import Clock

__all__ = ["Clock", "Entropy", "SystemClock", "SystemEntropy", "monotonic_ms"]


_VERSION_7 = 7 << 76 | 2 << 62
_FREE_BITS = ~(15 << 76 | 3 << 62)
"""All bits of a UUID but those of its version and variant."""


class Entropy(Protocol):
    """Draws unpredictable values."""

    def token_bytes(self, size: int) -> bytes:
        """Return *size* random bytes."""

    def uuid(self) -> str:
        """Return a random UUID (RFC 9562, version 4)."""

    def uuid_at(self, at_ms: int) -> str:
        """Return a UUID that sorts by its time and is random otherwise (version 7)."""

    def choices(self, symbols: Sequence[str], count: int) -> str:
        """Return *count* symbols, each drawn without bias and independently."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()


def monotonic_ms() -> int:
    """Return milliseconds of the machine's monotonic clock, which never jumps."""
    return time.monotonic_ns() // 1_000_000


class SystemEntropy:
    """The operating system's random source."""

    def token_bytes(self, size: int) -> bytes:
        """Return *size* random bytes."""
        return secrets.token_bytes(size)

    def uuid(self) -> str:
        """Return a random UUID."""
        return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))

    def uuid_at(self, at_ms: int) -> str:
        """Return a UUID with a time in front (RFC 9562, 5.7)."""
        number = int.from_bytes(at_ms.to_bytes(6) + secrets.token_bytes(10))
        return str(uuid.UUID(int=number & _FREE_BITS | _VERSION_7))

    def choices(self, symbols: Sequence[str], count: int) -> str:
        """Return *count* symbols; `secrets.choice` draws by rejection, without bias."""
        return "".join(secrets.choice(symbols) for _ in range(count))
