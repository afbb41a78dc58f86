# SPDX-License-Identifier: Apache-2.0
"""The audit log as values."""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sparecode_client.values.results import ReadPosition

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


class AuditExportFormat(enum.StrEnum):
    """What an export looks like."""

    JSON_LINES = "json_lines"
    """It can be verified without a node."""
    CSV = "csv"
    """For spreadsheets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExport:
    """What was exported."""

    events: int
    last_sequence: int
    """0: no event was exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the audit log was at a moment, signed by the cluster."""

    cluster_id: str
    sequence: int
    """So many events there were."""
    head: bytes
    """The hash of the last one, and so of all."""
    at_ms: int
    """The cluster's time, in milliseconds since the Unix epoch."""
    key_id: int
    public_key: bytes
    """Trust it only after comparing it with what the cluster's operator has."""
    signature: bytes

    @property
    def time(self) -> datetime:
        """The cluster's time."""
        return EPOCH + timedelta(milliseconds=self.at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """What a node found when it computed its chain anew."""

    verified_sequence: int
    head: str
    """In hexadecimal digits."""
    broken_sequence: int
    """0: nothing is broken."""
    problem: str
    position: ReadPosition
