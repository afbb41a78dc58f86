# SPDX-License-Identifier: Apache-2.0
"""Calls on the status of the cluster and on its primary."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import (
    cluster_pb2,
)
from sparecode_client.admin.audit import removed_in
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import enum_in, time_in
from sparecode_client.values.cluster import (
    AuditArchive,
    AuditRetention,
    AuthoritySuccessor,
    ClusterStatus,
    DueAuthority,
    Member,
    MemberRole,
    PendingReset,
)

WATCH_WITHIN = timedelta(seconds=30)
"""Default duration of a call that watches. It ends by itself a little earlier."""


class Cluster(Caller):
    """The calls of `ClusterService` on the status and the primary."""

    async def get_status(
        self, *, digest: bool = False, within: timedelta | None = None
    ) -> ClusterStatus:
        """
        Return the status of every member as the called node sees it, even without a quorum.

        *digest* also reads the whole state on every member, which takes time.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.GetStatus,
            cluster_pb2.GetStatusRequest(digest=digest),
            within=within,
            patient=digest,
        )
        return status_in(answer)

    async def watch_status(
        self,
        take: Callable[[ClusterStatus], object],
        *,
        interval: timedelta,
        within: timedelta = WATCH_WITHIN,
    ) -> None:
        """
        Pass the cluster's status to *take* every *interval*, until *within* is over.

        The node ends the call a little earlier; call again to continue. If a node
        breaks off, the next one continues.
        """
        request = cluster_pb2.WatchStatusRequest()
        request.interval.FromTimedelta(interval)

        def take_answer(answer: cluster_pb2.WatchStatusResponse) -> bool:
            take(status_in(answer.status))
            return True

        await self._client.stream_out(
            lambda node: node.cluster.WatchStatus,
            lambda: request,
            take_answer,
            within=within,
        )

    async def transfer_primary(
        self,
        target: str = "",
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> str:
        """
        Make the member *target* the primary, or the member with most of the log.

        Return the new primary. Requests in progress are not lost.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.TransferPrimary,
            cluster_pb2.TransferPrimaryRequest(
                request_id=request_id or new_request_id(), target=target
            ),
            within=within,
        )
        return answer.primary


def _retention_in(status: cluster_pb2.GetStatusResponse) -> AuditRetention | None:
    if not status.HasField("audit_retention"):
        return None
    told = status.audit_retention
    return AuditRetention(
        archives=tuple(
            AuditArchive(
                archiver=each.archiver,
                place=each.place,
                segments=each.segments,
                confirm_time=time_in(each, "confirm_time"),
                counts=each.counts,
                late_segments=each.late_segments,
                problem=each.problem,
                folder=each.folder,
            )
            for each in told.archives
        ),
        unarchived_segments=told.unarchived_segments,
        archives_wanted=told.archives_wanted,
        removed_segments=told.removed_segments,
        removed=removed_in(told),
        retention=told.retention.ToTimedelta() or None,
        removal_begin_time=time_in(told, "removal_begin_time"),
    )


def status_in(status: cluster_pb2.GetStatusResponse) -> ClusterStatus:
    """Convert the status of the cluster."""
    voters = [
        member
        for member in status.members
        if member.role != cluster_pb2.MEMBER_ROLE_LEARNER
    ]
    reachable = sum(member.reachable for member in voters)
    quorum = len(voters) // 2 + 1
    return ClusterStatus(
        node_id=status.node_id,
        cluster_id=status.cluster_id,
        primary=status.primary,
        quorum=status.quorum,
        feature_level=status.feature_level,
        last_backup_time=time_in(status, "last_backup_time"),
        last_backup_index=status.last_backup_index,
        pending_resets=tuple(
            PendingReset(
                administrator=reset.administrator,
                node_id=reset.node_id,
                uid=reset.uid,
                second_factor=reset.second_factor,
                request_time=time_in(reset, "request_time"),
                due_time=time_in(reset, "due_time"),
                enables=reset.enables,
            )
            for reset in status.pending_resets
        ),
        rotation_due=status.rotation_due,
        sealed_segments=status.sealed_segments,
        lost_segments=status.lost_segments,
        found_segments=status.found_segments,
        audit_retention=_retention_in(status),
        due_authorities=tuple(
            DueAuthority(
                authority=each.authority,
                fingerprint=each.fingerprint,
                node_id=each.node_id,
                since_time=time_in(each, "since_time"),
                cause=each.cause,
                started=each.started,
            )
            for each in status.due_authorities
        ),
        successors=tuple(
            AuthoritySuccessor(
                authority=each.authority,
                replaces=each.replaces,
                fingerprint=each.fingerprint,
                node_id=each.node_id,
                since_time=time_in(each, "since_time"),
                certificate=each.certificate,
                sole=each.sole,
            )
            for each in status.successors
        ),
        voters=len(voters),
        reachable_voters=reachable,
        survivable_losses=max(0, reachable - quorum),
        members=tuple(
            Member(
                node_id=member.node_id,
                reachable=member.reachable,
                role=enum_in(MemberRole, cluster_pb2.MemberRole, member.role),
                term=member.term,
                commit_index=member.commit_index,
                applied_index=member.applied_index,
                lag=member.lag,
                digest=member.digest,
                version=member.version,
                clock_offset=(
                    member.clock_offset.ToTimedelta()
                    if member.HasField("clock_offset")
                    else None
                ),
                audit_sequence=member.audit_sequence,
                audit_head=member.audit_head,
                feature_level=member.feature_level,
                recovery_bundle=member.recovery_bundle,
                members_authorities=tuple(member.members_authorities),
                agents_authorities=tuple(member.agents_authorities),
                shown_authorities=tuple(member.shown_authorities),
                missing_segments=member.missing_segments,
            )
            for member in status.members
        ),
    )
