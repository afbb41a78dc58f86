# SPDX-License-Identifier: Apache-2.0
"""Use cases: the cluster as the called node sees it, once or repeatedly."""

import asyncio
import enum
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import (
    ArchiveReport,
    AuthorityKind,
    Successor,
    fingerprints,
)
from sparecode_node.domain.segments import in_words, ranges_of
from sparecode_node.queries import (
    archives,
    authorities,
    cluster,
    membership,
    resets,
    seals,
    segment_holders,
)
from sparecode_node.queries.archives import NO_RETENTION, AuditRetention
from sparecode_node.queries.authorities import DueAuthority
from sparecode_node.queries.cluster import LastBackup
from sparecode_node.queries.resets import PendingReset
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.members import MemberRole
from sparecode_node.replication.replicator import MemberStatus, Replicator
from sparecode_node.services.access.authorization import Authorization
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.load.costly_reads import CostlyReads
from sparecode_node.statemachine.feature_level import FIRST
from sparecode_node.statemachine.tables.archives import archiver_of

WATCH_MS_DEFAULT, WATCH_MS_MIN, WATCH_MS_MAX = 1_000, 200, 60_000
"""Between two reports."""
_LOOK_S = 2.0
"""For one report: a member that does not answer must not delay the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One member's own view of itself, or the fact that it cannot be reached."""

    node_id: NodeId
    reachable: bool
    is_primary: bool
    term: int
    commit_index: int
    applied_index: int
    lag: int
    """How far its applied index lags behind the highest known commit index."""
    digest: str
    """The digest of its state at its applied index; empty if not requested."""
    version: str
    clock_offset_ms: int
    """Its clock minus the called node's, with the error of one round trip."""
    audit_sequence: int = 0
    """Events in its audit log."""
    audit_head: str = ""
    """Hash of the last event; equal on all members with as many events (U1)."""
    feature_level: int = 0
    """The newest level that its software knows."""
    recovery_bundle: str = ""
    """Whether a recovery bundle has its keys: not_here, missing, outdated, current."""
    members_authorities: tuple[str, ...] = ()
    """Fingerprints of the members' authorities that it trusts now; empty: unknown."""
    agents_authorities: tuple[str, ...] = ()
    shown_authorities: tuple[str, ...] = ()
    """Fingerprints of the members' authorities that signed what it shows."""
    missing_segments: str = ""
    """The sealed segments of the audit log that it has not stored, in words (U1)."""
    votes: bool = True
    """False: a learner, which receives everything and counts for no quorum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessorView:
    """An authority that a member has announced; each member judges its proof."""

    authority: str
    """An `AuthorityKind`."""
    replaces: str
    """Fingerprint of the authority that it replaces."""
    fingerprint: str
    node_id: NodeId
    """The member that has made it."""
    since_ms: int
    certificate: str
    """PEM."""
    sole: bool = False
    """Whether the replaced authority is trusted no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """Every member, in the order of node ids."""

    node_id: NodeId
    """The node that answered."""
    primary: NodeId | None
    quorum: bool
    """A quorum of members was reached."""
    members: tuple[MemberView, ...]
    cluster_id: str
    """Empty before the cluster is initialized."""
    feature_level: int = FIRST
    """The level that all members know; see statemachine/feature_level.py."""
    last_backup: LastBackup | None = None
    pending_resets: tuple[PendingReset, ...] = ()
    """Requested resets of administrators (P4)."""
    rotation_due: str = ""
    """The removed member because of which another key is due; empty: none (P6)."""
    due_authorities: tuple[DueAuthority, ...] = ()
    """The authorities that are to be replaced (P6a)."""
    successors: tuple[SuccessorView, ...] = ()
    """Those that members have announced; each member judges the proofs."""
    sealed_segments: int = 0
    """The sealed segments of the audit log."""
    lost_segments: str = ""
    """Those that were declared lost, in words."""
    found_segments: str = ""
    """Lost ones that a member has after all: the others fetch them."""
    audit_retention: AuditRetention = NO_RETENTION
    """The archives of the audit log, and what its retention removes."""


def bundle_needed(status: ClusterStatus) -> str:
    """
    Return `missing` or `outdated` if the cluster needs a recovery bundle, else empty.

    One current bundle is enough: the members with authorities' keys have the same ones.
    """
    states = {member.recovery_bundle for member in status.members}
    if "current" in states:
        return ""
    return next((each for each in ("outdated", "missing") if each in states), "")


class MemberStanding(enum.StrEnum):
    """How far a node has become a member."""

    VOTER = "voter"
    """Counts for every quorum, and can be the primary."""
    LEARNER = "learner"
    """Receives everything; votes as soon as it has caught up."""
    ADMITTED = "admitted"
    """Admitted, and about to become a learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMember:
    """A member, or a node that is about to become one."""

    node_id: NodeId
    address: str
    standing: MemberStanding


class Cluster:
    """Shows the cluster to operators."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        authorization: Authorization,
        costly_reads: CostlyReads,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._costly_reads = costly_reads
        self._state = state
        self._authorization = authorization
        self._clock = clock

    async def status(
        self, context: CallContext, *, digest: bool = False
    ) -> ClusterStatus:
        """
        Return every member's state.

        Works without a quorum, with a session valid in the local state (P2). *digest*:
        every member reads its whole state, so this has a rate and a turn of its own (Q3).
        Raises `NotSignedInError`, `NotPermittedError`, `OverloadedError`.
        """
        deadline = Deadline.of(context, self._clock)
        session = await self._authorization.find(context, deadline)
        if not digest:
            return await self._look(digest=False, timeout_s=deadline.left_s())
        async with self._costly_reads.turn(session.administrator, deadline):
            return await self._look(digest=True, timeout_s=deadline.left_s())

    async def watch(
        self, context: CallContext, *, every_ms: int
    ) -> AsyncIterator[ClusterStatus]:
        """
        Yield the state repeatedly, until shortly before the caller's deadline.

        Raises as `status`, also between reports: an ended session sees nothing more.
        """
        every_ms = every_ms or WATCH_MS_DEFAULT
        if not WATCH_MS_MIN <= every_ms <= WATCH_MS_MAX:
            raise InvalidFieldError(
                "interval", f"must be {WATCH_MS_MIN} ms to {WATCH_MS_MAX} ms"
            )
        deadline = Deadline.of(context, self._clock)
        while True:
            await self._authorization.find(context, deadline)
            yield await self._look(
                digest=False, timeout_s=min(_LOOK_S, deadline.left_s())
            )
            if deadline.left_s() <= every_ms / 1000 + _LOOK_S:
                return
            await asyncio.sleep(every_ms / 1000)

    async def members(
        self, context: CallContext, *, stale_ok: bool
    ) -> tuple[ListedMember, ...]:
        """
        Return the members and the admitted nodes, by node id.

        With *stale_ok* it works without a quorum, and on a removed node that does not
        know of its removal. Raises `NotSignedInError`, `NotPermittedError`,
        `ProposeError`.
        """
        deadline = Deadline.of(context, self._clock)
        await self._authorization.find(context, deadline)
        if not stale_ok:
            await self._replicator.read_barrier(timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            known = await membership.nodes(transaction)
        listed = {
            member.node_id: ListedMember(
                node_id=member.node_id,
                address=member.address,
                standing=MemberStanding(member.role.value),
            )
            for member in self._replicator.members()
        }
        for node in known:
            if not node.removed and node.node_id not in listed:
                listed[node.node_id] = ListedMember(
                    node_id=node.node_id,
                    address=node.address,
                    standing=MemberStanding.ADMITTED,
                )
        return tuple(listed[node_id] for node_id in sorted(listed))

    async def _look(self, *, digest: bool, timeout_s: float) -> ClusterStatus:
        members = await self._replicator.status(digest=digest, timeout_s=timeout_s)
        now_ms = self._clock.now_ms()
        async with self._state.transaction() as transaction:
            cluster_id = await cluster.cluster_id(transaction)
            feature_level = await cluster.feature_level(transaction)
            last_backup = await cluster.last_backup(transaction)
            pending_resets = await resets.pending(transaction)
            rotation_due = await seals.rotation_due(transaction)
            due_authorities = await authorities.due(transaction)
            successors = await authorities.successors(transaction)
            held = await segment_holders.overview(transaction)
            retention = await archives.overview(transaction, now_ms, _reports(members))
        newest = max((member.commit_index for member in members), default=0)
        voters = [each for each in members if each.role is MemberRole.VOTER]
        reachable = sum(voter.reachable for voter in voters)
        return ClusterStatus(
            node_id=self._replicator.node_id,
            primary=self._replicator.primary,
            quorum=reachable > len(voters) // 2,
            members=tuple(
                replace(
                    _view(member, newest, now_ms),
                    missing_segments=in_words(held.missing(member.node_id)),
                )
                for member in sorted(members, key=lambda member: member.node_id)
            ),
            cluster_id=cluster_id,
            feature_level=feature_level,
            last_backup=last_backup,
            pending_resets=pending_resets,
            rotation_due=rotation_due,
            due_authorities=due_authorities,
            successors=tuple(map(_successor, successors)),
            sealed_segments=held.last,
            lost_segments=in_words(ranges_of(held.lost)),
            found_segments=in_words(held.found()),
            audit_retention=retention,
        )


def _reports(members: Iterable[MemberStatus]) -> dict[str, ArchiveReport]:
    """Return what the members that answer say of their archives, by archiver."""
    return {
        archiver_of(each.node_id): each.archive
        for each in members
        if each.archive is not None
    }


def _successor(each: Successor) -> SuccessorView:
    return SuccessorView(
        authority=each.authority.value,
        replaces=each.replaces,
        fingerprint=each.fingerprint,
        node_id=each.node_id,
        since_ms=each.since_ms,
        certificate=ssl.DER_cert_to_PEM_cert(each.certificate),
        sole=each.sole,
    )


def _view(member: MemberStatus, newest: int, now_ms: int) -> MemberView:
    """Return a member's status compared with the cluster's."""
    votes = member.role is MemberRole.VOTER
    if not member.reachable:
        return MemberView(
            node_id=member.node_id,
            reachable=False,
            is_primary=False,
            term=0,
            commit_index=0,
            applied_index=0,
            lag=0,
            digest="",
            version="",
            clock_offset_ms=0,
            votes=votes,
        )
    return MemberView(
        node_id=member.node_id,
        reachable=True,
        is_primary=member.is_primary,
        term=member.term,
        commit_index=member.commit_index,
        applied_index=member.applied_index,
        lag=max(0, newest - member.applied_index),
        digest=member.digest,
        version=member.version,
        clock_offset_ms=member.clock_ms - now_ms,
        audit_sequence=member.audit_sequence,
        audit_head=member.audit_head,
        feature_level=member.feature_level,
        recovery_bundle=member.recovery_bundle,
        members_authorities=fingerprints(member.authorities, AuthorityKind.MEMBERS),
        agents_authorities=fingerprints(member.authorities, AuthorityKind.AGENTS),
        shown_authorities=member.shown_authorities,
        votes=votes,
    )
