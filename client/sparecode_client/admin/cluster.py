# SPDX-License-Identifier: Apache-2.0
"""The cluster itself."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import cluster_pb2
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import (
    commit_in,
    enum_in,
    position_in,
    status_in,
    time_in,
)
from sparecode_client.values.emergency_access import ClusterStatus, Commit
from sparecode_client.values.membership import JoinTicket, ListedMember, MemberStanding
from sparecode_client.values.review import (
    Backup,
    ClusterReview,
    ReviewedAdministrator,
    ReviewedAgent,
    ReviewedCertificate,
)

WATCH_WITHIN = timedelta(seconds=30)
"""Of one call that watches, at least: it ends by itself a little earlier."""


class Cluster(Caller):
    """The calls of `ClusterService`."""

    async def get_status(
        self, *, digest: bool = False, within: timedelta | None = None
    ) -> ClusterStatus:
        """
        Return every member's state as the called node sees it, quorum or not.

        A *digest* reads the whole state on every member, and takes its time.
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
        Hand every member's state to *take* again and again, until *within* is over.

        A node ends the call a little earlier; call again to go on. Where a node
        breaks off, the next one goes on.
        """
        request = cluster_pb2.WatchStatusRequest()
        request.interval.FromTimedelta(interval)

        def taken(answer: cluster_pb2.WatchStatusResponse) -> bool:
            take(status_in(answer.status))
            return True

        await self._client.stream_out(
            lambda node: node.cluster.WatchStatus,
            lambda: request,
            taken,
            within=within,
        )

    async def list_members(
        self, *, stale_ok: bool = False, within: timedelta | None = None
    ) -> tuple[ListedMember, ...]:
        """
        Return the members, and the nodes that are about to become one.

        *stale_ok*: also without a quorum, as the called node knows them.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.ListMembers,
            cluster_pb2.ListMembersRequest(stale_ok=stale_ok),
            within=within,
        )
        return tuple(
            ListedMember(
                node_id=member.node_id,
                address=member.address,
                standing=enum_in(
                    MemberStanding, cluster_pb2.MemberStanding, member.standing
                ),
            )
            for member in answer.members
        )

    async def create_join_ticket(
        self,
        node_id: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> JoinTicket:
        """
        Let the node *node_id* be admitted: once, within 15 minutes.

        A retry with the same *request_id* gets the same ticket; a new one makes
        every older ticket of the node void.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.CreateJoinTicket,
            cluster_pb2.CreateJoinTicketRequest(
                request_id=request_id or new_request_id(), node_id=node_id
            ),
            within=within,
        )
        return JoinTicket(ticket=answer.ticket, end_time=time_in(answer, "end_time"))

    async def add_member(
        self,
        node_id: str,
        address: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> int:
        """
        Add a node whose certificate and key ring came by another way than a ticket.

        Returns the index of the commit. The node is a learner soon, and votes when
        it has caught up.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.AddMember,
            cluster_pb2.AddMemberRequest(
                request_id=request_id or new_request_id(),
                node_id=node_id,
                address=address,
            ),
            within=within,
        )
        return answer.index

    async def remove_member(
        self,
        node_id: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> None:
        """Have a member leave for good; the primary hands over first."""
        await self._client.unary(
            lambda node: node.cluster.RemoveMember,
            cluster_pb2.RemoveMemberRequest(
                request_id=request_id or new_request_id(), node_id=node_id
            ),
            within=within,
            patient=True,
        )

    async def transfer_primary(
        self,
        target: str = "",
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> str:
        """
        Have the member *target* lead, or whoever has most of the log.

        Returns the primary of then. Nothing that is under way gets lost by it.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.TransferPrimary,
            cluster_pb2.TransferPrimaryRequest(
                request_id=request_id or new_request_id(), target=target
            ),
            within=within,
        )
        return answer.primary

    async def create_backup(
        self,
        begin: Callable[[], object],
        write: Callable[[bytes], object],
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Backup:
        """
        Hand a backup of everything committed before the call to *write*, in pieces.

        Where a node breaks off, another one begins anew: *begin* is called then, and
        at first, and what was written before it counts no more.
        """
        asked = request_id or new_request_id()
        taken = cluster_pb2.CreateBackupResponse()
        written = 0

        def take(piece: cluster_pb2.CreateBackupResponse) -> bool:
            nonlocal taken, written
            if piece.offset == 0:
                begin()
                written = 0
            if piece.offset != written:
                raise ValueError("a piece of the backup is missing")
            write(piece.content)
            written += len(piece.content)
            taken = piece
            return False

        await self._client.stream_out(
            lambda node: node.cluster.CreateBackup,
            lambda: cluster_pb2.CreateBackupRequest(request_id=asked),
            take,
            request_id=asked,
            within=within,
        )
        return Backup(
            index=taken.index,
            digest=taken.digest,
            take_time=time_in(taken, "take_time"),
            recipients=tuple(taken.recipients),
            size=written,
        )

    async def get_review(self, *, within: timedelta | None = None) -> ClusterReview:
        """Return what to check before a restored cluster serves agents."""
        answer = await self._client.unary(
            lambda node: node.cluster.GetReview,
            cluster_pb2.GetReviewRequest(),
            within=within,
        )
        return review_in(answer)

    async def open_cluster(
        self,
        review: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Have a restored cluster serve agents, if *review* is of what is there."""
        answer = await self._client.unary(
            lambda node: node.cluster.OpenCluster,
            cluster_pb2.OpenClusterRequest(
                request_id=request_id or new_request_id(), review=review
            ),
            within=within,
        )
        return commit_in(answer.commit)


def review_in(review: cluster_pb2.GetReviewResponse) -> ClusterReview:
    """Return a review."""
    return ClusterReview(
        cluster_id=review.cluster_id,
        open=review.open,
        epoch=review.epoch,
        cause=review.cause,
        begin_time=time_in(review, "begin_time"),
        state_index=review.state_index,
        state_time=time_in(review, "state_time"),
        review=review.review,
        administrators=tuple(
            ReviewedAdministrator(name=each.name, role=each.role, enabled=each.enabled)
            for each in review.administrators
        ),
        agents=tuple(
            ReviewedAgent(
                name=each.name,
                identity=each.identity,
                enabled=each.enabled,
                restricted=each.restricted,
            )
            for each in review.agents
        ),
        disabled_users=tuple(review.disabled_users),
        disabled_users_count=review.disabled_users_count,
        denied_certificates=tuple(
            ReviewedCertificate(
                mark=each.mark,
                value=each.value,
                denied_time=time_in(each, "denied_time"),
                denied_by=each.denied_by,
            )
            for each in review.denied_certificates
        ),
        position=position_in(review.position),
    )
