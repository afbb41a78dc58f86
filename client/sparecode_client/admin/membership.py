# SPDX-License-Identifier: Apache-2.0
"""Calls on members."""

from collections.abc import Sequence
from datetime import timedelta

from sparecode.v1 import (
    cluster_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, enum_in, time_in
from sparecode_client.values.membership import (
    JoinTicket,
    ListedMember,
    MemberStanding,
    Removal,
)
from sparecode_client.values.results import Commit


class Memberships(Caller):
    """The calls of `ClusterService` on members."""

    async def list_members(
        self, *, stale_ok: bool = False, within: timedelta | None = None
    ) -> tuple[ListedMember, ...]:
        """
        Return the members, and the nodes that will become members.

        *stale_ok*: answer even without a quorum, from the called node's own state.
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
        address: str,
        *,
        hosts: Sequence[str] = (),
        with_authority: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> JoinTicket:
        """
        Return a ticket that admits the node *node_id* once, within 15 minutes.

        *address*: HOST:PORT of its peers listener; it can join at no other address.
        *hosts*: further names that its certificate is to be valid for.
        *with_authority*: also hand over the keys of the authorities.

        A retry with the same *request_id* returns the same ticket. A new request voids
        older tickets for the node. Raises `ApprovalNeeded`: call again with the same
        arguments after the approval.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.CreateJoinTicket,
            cluster_pb2.CreateJoinTicketRequest(
                request_id=request_id or new_request_id(),
                node_id=node_id,
                address=address,
                hosts=hosts,
                with_authority=with_authority,
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
        Add a node that got its certificate and key ring by other means than a ticket.

        Return the index of the commit. The node becomes a learner, and a voter when it
        has caught up.
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
        rotate_keys: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Removal:
        """
        Remove a member permanently. The primary hands over first if it is removed.

        *rotate_keys*: the machine may be in the wrong hands. Also start a rotation of the
        ring's key, which the member has had, and record that the authorities whose keys
        it has had are due. The policy may require both. The cluster continues the
        rotation by itself.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.RemoveMember,
            cluster_pb2.RemoveMemberRequest(
                request_id=request_id or new_request_id(),
                node_id=node_id,
                rotate_keys=rotate_keys,
            ),
            within=within,
            patient=True,
        )
        return Removal(
            new_key_id=answer.new_key_id or None,
            rotation_problem=answer.rotation_problem,
            due_authorities=tuple(answer.due_authorities),
        )

    async def keep_authorities(
        self,
        node_id: str,
        reason: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Record why the authorities stay whose keys the removed member *node_id* has had.

        They are no longer shown as due. Raises `ApprovalNeeded`.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.KeepAuthorities,
            cluster_pb2.KeepAuthoritiesRequest(
                request_id=request_id or new_request_id(),
                node_id=node_id,
                reason=reason,
            ),
            within=within,
        )
        return commit_in(answer.commit)

    async def declare_segments_lost(
        self,
        first: int,
        last: int,
        reason: str,
        *,
        destroyed: Sequence[str] = (),
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Declare that no member has these sealed segments of the audit log any more.

        Pages, exports, verification and backups then go on without their events.
        *destroyed* names the members that have them by the cluster's record, and that
        will not come back. Raises `ApprovalNeeded`.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.DeclareSegmentsLost,
            cluster_pb2.DeclareSegmentsLostRequest(
                request_id=request_id or new_request_id(),
                first=first,
                last=last,
                reason=reason,
                destroyed=destroyed,
            ),
            within=within,
        )
        return commit_in(answer.commit)

    async def confirm_archive(
        self,
        first: int,
        last: int,
        *,
        hash_before: bytes,
        hash_after: bytes,
        place: str,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Confirm a proved copy of these sealed segments of the audit log.

        It counts as one of the archives that the policy wants before it removes them.
        The hashes are those before the copy and of its last event. Raises
        `ApprovalNeeded`.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.ConfirmArchive,
            cluster_pb2.ConfirmArchiveRequest(
                request_id=request_id or new_request_id(),
                first=first,
                last=last,
                hash_before=hash_before,
                hash_after=hash_after,
                place=place,
            ),
            within=within,
        )
        return commit_in(answer.commit)

    async def withdraw_archive(
        self,
        administrator: str,
        reason: str,
        *,
        first: int = 0,
        last: int = 0,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Withdraw a copy of the audit log that an administrator has confirmed.

        It is damaged or lost, and does not count any longer. Without *first* and *last*,
        all that the administrator has confirmed. What retention has removed before does
        not come back.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.WithdrawArchive,
            cluster_pb2.WithdrawArchiveRequest(
                request_id=request_id or new_request_id(),
                administrator=administrator,
                first=first,
                last=last,
                reason=reason,
            ),
            within=within,
        )
        return commit_in(answer.commit)

    async def replace_authorities(
        self,
        node_id: str,
        *,
        finish: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Start to replace the authorities whose keys the removed member *node_id* has had.

        A member that has the keys makes the successors, and all members trust both. With
        *finish* they trust only the successors, which all members must use by then.
        Raises `ApprovalNeeded`.
        """
        answer = await self._client.unary(
            lambda node: node.cluster.ReplaceAuthorities,
            cluster_pb2.ReplaceAuthoritiesRequest(
                request_id=request_id or new_request_id(),
                node_id=node_id,
                finish=finish,
            ),
            within=within,
        )
        return commit_in(answer.commit)
