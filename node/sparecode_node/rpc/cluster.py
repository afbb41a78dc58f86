# SPDX-License-Identifier: Apache-2.0
"""`ClusterService`: status, members, keys, backups and opening, for operators."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1 import cluster_pb2_grpc as pb_grpc
from sparecode_node.queries.archives import AuditRetention
from sparecode_node.queries.review import Review
from sparecode_node.rpc import calls, conversion, tickets
from sparecode_node.rpc.identity import Context
from sparecode_node.services.cluster.backups import Backups
from sparecode_node.services.cluster.epoch_review import EpochReview
from sparecode_node.services.cluster.membership_commands import MembershipCommands
from sparecode_node.services.cluster.status import (
    Cluster,
    ClusterStatus,
    MemberStanding,
    MemberView,
)
from sparecode_node.services.keys.rotation import Phase, Rotation, RotationProgress

_PHASES = {
    Phase.HANDING_OUT: pb.ROTATION_PHASE_HANDING_OUT,
    Phase.RESEALING: pb.ROTATION_PHASE_RESEALING,
    Phase.RETIRING: pb.ROTATION_PHASE_RETIRING,
    Phase.DONE: pb.ROTATION_PHASE_DONE,
}

_STANDINGS = {
    MemberStanding.VOTER: pb.MEMBER_STANDING_VOTER,
    MemberStanding.LEARNER: pb.MEMBER_STANDING_LEARNER,
    MemberStanding.ADMITTED: pb.MEMBER_STANDING_ADMITTED,
}


class ClusterServicer(pb_grpc.ClusterServiceServicer):
    """Translates between the wire and the use cases of the cluster."""

    def __init__(
        self,
        node_id: str,
        cluster: Cluster,
        changes: MembershipCommands,
        opening: EpochReview,
        backups: Backups,
        rotation: Rotation,
    ) -> None:
        self._node_id = node_id
        self._cluster = cluster
        self._changes = changes
        self._opening = opening
        self._backups = backups
        self._rotation = rotation

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Return the state of every member."""
        status = await self._cluster.status(
            calls.session_call(context, "ClusterService/GetStatus"),
            digest=request.digest,
        )
        return _status(status)

    async def WatchStatus(
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """Stream the state of every member repeatedly."""
        reports = self._cluster.watch(
            calls.session_call(context, "ClusterService/WatchStatus"),
            every_ms=request.interval.ToMilliseconds(),
        )
        async for status in reports:
            yield pb.WatchStatusResponse(status=_status(status))

    async def ListMembers(
        self, request: pb.ListMembersRequest, context: Context
    ) -> pb.ListMembersResponse:
        """Return the members and the nodes about to become members."""
        members = await self._cluster.members(
            calls.session_call(context, "ClusterService/ListMembers"),
            stale_ok=request.stale_ok,
        )
        return pb.ListMembersResponse(
            members=[
                pb.ListedMember(
                    node_id=member.node_id,
                    address=member.address,
                    standing=_STANDINGS[member.standing],
                )
                for member in members
            ]
        )

    async def CreateJoinTicket(
        self, request: pb.CreateJoinTicketRequest, context: Context
    ) -> pb.CreateJoinTicketResponse:
        """Create a ticket that admits one node."""
        ticket = await self._changes.create_join_ticket(
            calls.session_call(
                context, "ClusterService/CreateJoinTicket", request.request_id
            ),
            node_id=request.node_id,
            address=request.address,
            hosts=tuple(request.hosts),
            with_authority=request.with_authority,
        )
        return pb.CreateJoinTicketResponse(
            ticket=tickets.to_text(ticket),
            end_time=conversion.timestamp(ticket.ends_at_ms),
        )

    async def AddMember(
        self, request: pb.AddMemberRequest, context: Context
    ) -> pb.AddMemberResponse:
        """Add a node without a ticket."""
        index = await self._changes.add_member(
            calls.session_call(context, "ClusterService/AddMember", request.request_id),
            node_id=request.node_id,
            address=request.address,
        )
        return pb.AddMemberResponse(index=index)

    async def RemoveMember(
        self, request: pb.RemoveMemberRequest, context: Context
    ) -> pb.RemoveMemberResponse:
        """Remove a member permanently."""
        removal = await self._changes.remove_member(
            calls.session_call(
                context, "ClusterService/RemoveMember", request.request_id
            ),
            node_id=request.node_id,
            rotate_keys=request.rotate_keys,
        )
        return pb.RemoveMemberResponse(
            new_key_id=removal.new_key_id or 0,
            rotation_problem=removal.rotation_problem,
            due_authorities=removal.due_authorities,
        )

    async def KeepAuthorities(
        self, request: pb.KeepAuthoritiesRequest, context: Context
    ) -> pb.KeepAuthoritiesResponse:
        """Record why authorities stay."""
        applied = await self._changes.keep_authorities(
            calls.session_call(
                context, "ClusterService/KeepAuthorities", request.request_id
            ),
            node_id=request.node_id,
            reason=request.reason,
        )
        return pb.KeepAuthoritiesResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def DeclareSegmentsLost(
        self, request: pb.DeclareSegmentsLostRequest, context: Context
    ) -> pb.DeclareSegmentsLostResponse:
        """Declare segments of the audit log lost."""
        applied = await self._changes.declare_segments_lost(
            calls.session_call(
                context, "ClusterService/DeclareSegmentsLost", request.request_id
            ),
            first=request.first,
            last=request.last,
            reason=request.reason,
            destroyed=tuple(request.destroyed),
        )
        return pb.DeclareSegmentsLostResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ConfirmArchive(
        self, request: pb.ConfirmArchiveRequest, context: Context
    ) -> pb.ConfirmArchiveResponse:
        """Record an administrator's copy of the audit log."""
        applied = await self._changes.confirm_archive(
            calls.session_call(
                context, "ClusterService/ConfirmArchive", request.request_id
            ),
            first=request.first,
            last=request.last,
            hash_before=request.hash_before,
            hash_after=request.hash_after,
            place=request.place,
        )
        return pb.ConfirmArchiveResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def WithdrawArchive(
        self, request: pb.WithdrawArchiveRequest, context: Context
    ) -> pb.WithdrawArchiveResponse:
        """Withdraw an administrator's copy of the audit log."""
        applied = await self._changes.withdraw_archive(
            calls.session_call(
                context, "ClusterService/WithdrawArchive", request.request_id
            ),
            administrator=request.administrator,
            first=request.first,
            last=request.last,
            reason=request.reason,
        )
        return pb.WithdrawArchiveResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ReplaceAuthorities(
        self, request: pb.ReplaceAuthoritiesRequest, context: Context
    ) -> pb.ReplaceAuthoritiesResponse:
        """Start to replace authorities, or finish it."""
        applied = await self._changes.replace_authorities(
            calls.session_call(
                context, "ClusterService/ReplaceAuthorities", request.request_id
            ),
            node_id=request.node_id,
            finish=request.finish,
        )
        return pb.ReplaceAuthoritiesResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def TransferPrimary(
        self, request: pb.TransferPrimaryRequest, context: Context
    ) -> pb.TransferPrimaryResponse:
        """Make another member the primary."""
        primary = await self._changes.transfer_primary(
            calls.session_call(
                context, "ClusterService/TransferPrimary", request.request_id
            ),
            target=request.target,
        )
        return pb.TransferPrimaryResponse(primary=primary)

    async def RotateKeys(
        self, request: pb.RotateKeysRequest, context: Context
    ) -> AsyncIterator[pb.RotateKeysResponse]:
        """Replace the key, and stream the progress."""
        progress = await self._rotation.rotate(
            calls.session_call(
                context, "ClusterService/RotateKeys", request.request_id
            ),
            at_once=request.at_once,
            keep_old_key=request.keep_old_key,
        )
        async with aclosing(progress):
            async for each in progress:
                yield _progress(each)

    async def GetReview(
        self, request: pb.GetReviewRequest, context: Context
    ) -> pb.GetReviewResponse:
        """Return what an operator must review before agents are served."""
        del request
        read = await self._opening.review(
            calls.session_call(context, "ClusterService/GetReview")
        )
        message = _review(read.value)
        message.position.CopyFrom(conversion.position(read))
        return message

    async def OpenCluster(
        self, request: pb.OpenClusterRequest, context: Context
    ) -> pb.OpenClusterResponse:
        """Make the cluster serve agents again."""
        applied = await self._opening.open(
            calls.session_call(
                context, "ClusterService/OpenCluster", request.request_id
            ),
            review=request.review,
        )
        return pb.OpenClusterResponse(commit=conversion.commit(self._node_id, applied))

    async def CreateBackup(
        self, request: pb.CreateBackupRequest, context: Context
    ) -> AsyncIterator[pb.CreateBackupResponse]:
        """Stream the parts of a backup."""
        pieces = await self._backups.create(
            calls.session_call(
                context, "ClusterService/CreateBackup", request.request_id
            ),
            without_sealed_events=request.without_sealed_events,
        )
        async for piece in pieces:
            manifest = piece.signed.manifest
            yield pb.CreateBackupResponse(
                offset=piece.offset,
                content=piece.content,
                index=manifest.index,
                digest=manifest.digest,
                take_time=conversion.timestamp(manifest.taken_at_ms),
                recipients=manifest.recipients,
            )


def _review(review: Review) -> pb.GetReviewResponse:
    return pb.GetReviewResponse(
        cluster_id=review.cluster_id,
        open=review.open,
        epoch=review.epoch,
        cause=review.cause,
        begin_time=conversion.timestamp(review.began_at_ms),
        state_index=review.state_index,
        state_time=conversion.timestamp(review.state_at_ms),
        review=review.mark,
        administrators=[
            pb.ReviewedAdministrator(
                name=each.name, role=each.role, enabled=each.enabled
            )
            for each in review.administrators
        ],
        agents=[
            pb.ReviewedAgent(
                name=each.name,
                identity=each.identity,
                enabled=each.enabled,
                restricted=each.restricted,
                key_create_time=conversion.timestamp(each.key_created_at_ms),
                accept_attributes=conversion.attributes(each.accept_attributes),
            )
            for each in review.agents
        ],
        disabled_users=review.disabled_users,
        disabled_users_count=review.disabled_users_count,
        denied_certificates=[
            pb.ReviewedCertificate(
                mark=each.mark,
                value=each.value,
                denied_time=conversion.timestamp(each.denied_at_ms),
                denied_by=each.denied_by,
            )
            for each in review.denied_certificates
        ],
        radius_clients=[
            pb.ReviewedRadiusClient(
                name=each.name,
                networks=each.networks,
                allow_unsigned=each.allow_unsigned,
                allow_unsigned_proxied=each.allow_unsigned_proxied,
                unsigned_until_signed=each.unsigned_until_signed,
                secret_create_time=conversion.timestamp(each.secret_created_at_ms),
            )
            for each in review.radius_clients
        ],
    )


def _retention(retention: AuditRetention) -> pb.AuditRetention:
    after_ms = retention.retention_ms
    return pb.AuditRetention(
        archives=[
            pb.AuditArchive(
                archiver=each.archiver,
                place=each.place,
                segments=each.segments,
                confirm_time=conversion.timestamp(each.confirmed_at_ms),
                counts=each.counts,
                late_segments=each.late_segments,
                problem=each.problem,
                folder=each.folder,
            )
            for each in retention.archives
        ],
        unarchived_segments=retention.unarchived_segments,
        archives_wanted=retention.archives_wanted,
        removed_segments=retention.removed_segments,
        removed=conversion.removed(retention.removed),
        retention=None if after_ms is None else conversion.duration(after_ms),
        removal_begin_time=conversion.timestamp(retention.removal_begins_ms),
    )


def _status(status: ClusterStatus) -> pb.GetStatusResponse:
    backup = status.last_backup
    return pb.GetStatusResponse(
        node_id=status.node_id,
        primary=status.primary or "",
        quorum=status.quorum,
        members=[_member(member) for member in status.members],
        cluster_id=status.cluster_id,
        feature_level=status.feature_level,
        sealed_segments=status.sealed_segments,
        lost_segments=status.lost_segments,
        found_segments=status.found_segments,
        audit_retention=_retention(status.audit_retention),
        last_backup_time=conversion.timestamp(backup.taken_at_ms) if backup else None,
        last_backup_index=backup.index if backup else 0,
        pending_resets=[
            pb.PendingReset(
                administrator=each.administrator,
                node_id=each.node_id,
                uid=each.uid,
                second_factor=each.second_factor,
                enables=each.enables,
                request_time=conversion.timestamp(each.asked_at_ms),
                due_time=conversion.timestamp(each.due_at_ms),
            )
            for each in status.pending_resets
        ],
        rotation_due=status.rotation_due,
        due_authorities=[
            pb.DueAuthority(
                authority=each.authority,
                fingerprint=each.fingerprint,
                node_id=each.node_id,
                since_time=conversion.timestamp(each.since_ms),
                cause=each.cause,
                started=each.started,
            )
            for each in status.due_authorities
        ],
        successors=[
            pb.AuthoritySuccessor(
                authority=each.authority,
                replaces=each.replaces,
                fingerprint=each.fingerprint,
                node_id=each.node_id,
                since_time=conversion.timestamp(each.since_ms),
                certificate=each.certificate,
                sole=each.sole,
            )
            for each in status.successors
        ],
    )


def _progress(each: RotationProgress) -> pb.RotateKeysResponse:
    return pb.RotateKeysResponse(
        phase=_PHASES[each.phase],
        key_id=each.key_id,
        done=each.done,
        total=each.every,
        retire_time=None
        if each.retires_at_ms is None
        else conversion.timestamp(each.retires_at_ms),
        resumed=each.resumed,
        unopened=[
            pb.UnopenedSeal(kind=seal.kind.value, row=seal.row, serial=seal.serial)
            for seal in each.unopened
        ],
        stopped=each.stopped,
    )


def _member(member: MemberView) -> pb.Member:
    role = pb.MEMBER_ROLE_UNSPECIFIED
    if not member.votes:
        role = pb.MEMBER_ROLE_LEARNER
    elif member.reachable:
        role = pb.MEMBER_ROLE_PRIMARY if member.is_primary else pb.MEMBER_ROLE_REPLICA
    return pb.Member(
        node_id=member.node_id,
        reachable=member.reachable,
        role=role,
        term=member.term,
        commit_index=member.commit_index,
        applied_index=member.applied_index,
        lag=member.lag,
        digest=member.digest,
        version=member.version,
        clock_offset=conversion.duration(member.clock_offset_ms),
        audit_sequence=member.audit_sequence,
        audit_head=member.audit_head,
        feature_level=member.feature_level,
        recovery_bundle=member.recovery_bundle,
        members_authorities=member.members_authorities,
        agents_authorities=member.agents_authorities,
        shown_authorities=member.shown_authorities,
        missing_segments=member.missing_segments,
    )
