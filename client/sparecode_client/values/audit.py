# SPDX-License-Identifier: Apache-2.0
"""Audit events, filters, exports and checkpoints."""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sparecode_client.values.results import Page, ReadPosition

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One decision or change. It never contains a secret."""

    sequence: int
    """Position in the log: 1, 2, 3, ... without gaps."""
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
    authentication_id: str = ""
    """The ID that the agent got; empty: the event is not about a passcode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedEvents:
    """Events that retention has removed from the beginning of the audit log."""

    last_sequence: int
    """The log begins with the event after it."""
    last_time: datetime | None
    """The time of the last of them."""
    remove_time: datetime | None
    """When retention removed the last of them."""
    archives: str
    """Who had the newest of them in an archive, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Selects the events that match every field that is set."""

    start_time: datetime | None = None
    end_time: datetime | None = None
    """Selects events before this time."""
    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    reason: str = ""
    authentication_id: str = ""


EVERYTHING = AuditFilter()


class AuditExportFormat(enum.StrEnum):
    """File format of an export."""

    JSON_LINES = "json_lines"
    """Can be verified without a node."""
    CSV = "csv"
    """For spreadsheets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExport:
    """Result of an export."""

    events: int
    last_sequence: int
    """0: no event was exported."""
    removed: RemovedEvents | None = None
    """What retention has removed, if the export reaches back to it; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage(Page[AuditEvent]):
    """
    A page of events.

    A node looks at a bounded number of events in one call. So a page may have fewer
    events than requested, even none: only an empty `next_page_token` ends the search.
    """

    removed: RemovedEvents | None = None
    """What retention has removed, if the page reaches back to it; None: nothing."""
    searched_to_sequence: int = 0
    """The last event that was looked at; 0: the last page, or a node of release 0.1."""
    searched_to_time: datetime | None = None
    """The time of that event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of the audit log at one moment, signed by the cluster."""

    cluster_id: str
    sequence: int
    """Number of the last event."""
    head: bytes
    """Hash of the last event. It covers all earlier events, because hashes are chained."""
    at_ms: int
    """The cluster's time, in milliseconds since the Unix epoch."""
    key_id: int
    public_key: bytes
    """Compare it with the key that the operator holds before you trust it."""
    signature: bytes

    @property
    def time(self) -> datetime:
        """The cluster's time."""
        return EPOCH + timedelta(milliseconds=self.at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """Result of a node that recomputed the hashes of its audit log."""

    verified_sequence: int
    head: str
    """In hexadecimal digits."""
    broken_sequence: int
    """The first event whose hash is wrong; 0: every hash is right."""
    problem: str
    position: ReadPosition
