# SPDX-License-Identifier: Apache-2.0
"""Calls of other members to this one, apart from Raft's messages."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.calls.membership_requests import MembershipRequests
from sparecode_node.replication.calls.primary_contact import ATTEMPT_S
from sparecode_node.replication.calls.read_points import ReadPoints
from sparecode_node.replication.errors import NotAppliedError, ProposeError
from sparecode_node.replication.raft.read_index import Word
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.replicator import MemberStatus, Proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCalls:
    """Answers other members for this node alone: it asks no third node."""

    engine: EngineThread
    snapshots: SnapshotKeeper
    changes: MembershipRequests
    read_points: ReadPoints
    status: Callable[[bool], Awaitable[MemberStatus]]
    """Returns this node's status, with the hash of the state if the argument is true."""

    async def forward(
        self, caller: NodeId, request: peers_pb2.ForwardRequest
    ) -> peers_pb2.ForwardResponse:
        """Propose calls that another member forwards; here or nowhere."""
        requests = (request, *request.also)
        # Check all of them before proposing one.
        proposals = [peer_messages.proposal_of(caller, each) for each in requests]
        reach(Point.FORWARD_TAKEN)
        response, *also = await asyncio.gather(
            *(
                self._propose(proposal, min(each.timeout_ms / 1000, ATTEMPT_S))
                for proposal, each in zip(proposals, requests, strict=True)
            )
        )
        response.also.extend(also)
        reach(Point.FORWARD_REPLY)
        return response

    async def _propose(
        self, proposal: Proposal, timeout_s: float
    ) -> peers_pb2.ForwardResponse:
        try:
            result = await self.engine.propose(proposal, timeout_s=timeout_s)
        except NotAppliedError as error:
            return peer_messages.not_applied(error)
        except ProposeError:
            return peer_messages.unknown()
        return peer_messages.applied(result)

    async def read_index(
        self, caller: NodeId, hello: Hello, request: peers_pb2.GetReadIndexRequest
    ) -> peers_pb2.GetReadIndexResponse:
        """Return the index to read at, if a quorum confirms that this node leads."""
        timeout_s = min(request.timeout_ms / 1000, ATTEMPT_S)
        word = Word(member=caller, hello=hello, term=request.term)
        try:
            return peer_messages.read_at(await self.read_points.own(timeout_s, word))
        except ProposeError as error:
            return peer_messages.not_readable(error)

    async def member_status(
        self, request: peers_pb2.GetMemberStatusRequest
    ) -> peers_pb2.GetMemberStatusResponse:
        """Return the status of this member."""
        return peer_messages.status_response(await self.status(request.digest))
