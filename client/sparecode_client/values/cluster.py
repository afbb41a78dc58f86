# SPDX-License-Identifier: Apache-2.0
"""The cluster and its members, as one node sees them."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from sparecode_client.values.audit import RemovedEvents


class MemberRole(enum.StrEnum):
    """Current role of a member."""

    PRIMARY = "primary"
    REPLICA = "replica"
    LEARNER = "learner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the cluster, as the called node sees it."""

    node_id: str
    reachable: bool
    role: MemberRole | None
    """None: unknown, as of a voter that cannot be reached."""
    term: int
    commit_index: int
    applied_index: int
    lag: int
    digest: str
    version: str
    clock_offset: timedelta | None
    audit_sequence: int = 0
    """Number of events in its audit log."""
    audit_head: str = ""
    """Hash of the last event. Members with equally many events have the same hash (U1)."""
    feature_level: int = 0
    """The newest level that its software supports; 0: unknown."""
    recovery_bundle: str = ""
    """Whether a bundle has its keys: not_here, missing, outdated, current."""
    members_authorities: tuple[str, ...] = ()
    """
    Fingerprints of the members' authorities that it trusts; empty: unknown.

    A fingerprint is the SHA-256 of the public key, in hexadecimal digits.
    """
    agents_authorities: tuple[str, ...] = ()
    """Those of the agents' authorities."""
    shown_authorities: tuple[str, ...] = ()
    """Those of the members' authorities that signed the certificates it shows."""
    missing_segments: str = ""
    """Numbers of the sealed segments of the audit log that it has not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReset:
    """A reset of an administrator that root on a node has requested."""

    administrator: str
    node_id: str
    """The node on whose machine it was requested."""
    uid: int
    """User id of the process that requested it."""
    second_factor: bool
    """Whether it also removes the second factor."""
    request_time: datetime | None
    due_time: datetime | None
    """When it takes effect, unless a super administrator signs in or cancels it."""
    enables: bool = False
    """Whether the administrator is disabled, and the reset enables them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueAuthority:
    """An authority that is to be replaced: a removed member has had its key."""

    authority: str
    """Whose certificates it signs: members, agents."""
    fingerprint: str
    """SHA-256 of its public key, in hexadecimal digits."""
    node_id: str
    """The removed member."""
    since_time: datetime | None
    """When the member was removed."""
    cause: str
    """Why it is due: policy, request."""
    started: bool = False
    """Whether a member that has its key is to make its successor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySuccessor:
    """An authority that takes the place of one that is to be replaced."""

    authority: str
    """Whose certificates it signs: members, agents."""
    replaces: str
    """Fingerprint of the replaced authority."""
    fingerprint: str
    """SHA-256 of its public key, in hexadecimal digits."""
    node_id: str
    """The member that has made it, and has its key."""
    since_time: datetime | None
    """When it was announced."""
    certificate: str
    """PEM."""
    sole: bool = False
    """Whether the replaced authority is trusted no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditArchive:
    """Who has an archive of the audit log, and where."""

    archiver: str
    """`node:ID`, or `administrator:NAME` for a copy that an administrator confirmed."""
    place: str
    segments: str
    """Numbers of the segments in it, without removed ones."""
    confirm_time: datetime | None
    """None: nothing was confirmed yet."""
    counts: bool
    """Whether it counts now: not if its node has said nothing of it for seven days."""
    late_segments: str = ""
    """Numbers of the segments that a node's archive should have, and has not."""
    problem: str = ""
    """Why the node can write or read a segment there no longer, as it says now."""
    folder: str = ""
    """The id of a node's folder: archives with the same one count as one copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRetention:
    """The archives of the audit log, and what its retention removes."""

    archives: tuple[AuditArchive, ...]
    unarchived_segments: str
    """
    Numbers of the segments that fewer archives have than the policy wants.

    Empty without a retention.
    """
    archives_wanted: int
    removed_segments: str
    removed: RemovedEvents | None
    """What retention has removed; None: nothing."""
    retention: timedelta | None
    """After this time, archived events are removed; None: never."""
    removal_begin_time: datetime | None
    """A policy that keeps less has no effect before this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """The cluster, as the called node sees it."""

    node_id: str
    cluster_id: str
    primary: str
    """Empty: no primary is known."""
    quorum: bool
    members: tuple[Member, ...]
    feature_level: int = 0
    """The level in use. Features of a newer release wait until it is raised."""
    last_backup_time: datetime | None = None
    """When the last complete backup was taken; None: never."""
    last_backup_index: int = 0
    """Index of the last log entry in that backup."""
    pending_resets: tuple[PendingReset, ...] = ()
    """Requested resets of administrators that are not in force yet."""
    rotation_due: str = ""
    """The removed member because of which another key is due; empty: none."""
    sealed_segments: int = 0
    """Number of sealed segments of the audit log."""
    lost_segments: str = ""
    """Numbers of those that were declared lost."""
    found_segments: str = ""
    """Numbers of lost ones that a member has after all: the others fetch them."""
    audit_retention: AuditRetention | None = None
    """The archives of the audit log, and its retention; None: the node is older."""
    due_authorities: tuple[DueAuthority, ...] = ()
    """The authorities that are to be replaced."""
    successors: tuple[AuthoritySuccessor, ...] = ()
    """Those that members have announced; each member judges them by itself."""
    voters: int = 0
    """Number of members that count for a quorum."""
    reachable_voters: int = 0
    """Number of those that answered the called node."""
    survivable_losses: int = 0
    """How many of those can be lost while the others are still a quorum."""
