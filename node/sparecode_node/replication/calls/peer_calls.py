# SPDX-License-Identifier: Apache-2.0
"""What other members ask of this one, besides Raft's messages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.calls import forwarding
from sparecode_node.replication.calls.membership_requests import ClusterChanges
from sparecode_node.replication.errors import NotAppliedError, ProposeError
from sparecode_node.replication.raft.admission import Hello
from sparecode_node.replication.raft.read_index import Word
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.replicator import MemberStatus, Proposal
from sparecode_node.statemachine.results import BarrierPassed

ATTEMPT_S = 2.0
"""Of one attempt: then the primary is asked again, or the next one (same id)."""


class StatusReader(Protocol):
    """Says how far this node has got."""

    async def __call__(self, *, digest: bool) -> MemberStatus:
        """Return that, with the hash of the state if it is wanted."""


class PeerCalls:
    """Answers for this node alone: it asks nobody else."""

    def __init__(
        self,
        engine: EngineThread,
        snapshots: SnapshotKeeper,
        changes: ClusterChanges,
        *,
        read_point: Callable[[float, Word], Awaitable[BarrierPassed]],
        status: StatusReader,
    ) -> None:
        """*read_point* says where to read, *status* how far this node has got."""
        self._engine = engine
        self._snapshots = snapshots
        self._changes = changes
        self._read_point = read_point
        self._status = status

    async def forwarded(
        self, caller: NodeId, request: peers_pb2.ForwardRequest
    ) -> peers_pb2.ForwardResponse:
        """Propose calls that another member was asked for; here or nowhere."""
        requests = (request, *request.also)
        # All of them are looked at before one is proposed.
        proposals = [forwarding.proposal_of(caller, each) for each in requests]
        response, *also = await asyncio.gather(
            *(
                self._proposed(proposal, min(each.timeout_ms / 1000, ATTEMPT_S))
                for proposal, each in zip(proposals, requests, strict=True)
            )
        )
        response.also.extend(also)
        return response

    async def _proposed(
        self, proposal: Proposal, timeout_s: float
    ) -> peers_pb2.ForwardResponse:
        try:
            result = await self._engine.propose(proposal, timeout_s=timeout_s)
        except NotAppliedError as error:
            return forwarding.not_applied(error)
        except ProposeError:
            return forwarding.unknown()
        return forwarding.applied(result)

    async def read_index(
        self, caller: NodeId, hello: Hello, request: peers_pb2.GetReadIndexRequest
    ) -> peers_pb2.GetReadIndexResponse:
        """Say where to read, if this node leads, and a quorum says so too."""
        timeout_s = min(request.timeout_ms / 1000, ATTEMPT_S)
        word = Word(member=caller, hello=hello, term=request.term)
        try:
            return forwarding.read_at(await self._read_point(timeout_s, word))
        except ProposeError as error:
            return forwarding.not_readable(error)

    def send_snapshot(
        self, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """Yield the newest snapshot, from where another member has it."""
        return self._snapshots.send(request)

    async def handed_over(
        self, request: peers_pb2.TransferPrimaryRequest
    ) -> peers_pb2.TransferPrimaryResponse:
        """Hand over for another member, if this one leads."""
        return await self._changes.handed_over(request)

    async def members_changed(
        self, request: peers_pb2.ChangeMembersRequest
    ) -> peers_pb2.ChangeMembersResponse:
        """Change the members for another one, if this one leads."""
        return await self._changes.members_changed(request)

    async def member_status(
        self, request: peers_pb2.GetMemberStatusRequest
    ) -> peers_pb2.GetMemberStatusResponse:
        """Say how far this member has got."""
        return forwarding.status_response(await self._status(digest=request.digest))
