# SPDX-License-Identifier: Apache-2.0
"""The called side of `PeerService`: the certificate names the caller, never a field."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication import levels
from sparecode_node.replication.calls.peer_calls import PeerCalls
from sparecode_node.replication.errors import (
    MalformedCallError,
    OutcomeUnknownError,
    ProposeError,
    StoppingError,
)
from sparecode_node.replication.links.hello import HELLO, hello_in
from sparecode_node.replication.links.key_exchange import KeyCalls, KeyExchange
from sparecode_node.replication.links.known_peers import NOT_A_MEMBER, KnownPeers
from sparecode_node.replication.links.member_keys import key_shown
from sparecode_node.replication.links.refusal_log import RefusalLog
from sparecode_node.replication.links.segment_exchange import (
    SegmentCalls,
    SegmentExchange,
)
from sparecode_node.replication.links.tls import caller
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.replica import Replica

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

NO_LINK = "this member has no link to the called node yet"

LINK_S = 2.0
"""
Maximum wait for the link of a calling member to begin.

After a start, calls and the link wait for the same channel, and a call may arrive
first. A link that ended begins again after 0.1 s.
"""


@dataclass(frozen=True, slots=True)
class _Inbound:
    """The link of a node to this one, and what it showed at its beginning."""

    reading: asyncio.Task[bool]
    hello: Hello
    key: str
    """The fingerprint of the key in its certificate."""


class PeerServicer(KeyCalls, SegmentCalls, peers_pb2_grpc.PeerServiceServicer):
    """The called side: checks the caller, and cuts off links that a newer one replaces."""

    def __init__(
        self,
        engine: EngineThread,
        calls: PeerCalls,
        peers: KnownPeers,
        keys: KeyExchange,
        segments: SegmentExchange,
        *,
        level: int,
    ) -> None:
        self._level = level
        self._keys = keys
        self._segments = segments
        self._engine = engine
        self._calls = calls
        self._peers = peers
        self._refusals = RefusalLog(log, lambda: asyncio.get_running_loop().time())
        self._inbound: dict[NodeId, _Inbound] = {}
        self._next_link = asyncio.Event()
        """Set when the next link begins, and then replaced by another event."""

    async def _certified(self, context: Context) -> NodeId:
        peer = caller(context.auth_context())
        if peer is None or peer == self._peers.node_id:
            await self._refuse(context, str(peer), NOT_A_MEMBER)
        # For every call: a member may have another key since its connection began.
        if not self._peers.shows_its_key(peer, key_shown(context.auth_context())):
            await self._refuse(context, peer, Refusal.ANOTHER_KEY.value)
        return peer

    async def _caller(self, context: Context) -> NodeId:
        """
        Return the calling member, whose journal is the known one.

        It has shown its journal when its link began. A wiped or removed node has no
        link. A member has one again after a moment, so the call waits for it.
        """
        peer = await self._member(context)
        if peer in self._inbound:
            return peer
        await self._wait_for_link(peer, context.time_remaining())
        peer = await self._member(context)  # Its membership may have changed.
        if peer not in self._inbound:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, NO_LINK)
        return peer

    async def _wait_for_link(self, peer: NodeId, left_s: float | None) -> None:
        """
        Return when a node has a link to this one, or after `LINK_S`.

        *left_s* is the time until the deadline of the call. Half of it is left for the
        answer: after a refusal the caller knows that nothing was done.
        """
        wait_s = LINK_S if left_s is None else min(LINK_S, left_s / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while peer not in self._inbound:
                    await self._next_link.wait()

    async def _member(self, context: Context) -> NodeId:
        """Return the calling member, which need not have a link yet."""
        peer = await self._certified(context)
        if not self._peers.knows(peer):
            await self._refuse(context, peer, self._peers.why_unknown(peer))
        await self._refuse_if_linked_no_more(context, peer)
        return peer

    def _is_stranger(self, peer: NodeId) -> bool:
        return not (self._peers.knows(peer) or peer in self._inbound)

    async def _member_or_guest(self, context: Context) -> NodeId:
        """Return the calling node: a member, or a node with a link to this one."""
        peer = await self._certified(context)
        if self._is_stranger(peer):
            await self._refuse(context, peer, self._peers.why_unknown(peer))
        await self._refuse_if_linked_no_more(context, peer)
        await self._refuse_by_hello(context, peer)
        return peer

    async def _refuse_if_linked_no_more(self, context: Context, peer: NodeId) -> None:
        inbound = self._inbound.get(peer)
        why = None if inbound is None else self._peers.refusal(peer, inbound.hello)
        if why is not None:
            await self._refuse(context, peer, why)

    async def _refuse_by_hello(self, context: Context, peer: NodeId) -> None:
        """Refuse as a link would be, a caller that shows what a link would show."""
        shown = hello_in(context.invocation_metadata())
        if shown == peers_pb2.Hello():
            return
        hello = self._peers.check_hello(peer, shown)
        if not isinstance(hello, Hello):
            await self._refuse(context, peer, hello)

    async def _refuse(self, context: Context, peer: str, why: str) -> NoReturn:
        key = key_shown(context.auth_context())
        self._refusals.write(context.peer(), peer, why, key)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)

    async def Link(
        self,
        request_iterator: AsyncIterator[peers_pb2.LinkRequest],
        context: Context,
    ) -> peers_pb2.LinkResponse:
        """Take Raft messages of one peer, until a newer link of it takes over."""
        peer = await self._certified(context)
        hello = self._peers.check_hello(peer, hello_in(context.invocation_metadata()))
        if not isinstance(hello, Hello):
            await self._refuse(context, peer, hello)
        own_hello = await self._judged(peer, hello, context)
        await context.send_initial_metadata(
            (
                (HELLO, self._peers.own_hello(own_hello)),
                (levels.METADATA, str(self._level)),
            )
        )
        if why := self._peers.refusal(peer, hello):  # It may be new since the greeting.
            await self._refuse(context, peer, why)
        key = key_shown(context.auth_context())
        if not self._peers.shows_its_key(peer, key):
            await self._refuse(context, peer, Refusal.ANOTHER_KEY.value)
        reading = asyncio.create_task(self._read(peer, hello, request_iterator))
        # From here on no message of an older link is delivered.
        if older := self._inbound.get(peer):
            older.reading.cancel()
        inbound = self._inbound[peer] = _Inbound(reading, hello, key)
        self._next_link.set()
        self._next_link = asyncio.Event()
        self._peers.link_began(peer, hello)
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            if self._inbound.get(peer) is inbound:
                del self._inbound[peer]
                self._peers.link_ended(peer)
        if reading.cancelled():
            await context.abort(grpc.StatusCode.ABORTED, "a newer link took over")
        if not reading.result():
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the engine lags behind"
            )
        return peers_pb2.LinkResponse()

    async def _judged(self, peer: NodeId, hello: Hello, context: Context) -> Hello:
        """
        Return what this node shows, if *peer* has kept its promises.

        The engine's thread knows them. What it returns is newer than every message on
        an earlier link.
        """

        def judge(replica: Replica) -> Refusal | Hello:
            return replica.refusal_of_link(peer, hello) or replica.hello()

        try:
            judgement = await self._engine.run(judge, timeout_s=LINK_S)
        except ProposeError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        if isinstance(judgement, Refusal):
            await self._refuse(context, peer, judgement.value)
        return judgement

    def close_refused(self) -> None:
        """End the links of nodes that are refused by now."""
        for peer, inbound in self._inbound.items():
            if self._peers.refusal(
                peer, inbound.hello
            ) or not self._peers.shows_its_key(peer, inbound.key):
                inbound.reading.cancel()

    async def _read(
        self,
        peer: NodeId,
        hello: Hello,
        requests: AsyncIterator[peers_pb2.LinkRequest],
    ) -> bool:
        """Deliver messages; return False if the engine cannot take them."""
        async for request in requests:
            if not self._deliver(peer, hello, request):
                return False
        return True

    def _deliver(
        self, peer: NodeId, hello: Hello, request: peers_pb2.LinkRequest
    ) -> bool:
        try:
            message = frames.decode(request)
        except frames.FrameError as error:
            log.warning("frame_dropped", extra={"peer": peer, "cause": str(error)})
            return True
        if not self._engine.has_room():
            return False
        self._engine.post(lambda replica: replica.guard.receive(peer, message, hello))
        return True

    async def Forward(
        self, request: peers_pb2.ForwardRequest, context: Context
    ) -> peers_pb2.ForwardResponse:
        """Propose a call for another member."""
        peer = await self._caller(context)
        try:
            return await self._calls.forward(peer, request)
        except MalformedCallError as error:
            log.warning("call_refused", extra={"peer": peer, "cause": str(error)})
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "malformed call")

    async def GetReadIndex(
        self, request: peers_pb2.GetReadIndexRequest, context: Context
    ) -> peers_pb2.GetReadIndexResponse:
        """Return the index to read at, for another member."""
        peer = await self._caller(context)
        hello = self._inbound[peer].hello
        return await self._calls.read_index(peer, hello, request)

    async def FetchSnapshot(
        self, request: peers_pb2.FetchSnapshotRequest, context: Context
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """Send the newest snapshot, or the part that the caller lacks."""
        peer = await self._caller(context)
        try:
            async for part in self._calls.snapshots.send(peer, request):
                yield part
        except (ProposeError, OSError) as error:
            # There is no snapshot yet, or a newer one has replaced it.
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def TransferPrimary(
        self, request: peers_pb2.TransferPrimaryRequest, context: Context
    ) -> peers_pb2.TransferPrimaryResponse:
        """
        Hand over on another member's request.

        If the engine is held up, the outcome is unknown, as after each call that fails.
        """
        await self._caller(context)
        try:
            return await self._calls.changes.answer_transfer(request)
        except OutcomeUnknownError as error:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))

    async def ChangeMembers(
        self, request: peers_pb2.ChangeMembersRequest, context: Context
    ) -> peers_pb2.ChangeMembersResponse:
        """Change the members on another member's request."""
        await self._caller(context)
        return await self._calls.changes.answer_change(request)

    async def Ping(
        self,
        request: peers_pb2.PingRequest,  # noqa: ARG002  It has no fields.
        context: Context,
    ) -> peers_pb2.PingResponse:
        """Answer at once: the caller learns that its connection carries bytes."""
        peer = await self._certified(context)
        if self._is_stranger(peer):
            # Without a line in the log: its link gets one.
            why = self._peers.why_unknown(peer)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        return peers_pb2.PingResponse()

    async def GetMemberStatus(
        self, request: peers_pb2.GetMemberStatusRequest, context: Context
    ) -> peers_pb2.GetMemberStatusResponse:
        """Return this member's status, also to a member that does not run (E2)."""
        await self._member_or_guest(context)
        try:
            return await self._calls.member_status(request)
        except StoppingError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
