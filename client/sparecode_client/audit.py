# SPDX-License-Identifier: Apache-2.0
"""The audit log as values, and the chain that binds each event to all before it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One decision or change. It never holds a secret."""

    sequence: int
    """Counts events from 1, without a gap."""
    time: datetime | None
    actor: str
    """`administrator:NAME`, `agent:IDENTITY` or `node:ID`."""
    node_id: str
    """The node that was called."""
    action: str
    target: str
    outcome: str
    """`applied`, `accepted`, `refused` or `noted` (a consequence of another event)."""
    reason: str
    detail: str
    previous_hash: str
    """In hexadecimal digits."""
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which events are wanted: those for which everything that is given holds."""

    start_time: datetime | None = None
    end_time: datetime | None = None
    """Events before it."""
    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    reason: str = ""


EVERYTHING = AuditFilter()
