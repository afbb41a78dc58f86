# SPDX-License-Identifier: Apache-2.0
"""
Events that retention has removed, as a later event of the log records it (U4).

The detail of that event has the number of the last removed event, and its hash. So a
log that begins after it says itself what is gone, and in how many archives it is.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sparecode_client.values.audit import EPOCH

ACTION = "RemoveSegments"
_LATEST_MS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
_DETAIL = re.compile(
    r"([0-9]{1,18}) segments?, events 1 to ([0-9]{1,18}), hash before 0{64}, "
    r"hash after ([0-9a-f]{64}): the last [0-9]{1,18} are in at least "
    r"([0-9]{1,9}) archives?: (.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedLog:
    """The beginning of a log, which retention has removed from the nodes."""

    segments: int
    """Segments 1 to this one."""
    last: int
    """Events 1 to this one."""
    removed_by: int
    """Number of the event that says so."""
    at_ms: int
    """Its time, in milliseconds since the Unix epoch."""
    copies: int
    """How many archives had each of the newest ones, at least; 0: they were lost."""
    archives: str
    """Who had the newest of them, and where."""

    @property
    def time(self) -> datetime:
        """When they were removed, by the cluster's time."""
        return EPOCH + timedelta(milliseconds=self.at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What an event of the log says to be removed."""

    log: RemovedLog
    hash_after: bytes
    """Of the last removed event."""


def removal(
    sequence: int, *, at_ms: int, action: str, outcome: str, detail: str
) -> Removal | None:
    """Return what an event says to be removed; None if it says nothing of this."""
    if action != ACTION or outcome != "applied":
        return None
    if (parts := _DETAIL.fullmatch(detail)) is None:
        return None
    segments, last, after, copies, archives = parts.groups()
    if int(last) >= sequence or not 0 <= at_ms <= _LATEST_MS:
        return None  # Nothing has verified the event yet: it may say anything.
    return Removal(
        log=RemovedLog(
            segments=int(segments),
            last=int(last),
            removed_by=sequence,
            at_ms=at_ms,
            copies=int(copies),
            archives=archives,
        ),
        hash_after=bytes.fromhex(after),
    )
