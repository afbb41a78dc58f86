# SPDX-License-Identifier: Apache-2.0
"""Changing who leads: asked of any node, done by the primary."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication import forwarding
from sparecode_node.replication.engine_thread import EngineThread
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    NotAppliedError,
    OutcomeUnknownError,
    ProposeError,
)
from sparecode_node.replication.members import Member

POLL_S = 0.05
"""Between two looks for a primary, if no news comes first."""

_T = TypeVar("_T")


class ClusterChanges:
    """What operators ask of the cluster itself. Lives in the loop."""

    def __init__(
        self,
        node_id: NodeId,
        engine: EngineThread,
        *,
        primary: Callable[[], NodeId | None],
        channel: Callable[[NodeId], grpc.aio.Channel | None],
        news: Callable[[float], Awaitable[bool]],
    ) -> None:
        """*news* waits for a change, or a moment; False if its deadline comes first."""
        self._node_id = node_id
        self._engine = engine
        self._primary = primary
        self._channel = channel
        self._news = news

    # --- Who leads

    async def transfer(self, target: NodeId | None, *, timeout_s: float) -> NodeId:
        """
        Return who leads, when it is *target*, or any other than before.

        Raises `ChangeRefusedError` with the primary still leading, and
        `ProposeError`.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        before = await self._known_primary(deadline)
        if before == target:
            return before
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        if before == self._node_id:
            await self._engine.transfer(target, timeout_s=left_s)
        else:
            await self._ask_to_hand_over(before, target, left_s)
        while (now := self._primary()) is None or now == before:
            if not await self._news(deadline):
                raise NoPrimaryError(f"{before} leads no more, and nobody else yet")
        return now

    async def _known_primary(self, deadline: float) -> NodeId:
        while (primary := self._primary()) is None:
            if not await self._news(deadline):
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
                request, timeout=timeout_s + forwarding.GRACE_S
            ),
        )
        match answer.WhichOneof("outcome"):
            case "told":
                return
            case "refused":
                raise _refused(answer.refused)
            case _:
                raise forwarding.error_of(answer.not_applied)

    async def handed_over(
        self, request: peers_pb2.TransferPrimaryRequest
    ) -> peers_pb2.TransferPrimaryResponse:
        """Hand over for another member, if this one leads."""
        target = NodeId(request.target) if request.target else None
        try:
            told = await self._engine.transfer(
                target, timeout_s=request.timeout_ms / 1000
            )
        except ChangeRefusedError as error:
            return peers_pb2.TransferPrimaryResponse(refused=_told(error))
        except NotAppliedError as error:
            kind = forwarding.kind_of(error)
            return peers_pb2.TransferPrimaryResponse(not_applied=kind)
        return peers_pb2.TransferPrimaryResponse(told=told)

    # --- Who the members are

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:  # noqa: ARG002
        """Refuse, until the engine can change its members."""
        raise _no_change(member.node_id)

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:  # noqa: ARG002
        """Refuse, until the engine can change its members."""
        raise _no_change(node_id)

    async def remove_member(self, node_id: NodeId, *, timeout_s: float) -> None:  # noqa: ARG002
        """Refuse, until the engine can change its members."""
        raise _no_change(node_id)

    # --- Asking the primary

    async def _ask(
        self,
        primary: NodeId,
        ask: "Callable[[peers_pb2_grpc.PeerServiceAsyncStub], Awaitable[_T]]",
    ) -> _T:
        channel = self._channel(primary)
        if channel is None:
            raise NoPrimaryError(f"no way to {primary}")
        try:
            return await ask(peers_pb2_grpc.PeerServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            raise OutcomeUnknownError(
                f"the primary did not answer: {error.code().name}"
            ) from error


def _no_change(node_id: NodeId) -> ChangeRefusedError:
    detail = f"{node_id}: members cannot be changed yet"
    return ChangeRefusedError(Rejected(Reason.MEMBER_NOT_READY, detail))


def _told(error: ChangeRefusedError) -> peers_pb2.ChangeRefused:
    rejected = error.rejected
    return peers_pb2.ChangeRefused(reason=rejected.reason, detail=rejected.detail)


def _refused(told: peers_pb2.ChangeRefused) -> ProposeError:
    try:
        reason = Reason(told.reason)
    except ValueError:  # The primary is of a newer version.
        return NoPrimaryError(told.detail)
    return ChangeRefusedError(Rejected(reason, told.detail))
