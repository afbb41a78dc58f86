# SPDX-License-Identifier: Apache-2.0
"""
Members talking to each other over gRPC with mutual TLS: `PeerService`.

Raft's messages come and go through links; calls for the primary and questions
for a member's status are ordinary calls over the same channels.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication import frames, levels
from sparecode_node.replication.engine_thread import EngineThread, LoopCalls
from sparecode_node.replication.entrance import Doors, Entrance
from sparecode_node.replication.errors import NoPrimaryError, StartRefusedError
from sparecode_node.replication.forwarding import MalformedCallError
from sparecode_node.replication.frames import Message
from sparecode_node.replication.links import OutboundLink
from sparecode_node.replication.replica import Replica
from sparecode_node.replication.tls import (
    PeerTls,
    caller,
    renewable_credentials,
    target_name,
)
from sparecode_node.statemachine.feature_level import NEWEST

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 1024 * 1024
"""Of one gRPC message between members; four times the entries of an append."""

STOP_GRACE_S = 0.5

RENEW_S = 2.0
"""For a new connection to stand, and for calls on the old one to end."""

_SIZES = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)
_CHANNEL_OPTIONS = (
    *_SIZES,
    # gRPC's default waits up to two minutes; an election takes one second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A peer that has vanished without a word is noticed within four seconds.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
_SERVER_OPTIONS = (
    *_SIZES,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddresses:
    """Where this member listens, and where all of them are reached."""

    node_id: NodeId
    listen: str
    members: Mapping[NodeId, str]
    entrance: Entrance | None = None
    """For nodes that are about to join; none: only members are let in."""

    @property
    def others(self) -> Mapping[NodeId, str]:
        """The members but this one."""
        return {m: a for m, a in self.members.items() if m != self.node_id}


class PeerHandler(Protocol):
    """What answers the calls of other members."""

    async def forwarded(
        self, caller: NodeId, request: peers_pb2.ForwardRequest
    ) -> peers_pb2.ForwardResponse:
        """Propose a call that another member was asked for."""

    async def read_index(
        self, request: peers_pb2.GetReadIndexRequest
    ) -> peers_pb2.GetReadIndexResponse:
        """Say where to read, if this member leads."""

    def send_snapshot(
        self, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """Yield the newest snapshot."""

    async def handed_over(
        self, request: peers_pb2.TransferPrimaryRequest
    ) -> peers_pb2.TransferPrimaryResponse:
        """Hand over to another member, if this one leads."""

    async def member_status(
        self, request: peers_pb2.GetMemberStatusRequest
    ) -> peers_pb2.GetMemberStatusResponse:
        """Say how far this member has got."""


class EngineWire:
    """The engine's side of the links: runs in its thread."""

    def __init__(
        self,
        calls: LoopCalls,
        send: Callable[[NodeId, int, peers_pb2.LinkRequest], object],
    ) -> None:
        self._calls = calls
        self._send = send
        self.epochs: dict[str, int] = {}
        """The link to each peer that the engine believes to be up."""

    def send(self, peer: str, message: Message) -> None:
        """Hand a frame to the link that is up, as far as the engine knows."""
        epoch = self.epochs.get(peer)
        if epoch is not None:
            frame = frames.encode(message)
            self._calls.post(lambda: self._send(NodeId(peer), epoch, frame))


def dial(peer: NodeId, address: str, tls: PeerTls) -> grpc.aio.Channel:
    """Open a channel to a member, that nobody else can answer."""
    name = ("grpc.ssl_target_name_override", target_name(peer))
    return grpc.aio.secure_channel(
        address, tls.channel_credentials(), options=(*_CHANNEL_OPTIONS, name)
    )


class PeerTransport:
    """The listener for members, and the links to them. Lives in the loop."""

    def __init__(
        self, addresses: PeerAddresses, tls: PeerTls, *, level: int = NEWEST
    ) -> None:
        """*level* is what this member tells the others that it knows."""
        self._addresses = addresses
        self._level = level
        self._tls = tls
        self._engine: EngineThread | None = None
        self._wire: EngineWire | None = None
        self._server: grpc.aio.Server | None = None
        self._channels: dict[NodeId, grpc.aio.Channel] = {}
        self._links: dict[NodeId, OutboundLink] = {}
        self.levels: dict[NodeId, int] = {}
        """The feature level of every member that this one has a link to."""
        self.port = 0
        """Where the listener is bound, once it is."""

    def wire(self, calls: LoopCalls) -> EngineWire:
        """Return what the engine sends through; called in its thread, once."""
        self._wire = EngineWire(calls, self._send)
        return self._wire

    def _send(self, peer: NodeId, epoch: int, frame: peers_pb2.LinkRequest) -> None:
        if link := self._links.get(peer):
            link.send(epoch, frame)

    async def start(self, engine: EngineThread, handler: PeerHandler) -> None:
        """Listen, and dial the others. The engine runs already."""
        self._engine = engine
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)
        servicer = PeerServicer(self._addresses, engine, handler, level=self._level)
        peers_pb2_grpc.add_PeerServiceServicer_to_server(servicer, self._server)
        shown: Callable[[], PeerTls] = lambda: self._tls  # noqa: E731
        if (entrance := self._addresses.entrance) is not None:
            entrance.add_to(self._server)
            shown = Doors(shown, entrance.doors)
        try:
            self.port = self._server.add_secure_port(
                self._addresses.listen, renewable_credentials(shown)
            )
        except RuntimeError as error:
            raise StartRefusedError(
                f"cannot listen for members on {self._addresses.listen}: {error}"
            ) from error
        await self._server.start()
        for peer in self._addresses.others:
            self._channels[peer] = self._dial(peer)
            self._link(peer, epoch=0)

    def _dial(self, peer: NodeId) -> grpc.aio.Channel:
        return dial(peer, self._addresses.members[peer], self._tls)

    def _link(self, peer: NodeId, *, epoch: int) -> None:
        """Open the link over the channel; *epoch*: that of the link before it."""
        link = OutboundLink(
            peer,
            self._channels[peer],
            on_up=self._up,
            on_down=self._down,
            epoch=epoch,
        )
        self._links[peer] = link
        link.start()

    async def renew(self, tls: PeerTls) -> None:
        """
        Show another certificate from now on, as server and as client.

        A channel cannot take another one, so each is replaced when its successor
        stands: one member after the other, and calls under way end on the old one.
        """
        self._tls = tls
        for peer in tuple(self._links):
            old, channel = self._channels[peer], self._dial(peer)
            with contextlib.suppress(TimeoutError):  # It is down: dial on.
                async with asyncio.timeout(RENEW_S):
                    await channel.channel_ready()
            link = self._links[peer]
            self._channels[peer] = channel
            await link.stop()
            self._link(peer, epoch=link.epoch)
            await old.close(RENEW_S)

    async def stop(self) -> None:
        """Close the links and the listener."""
        for link in self._links.values():
            await link.stop()
        for channel in self._channels.values():
            await channel.close()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        self._links.clear()
        self._channels.clear()
        self._server = None

    def channel(self, peer: NodeId) -> grpc.aio.Channel | None:
        """Return the channel to another member."""
        return self._channels.get(peer)

    def _up(self, peer: NodeId, epoch: int, level: int) -> None:
        self.levels[peer] = level
        wire = self._wire
        if self._engine is None or wire is None:
            return

        def up(replica: Replica) -> None:
            wire.epochs[peer] = epoch
            replica.guard.connected(peer)

        self._engine.post(up)

    def _down(self, peer: NodeId) -> None:
        self.levels.pop(peer, None)
        wire = self._wire
        if self._engine is None or wire is None:
            return

        def down(replica: Replica) -> None:
            wire.epochs.pop(peer, None)
            replica.guard.disconnected(peer)

        self._engine.post(down)


class PeerServicer(peers_pb2_grpc.PeerServiceServicer):
    """The called side: checks who calls, and fences off links that are superseded."""

    def __init__(
        self,
        addresses: PeerAddresses,
        engine: EngineThread,
        handler: PeerHandler,
        *,
        level: int,
    ) -> None:
        self._addresses = addresses
        self._level = level
        self._engine = engine
        self._handler = handler
        self._inbound: dict[NodeId, asyncio.Task[bool]] = {}

    async def _caller(self, context: Context) -> NodeId:
        peer = caller(context.auth_context())
        if peer is None or peer not in self._addresses.others:
            log.warning("stranger_refused", extra={"peer": context.peer()})
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not a member")
        return peer

    async def Link(
        self,
        request_iterator: AsyncIterator[peers_pb2.LinkRequest],
        context: Context,
    ) -> peers_pb2.LinkResponse:
        """Take Raft messages of one peer, until a newer link of it takes over."""
        peer = await self._caller(context)
        await context.send_initial_metadata(((levels.METADATA, str(self._level)),))
        reading = asyncio.create_task(self._read(peer, request_iterator))
        # From here on nothing of an older link is delivered.
        if older := self._inbound.get(peer):
            older.cancel()
        self._inbound[peer] = reading
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            if self._inbound.get(peer) is reading:
                del self._inbound[peer]
        if reading.cancelled():
            await context.abort(grpc.StatusCode.ABORTED, "a newer link took over")
        if not reading.result():
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the engine lags behind"
            )
        return peers_pb2.LinkResponse()

    async def _read(
        self, peer: NodeId, requests: AsyncIterator[peers_pb2.LinkRequest]
    ) -> bool:
        """Deliver what comes; False if the engine cannot take it."""
        async for request in requests:
            if not self._deliver(peer, request):
                return False
        return True

    def _deliver(self, peer: NodeId, request: peers_pb2.LinkRequest) -> bool:
        try:
            message = frames.decode(request)
        except frames.FrameError as error:
            log.warning("frame_dropped", extra={"peer": peer, "cause": str(error)})
            return True
        if not self._engine.has_room():
            return False
        self._engine.post(lambda replica: replica.guard.receive(peer, message))
        return True

    async def Forward(
        self, request: peers_pb2.ForwardRequest, context: Context
    ) -> peers_pb2.ForwardResponse:
        """Propose a call for another member."""
        peer = await self._caller(context)
        try:
            return await self._handler.forwarded(peer, request)
        except MalformedCallError as error:
            log.warning("call_refused", extra={"peer": peer, "cause": str(error)})
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "malformed call")

    async def GetReadIndex(
        self, request: peers_pb2.GetReadIndexRequest, context: Context
    ) -> peers_pb2.GetReadIndexResponse:
        """Tell another member where to read."""
        await self._caller(context)
        return await self._handler.read_index(request)

    async def FetchSnapshot(
        self, request: peers_pb2.FetchSnapshotRequest, context: Context
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """Send the newest snapshot, from where the caller has it."""
        await self._caller(context)
        try:
            async for part in self._handler.send_snapshot(request):
                yield part
        except (NoPrimaryError, OSError) as error:
            # There is none yet, or a newer one has taken its place.
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def TransferPrimary(
        self, request: peers_pb2.TransferPrimaryRequest, context: Context
    ) -> peers_pb2.TransferPrimaryResponse:
        """Hand over for another member."""
        await self._caller(context)
        return await self._handler.handed_over(request)

    async def GetMemberStatus(
        self, request: peers_pb2.GetMemberStatusRequest, context: Context
    ) -> peers_pb2.GetMemberStatusResponse:
        """Tell how far this member has got."""
        await self._caller(context)
        return await self._handler.member_status(request)
