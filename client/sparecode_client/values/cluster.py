# SPDX-License-Identifier: Apache-2.0
"""The cluster and its members, as one node sees them."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta


class MemberRole(enum.StrEnum):
    """What a member is now."""

    PRIMARY = "primary"
    REPLICA = "replica"
    LEARNER = "learner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the cluster, as the called node sees it."""

    node_id: str
    reachable: bool
    role: MemberRole | None
    term: int
    commit_index: int
    applied_index: int
    lag: int
    digest: str
    version: str
    clock_offset: timedelta | None
    audit_sequence: int = 0
    """Events in its audit log."""
    audit_head: str = ""
    """Hash of the last of them; equal wherever there are equally many (U1)."""
    feature_level: int = 0
    """The newest that its software knows; 0: it has not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """The cluster, as the called node sees it."""

    node_id: str
    cluster_id: str
    primary: str
    """Empty: none is known."""
    quorum: bool
    members: tuple[Member, ...]
    feature_level: int = 0
    """That all members know: what newer releases add waits until it is raised."""
    last_backup_time: datetime | None = None
    """Of the last backup that somebody has taken whole; None: there was none."""
    last_backup_index: int = 0
    """It has everything up to here."""
