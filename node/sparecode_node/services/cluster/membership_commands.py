# SPDX-License-Identifier: Apache-2.0
"""Use cases: change the cluster's members and primary, for operators."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import KeyId, NodeId, RequestId
from sparecode_node.domain.membership import Successor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import fold
from sparecode_node.queries import authorities, membership
from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ChangeRefusedError, ProposeError
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services import fields
from sparecode_node.services.cluster.authority_use import (
    check_unused,
    use_of_successors,
)
from sparecode_node.services.cluster.segment_holders import (
    check_lost,
    destroyed_members,
    who_stays,
)
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import InvalidFieldError, Refused, refusal
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.keys.rotation import Phase, Rotation
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.secrets.tickets import JoinTicket, door_of
from sparecode_node.statemachine.commands.cluster import TransferPrimary
from sparecode_node.statemachine.commands.membership import (
    AddMember,
    CreateJoinTicket,
    FinishAuthorities,
    KeepAuthorities,
    RemoveMember,
    ReplaceAuthorities,
)
from sparecode_node.statemachine.commands.segments import (
    ConfirmArchive,
    DeclareSegmentsLost,
    WithdrawArchive,
)
from sparecode_node.statemachine.handlers.retention import PLACE_MAX
from sparecode_node.statemachine.results import Applied, JoinTicketCreated

SETTLE_S = 5.0
"""For members to find each other after a departing primary has handed over."""
AGAIN_S = 0.2


ROTATE_KEYS = "ClusterService/RotateKeys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What became of the rotation after a member was removed."""

    new_key_id: KeyId | None = None
    """The key that is active now; None: no rotation was started."""
    rotation_problem: str = ""
    """Why a rotation that was requested or required was not started."""
    due_authorities: tuple[str, ...] = ()
    """The authorities that are due because of the member: members, agents (P6a)."""


class MembershipCommands:
    """
    Proposes a change, which apply judges and records, and then carries it out.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` and `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        replicator: Replicator,
        sealing: Sealing,
        state: LocalState,
        rotation: Rotation,
        rates: Rates,
        authorities: Callable[[], tuple[bytes, ...]],
        successors: Callable[[], tuple[Successor, ...]],
    ) -> None:
        """
        Keep the functions that read this node's files.

        *authorities* returns the members' authorities for tickets, DER, and *successors*
        those whose proof this node has checked.
        """
        self._proposer = proposer
        self._replicator = replicator
        self._sealing = sealing
        self._state = state
        self._rotation = rotation
        self._rates = rates
        self._authorities = authorities
        self._successors = successors

    @idempotent
    async def transfer_primary(self, context: CallContext, *, target: str) -> NodeId:
        """
        Make *target* the primary; empty: the member with the most complete log.

        Returns the new primary. Raises `Refused` (`MEMBER_UNKNOWN`,
        `MEMBER_NOT_READY`); then the primary is unchanged.
        """
        target_id = fields.node_id("target", target) if target else None
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        self._rates.transfer(administrator=session.administrator)
        command = TransferPrimary(target=target_id)
        await self._proposer.propose(context, session, deadline, command)
        try:
            return await self._replicator.transfer_primary(
                target_id, timeout_s=deadline.left_s()
            )
        except ChangeRefusedError as error:
            raise refusal(error.rejected) from error

    @idempotent
    async def create_join_ticket(
        self,
        context: CallContext,
        *,
        node_id: str,
        address: str = "",
        hosts: Sequence[str] = (),
        with_authority: bool = False,
    ) -> JoinTicket:
        """
        Let the node *node_id* be admitted at *address*, once and within 15 minutes (P5).

        Its certificate is for the host of *address* and for *hosts*, and for no other
        name: so it cannot stand in for another node. *with_authority* hands over the
        keys of the authorities, too. A retry gets the same ticket. An older ticket for
        the node becomes void. Raises `Refused` (`MEMBER_EXISTS`, `MEMBER_REMOVED`,
        `TICKETS_FULL`) and `ApprovalNeededError`: then the same request, made again
        after the approval, returns the ticket (P3).
        """
        member_id = fields.node_id("node_id", node_id)
        address = fields.address("address", address)
        if len(hosts) > fields.HOSTS_MAX:
            raise InvalidFieldError("hosts", f"at most {fields.HOSTS_MAX}")
        names = tuple(sorted({fields.host("hosts", each) for each in hosts}))
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await self._refuse_founder(member_id, address)
        request_id = RequestId(context.request_id.lower())
        secret = self._sealing.join_secret(session.administrator, request_id, member_id)
        command = CreateJoinTicket(
            node_id=member_id,
            certificate=door_of(secret, member_id).certificate,
            address=address,
            hosts=names,
            with_authority=with_authority,
        )
        result = await self._proposer.propose(context, session, deadline, command)
        if not isinstance(result, JoinTicketCreated):
            raise TypeError(f"unexpected result: {type(result).__name__}")
        return JoinTicket(
            secret=secret,
            node_id=member_id,
            cluster_id=self._sealing.cluster_id,
            authorities=self._authorities(),
            members=tuple(
                (member.node_id, member.address)
                for member in self._replicator.members()
            ),
            ends_at_ms=result.ends_at_ms,
            address=address,
            hosts=names,
        )

    @idempotent
    async def add_member(
        self, context: CallContext, *, node_id: str, address: str
    ) -> int:
        """
        Add a node that got its key ring and certificate without a ticket.

        Returns the index of the commit. The primary soon adds the node as a learner,
        and lets it vote when it has caught up. Raises `Refused` (`MEMBER_EXISTS`,
        `MEMBER_REMOVED`).
        """
        member_id = fields.node_id("node_id", node_id)
        address = fields.address("address", address)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await self._refuse_founder(member_id, address)
        command = AddMember(node_id=member_id, address=address)
        result = await self._proposer.propose(context, session, deadline, command)
        return applied(result).index

    @idempotent
    async def remove_member(
        self, context: CallContext, *, node_id: str, rotate_keys: bool = False
    ) -> Removal:
        """
        Remove a member forever. A primary hands over first.

        The member has had the key ring. So *rotate_keys*, or the policy, then starts a
        rotation, which the cluster continues by itself (P6). If this call is cut off,
        the primary starts it (`due_rotation`). The answer names the authorities that are
        due. Raises `Refused` (`MEMBER_UNKNOWN`, `MEMBER_NOT_READY`, `LAST_SEGMENT_HOLDER`);
        then the members are unchanged. A retry is safe.
        """
        member_id = fields.node_id("node_id", node_id)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        members = {member.node_id for member in self._replicator.members()}
        if member_id in members and len(members) == 1:
            raise refusal(
                Rejected(
                    Reason.MEMBER_NOT_READY,
                    f"{member_id} is the only member; a cluster needs at least one",
                )
            )
        stay = await who_stays(
            self._replicator, self._state, member_id, timeout_s=deadline.left_s()
        )
        command = RemoveMember(
            node_id=member_id,
            member=member_id in members,
            rotate_keys=rotate_keys,
            staying=stay.members,
            copies=stay.copies,
        )
        result = await self._proposer.propose(context, session, deadline, command)
        # Now: a node that removes itself applies nothing afterwards.
        await self._replicator.wait_applied(
            applied(result).index, timeout_s=deadline.left_s()
        )
        if member_id in members:
            await self._remove(member_id, deadline)
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            due = await authorities.due(transaction)
        removal = Removal()
        if rotate_keys or policy.rotate_after_removal:
            removal = await self._rotate(
                replace(context, method=ROTATE_KEYS, deadline_s=deadline.left_s()),
                member_id,
            )
        kinds = [each.authority for each in due if each.node_id == member_id]
        return replace(removal, due_authorities=tuple(dict.fromkeys(kinds)))

    @idempotent
    async def keep_authorities(
        self, context: CallContext, *, node_id: str, reason: str
    ) -> Applied:
        """
        Record why the authorities stay whose keys a removed member has had (P6a).

        Their successors end, unless they are in place. Raises `Refused`
        (`AUTHORITY_NOT_DUE`; `MEMBER_NOT_READY` if a member shows a certificate of a
        successor, or cannot be asked).
        """
        command = KeepAuthorities(
            node_id=fields.node_id("node_id", node_id),
            reason=fields.text("reason", reason, at_least=1, at_most=fields.NOTE_MAX),
        )
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await check_unused(
            self._replicator,
            self._state,
            command.node_id,
            timeout_s=deadline.left_s(),
        )
        return applied(
            await self._proposer.propose(context, session, deadline, command)
        )

    @idempotent
    async def declare_segments_lost(
        self,
        context: CallContext,
        *,
        first: int,
        last: int,
        reason: str,
        destroyed: Sequence[str] = (),
    ) -> Applied:
        """
        Declare that no member has some sealed segments of the audit log any more (U1).

        Readers then go on without their events. *destroyed*: members that have told that
        they hold one, and will not come back. Raises `Refused` (`SEGMENT_UNKNOWN`;
        `SEGMENT_HELD` if a member that answers holds one, or a member that is not named).
        """
        command = DeclareSegmentsLost(
            first=first,
            last=last,
            reason=fields.text("reason", reason, at_least=1, at_most=fields.NOTE_MAX),
            destroyed=destroyed_members(destroyed),
        )
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await check_lost(
            self._replicator, self._state, command, timeout_s=deadline.left_s()
        )
        return applied(
            await self._proposer.propose(context, session, deadline, command)
        )

    @idempotent
    async def confirm_archive(
        self,
        context: CallContext,
        *,
        first: int,
        last: int,
        hash_before: bytes,
        hash_after: bytes,
        place: str,
    ) -> Applied:
        """
        Record that the administrator has a proved copy of some sealed segments (U4).

        It counts as one of the archives that the policy wants before it removes them.
        Raises `Refused` (`SEGMENT_UNKNOWN`).
        """
        command = ConfirmArchive(
            first=first,
            last=last,
            hash_before=hash_before,
            hash_after=hash_after,
            place=fields.text("place", place, at_least=1, at_most=PLACE_MAX),
        )
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        return applied(
            await self._proposer.propose(context, session, deadline, command)
        )

    @idempotent
    async def withdraw_archive(
        self,
        context: CallContext,
        *,
        administrator: str,
        first: int,
        last: int,
        reason: str,
    ) -> Applied:
        """
        Record that a copy of an administrator is damaged or lost (U4).

        *first* and *last* are 0 for all that the administrator has confirmed. Raises
        `Refused` (`SEGMENT_UNKNOWN`).
        """
        command = WithdrawArchive(
            administrator=fold(fields.administrator("administrator", administrator)),
            first=first,
            last=last,
            reason=fields.text("reason", reason, at_least=1, at_most=fields.NOTE_MAX),
        )
        return await self._proposer.change(context, command)

    @idempotent
    async def replace_authorities(
        self, context: CallContext, *, node_id: str, finish: bool = False
    ) -> Applied:
        """
        Start to replace the authorities whose keys a removed member has had (P6a).

        A member that has the keys makes their successors, and every member trusts these
        beside the old ones. *finish*: only the successors are trusted from now on. Raises
        `Refused` (`AUTHORITY_NOT_DUE`; `MEMBER_NOT_READY` if a member does not use the
        successors, or cannot be asked).
        """
        removed = fields.node_id("node_id", node_id)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        command: FinishAuthorities | ReplaceAuthorities
        if finish:
            use = await use_of_successors(
                self._replicator,
                self._state,
                await asyncio.to_thread(self._successors),
                removed,
                timeout_s=deadline.left_s(),
            )
            command = FinishAuthorities(
                node_id=removed, successors=use.successors, nodes=use.nodes
            )
        else:
            command = ReplaceAuthorities(node_id=removed)
        return applied(
            await self._proposer.propose(context, session, deadline, command)
        )

    async def _rotate(self, context: CallContext, removed: NodeId) -> Removal:
        """Start a rotation. If it cannot start, the member stays removed."""
        again = "; the primary tries again by itself: see sparecode cluster status"
        if removed == self._replicator.node_id:
            return Removal(
                rotation_problem=f"{removed} served this call and is no longer a member{again}"
            )
        try:
            progress = await self._rotation.rotate(
                context, at_once=True, keep_old_key=False
            )
            async with aclosing(progress):
                async for each in progress:
                    if each.phase is not Phase.HANDING_OUT:
                        return Removal(new_key_id=each.key_id)
        except (Refused, ProposeError) as error:
            return Removal(rotation_problem=f"{error}{again}")
        return Removal(rotation_problem=f"there was no time left{again}")

    async def _remove(self, member: NodeId, deadline: Deadline) -> None:
        """Remove it from the engine. A new primary may not be ready to for a moment."""
        patient_s = deadline.left_s() - SETTLE_S
        while True:
            try:
                await self._replicator.remove_member(
                    member, timeout_s=deadline.left_s()
                )
            except ChangeRefusedError as error:
                not_ready = error.rejected.reason is Reason.MEMBER_NOT_READY
                if not not_ready or deadline.left_s() <= max(patient_s, AGAIN_S * 2):
                    raise refusal(error.rejected) from error
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _refuse_founder(self, node_id: NodeId, address: str = "") -> None:
        """
        Refuse the id or address of a founding member, which has no row in the state.

        Apply knows the other members. There a retry gets the first answer (Q1).
        """
        async with self._state.transaction() as transaction:
            known = {node.node_id for node in await membership.nodes(transaction)}
        for member in self._replicator.members():
            if member.node_id in known:
                continue
            if member.node_id == node_id:
                raise _exists(f"{node_id} is already a member")
            if address and member.address == address:
                raise _exists(f"{address} is the address of {member.node_id}")


def _exists(words: str) -> Refused:
    return refusal(Rejected(Reason.MEMBER_EXISTS, words))
