# SPDX-License-Identifier: Apache-2.0
"""Changes of the primary and of the members: any node takes them, the primary acts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.answers import answered, stub_of
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.calls.primary_contact import PrimaryContact
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
)
from sparecode_node.replication.members import Member
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    Promote,
    Remove,
    refused,
)
from sparecode_node.replication.replicator import MemberStatus

POLL_S = 0.05
"""Between two looks for a primary, if no news comes first."""

_T = TypeVar("_T")


class MembershipRequests:
    """What operators ask of the cluster itself. Lives in the loop."""

    def __init__(self, contact: PrimaryContact) -> None:
        """*contact* finds the primary, and asks it."""
        self._contact = contact

    # --- The primary

    async def transfer(self, target: NodeId | None, *, timeout_s: float) -> NodeId:
        """
        Return the new primary: *target*, or any voter but the current primary.

        Raises `ChangeRefusedError` while the primary still leads, and `ProposeError`.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            before = await self._known_primary(deadline)
            if before == target:
                return before
            try:
                await self._hand_over(before, target, deadline)
                return await self._primary_after(before, deadline)
            except NoPrimaryError:
                # *before* had lost its leadership, and this node did not know it yet.
                if not await self._contact.news(deadline):
                    raise

    async def _hand_over(
        self, primary: NodeId, target: NodeId | None, deadline: float
    ) -> None:
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        if primary == self._contact.node_id:
            await self._contact.engine.transfer(target, timeout_s=left_s)
        else:
            await self._ask_to_hand_over(primary, target, left_s)

    async def _primary_after(self, before: NodeId, deadline: float) -> NodeId:
        async with self._contact.quorum_wait.limited():
            while (now := self._contact.primary()) is None or now == before:
                if not await self._contact.news(deadline):
                    raise NoPrimaryError(
                        f"{before} does not lead any more, and no node does yet"
                    )
        return now

    async def _known_primary(self, deadline: float) -> NodeId:
        async with self._contact.quorum_wait.limited():
            while (primary := self._contact.primary()) is None:
                if not await self._contact.news(deadline):
                    raise NoPrimaryError("no primary is known here")
        return primary

    async def _ask_to_hand_over(
        self, primary: NodeId, target: NodeId | None, timeout_s: float
    ) -> None:
        request = peers_pb2.TransferPrimaryRequest(
            target=target or "", timeout_ms=max(1, int(timeout_s * 1000))
        )
        answer = await self._ask(
            primary,
            lambda stub: stub.TransferPrimary(
                request, timeout=timeout_s + peer_messages.GRACE_S
            ),
        )
        match answer.WhichOneof("outcome"):
            case "told":
                return
            case "refused":
                raise _refusal_error(answer.refused)
            case _:
                raise peer_messages.error_of(answer.not_applied)

    async def answer_transfer(
        self, request: peers_pb2.TransferPrimaryRequest
    ) -> peers_pb2.TransferPrimaryResponse:
        """Hand over on another member's request, if this node leads."""
        target = NodeId(request.target) if request.target else None
        try:
            leader = await self._contact.engine.transfer(
                target, timeout_s=request.timeout_ms / 1000
            )
        except ChangeRefusedError as error:
            return peers_pb2.TransferPrimaryResponse(refused=_refusal_message(error))
        except NotAppliedError as error:
            kind = peer_messages.kind_of(error)
            return peers_pb2.TransferPrimaryResponse(not_applied=kind)
        return peers_pb2.TransferPrimaryResponse(told=leader)

    # --- The members

    async def change_members(self, change: Change, *, timeout_s: float) -> None:
        """
        Return when the change is committed.

        While the outcome is unknown, the change is requested again: repeating it has no
        further effect. Raises `ChangeRefusedError` and `ProposeError`; `OutcomeUnknownError`
        also if the last request was refused, and an earlier one may have been heeded.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        doubts: list[OutcomeUnknownError] = []
        try:
            while not await self._try_to_change(change, deadline, doubts):
                pass
        except NotAppliedError as error:
            if not doubts:
                raise
            # The last try was in vain; an earlier one may have been appended.
            raise OutcomeUnknownError(f"{doubts[-1]}, and then: {error}") from error

    async def _try_to_change(
        self, change: Change, deadline: float, doubts: list[OutcomeUnknownError]
    ) -> bool:
        """Return whether it is committed; *doubts* are of tries that it may be by."""
        primary = await self._known_primary(deadline)
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        try:
            if isinstance(change, Remove) and change.node_id == primary:
                # No primary removes itself: the next primary does.
                await self.transfer(None, timeout_s=left_s)
                return False
            await self._change_at(primary, change, left_s, doubts)
        except ProposeError as error:
            again = _may_repeat(error, in_doubt=bool(doubts))
            if not again or not await self._contact.news(deadline):
                raise
            return False
        return True

    async def _change_at(
        self,
        primary: NodeId,
        change: Change,
        timeout_s: float,
        doubts: list[OutcomeUnknownError],
    ) -> None:
        try:
            if primary == self._contact.node_id:
                await self._contact.engine.change_members(change, timeout_s=timeout_s)
            else:
                await self._ask_to_change(primary, change, timeout_s)
        except OutcomeUnknownError as error:
            doubts.append(error)
            raise

    async def _ask_to_change(
        self, primary: NodeId, change: Change, timeout_s: float
    ) -> None:
        request = peers_pb2.ChangeMembersRequest(
            timeout_ms=max(1, int(timeout_s * 1000))
        )
        match change:
            case AddLearner(member):
                request.add_learner.node_id = member.node_id
                request.add_learner.address = member.address
            case Promote(node_id):
                request.promote = node_id
            case Remove(node_id):
                request.remove = node_id
        answer = await self._ask(
            primary,
            lambda stub: stub.ChangeMembers(
                request, timeout=timeout_s + peer_messages.GRACE_S
            ),
        )
        match answer.WhichOneof("outcome"):
            case "committed":
                return
            case "refused":
                raise _refusal_error(answer.refused)
            case "not_applied":
                raise peer_messages.error_of(answer.not_applied)
            case _:
                raise OutcomeUnknownError("the primary does not know the outcome")

    async def answer_change(
        self, request: peers_pb2.ChangeMembersRequest
    ) -> peers_pb2.ChangeMembersResponse:
        """Change the members on another member's request, if this node leads."""
        try:
            index = await self._contact.engine.change_members(
                _change_in(request), timeout_s=request.timeout_ms / 1000
            )
        except ChangeRefusedError as error:
            return peers_pb2.ChangeMembersResponse(refused=_refusal_message(error))
        except NotAppliedError as error:
            kind = peer_messages.kind_of(error)
            return peers_pb2.ChangeMembersResponse(not_applied=kind)
        except OutcomeUnknownError:
            return peers_pb2.ChangeMembersResponse(unknown=True)
        return peers_pb2.ChangeMembersResponse(committed=index)

    async def match_indexes(self, timeout_s: float) -> Mapping[str, int]:
        """Return how much each member has on disk, if this node leads; else nothing."""
        try:
            return await self._contact.engine.run(
                lambda replica: replica.match_indexes(), timeout_s=timeout_s
            )
        except ProposeError:  # It is held up; what it knows is a comfort only.
            return {}

    # --- Asking the primary

    async def _ask(
        self,
        primary: NodeId,
        ask: "Callable[[peers_pb2_grpc.PeerServiceAsyncStub], Awaitable[_T]]",
    ) -> _T:
        channel = self._contact.way_to(primary)
        try:
            return await answered(ask(stub_of(channel)))
        except grpc.aio.AioRpcError as error:
            raise OutcomeUnknownError(
                f"the primary did not answer: {error.code().name}"
            ) from error


def with_configuration(
    statuses: Iterable[MemberStatus],
    members: Iterable[Member],
    match_indexes: Mapping[str, int],
) -> tuple[MemberStatus, ...]:
    """Return the statuses of members, with what the configuration says about them."""
    by_id = {member.node_id: member for member in members}
    return tuple(
        replace(
            status,
            role=by_id[status.node_id].role,
            address=by_id[status.node_id].address,
            match_index=match_indexes.get(status.node_id, 0),
        )
        if status.node_id in by_id
        else status
        for status in statuses
    )


def _change_in(request: peers_pb2.ChangeMembersRequest) -> Change:
    match request.WhichOneof("change"):
        case "add_learner":
            wanted = request.add_learner
            member = Member(node_id=NodeId(wanted.node_id), address=wanted.address)
            return AddLearner(member)
        case "promote":
            return Promote(NodeId(request.promote))
        case "remove":
            return Remove(NodeId(request.remove))
        case _:
            raise refused("this version does not know this change of members")


def _may_repeat(error: ProposeError, *, in_doubt: bool) -> bool:
    """
    Return whether to request a change again.

    In doubt, a primary that is not ready for a moment is asked again: its answer would
    leave the caller without one.
    """
    if isinstance(error, ChangeRefusedError):
        return in_doubt and error.rejected.reason is Reason.MEMBER_NOT_READY
    return not isinstance(error, OverloadedError)


def _refusal_message(error: ChangeRefusedError) -> peers_pb2.ChangeRefused:
    rejected = error.rejected
    return peers_pb2.ChangeRefused(reason=rejected.reason, detail=rejected.detail)


def _refusal_error(refusal: peers_pb2.ChangeRefused) -> ProposeError:
    try:
        reason = Reason(refusal.reason)
    except ValueError:  # The primary is of a newer version.
        return NoPrimaryError(refusal.detail)
    return ChangeRefusedError(Rejected(reason, refusal.detail))
