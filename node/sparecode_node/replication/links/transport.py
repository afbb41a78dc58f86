# SPDX-License-Identifier: Apache-2.0
"""
Members talking to each other over gRPC with mutual TLS: `PeerService`.

Raft's messages travel through links. Calls for the primary and requests for a member's
status are ordinary calls over the same channels.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.calls.peer_calls import PeerCalls
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.links.decoding import Decoding
from sparecode_node.replication.links.grpc_server import new_server
from sparecode_node.replication.links.hello import Introduction
from sparecode_node.replication.links.joiner_certificates import (
    JoinerService,
    ListenerCertificates,
)
from sparecode_node.replication.links.key_exchange import KeyExchange
from sparecode_node.replication.links.known_peers import KnownPeers
from sparecode_node.replication.links.limits import (
    AGES,
    CALLS_MAX,
    MEMBERS,
    STREAMS_MAX,
    listener_options,
    waiting_options,
)
from sparecode_node.replication.links.liveness import LinkWatch
from sparecode_node.replication.links.member_keys import MemberKeys
from sparecode_node.replication.links.outbound import OutboundLink
from sparecode_node.replication.links.peer_service import PeerServicer
from sparecode_node.replication.links.segment_exchange import (
    NoSegments,
    SegmentExchange,
)
from sparecode_node.replication.links.tls import (
    PeerTls,
    renewable_credentials,
    target_name,
)
from sparecode_node.replication.members import Member
from sparecode_node.replication.owned_tasks import OnFailed, run_owned
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Refusal, explained
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.replica.engine_thread import EngineThread, LoopCalls
from sparecode_node.replication.replica.replica import Replica, ReplicaStatus
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.feature_level import NEWEST

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 1024 * 1024
"""Of one gRPC message between members; four times the entries of an append."""

STOP_GRACE_S = 0.5

START_S = 60.0
"""For the engine to tell the members at start."""

DEFAULTS = RaftSettings()

HELLO_S = 5.0
"""For the engine to tell what to show when a link begins."""

REFRESH_S = 20 * 60.0
"""
Between two handshakes with each member: before the called member ends the connection.

So links and calls move to the next connection one member after the other.
"""

RENEW_S = 2.0
"""For a new connection to be ready, and for calls on the old one to end."""

_SIZES = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)
_KEEPALIVE = (
    # gRPC notices a peer that vanished without closing within four seconds, at both
    # ends. `LinkWatch` is faster, but runs only at the end that has dialed.
    ("grpc.keepalive_time_ms", 2000),
    # For bytes that TCP does not acknowledge (TCP_USER_TIMEOUT).
    ("grpc.keepalive_timeout_ms", 2000),
    # For bytes that TCP does acknowledge: gRPC 1.85 waits for the answer to a ping as
    # long as this says, a minute by default, and not for the keepalive timeout.
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CHANNEL_OPTIONS = (
    *_SIZES,
    # gRPC's default waits up to two minutes; an election takes one second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    *_KEEPALIVE,
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
_SERVER_OPTIONS = (
    *_SIZES,
    *_KEEPALIVE,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddresses:
    """Where this member listens, and the members at its first start."""

    node_id: NodeId
    listen: str
    members: Mapping[NodeId, str]
    """The addresses of all members, this one too; later the journal has them."""
    joins: bool = False
    """Whether this node joins an existing cluster, as a learner."""
    joiner_service: JoinerService | None = None
    """Serves nodes that are about to join; None: only members are let in."""

    def written(self) -> tuple[Member, ...]:
        """Return the members of the first start."""
        return tuple(Member(node_id=m, address=a) for m, a in self.members.items())


def dial(peer: NodeId, address: str, tls: PeerTls) -> grpc.aio.Channel:
    """Open a channel to a member that no other node can answer."""
    name = ("grpc.ssl_target_name_override", target_name(peer))
    return grpc.aio.secure_channel(
        address, tls.channel_credentials(), options=(*_CHANNEL_OPTIONS, name)
    )


class EngineWire:
    """The engine's end of the links. Its methods run in the engine's thread."""

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
        """Send a message over the link that the engine believes to be up, if any."""
        epoch = self.epochs.get(peer)
        if epoch is not None:
            frame = frames.encode(message)
            self._calls.post(lambda: self._send(NodeId(peer), epoch, frame))


class PeerTransport:
    """The listener for members, and the links to them. Lives in the loop."""

    def __init__(  # noqa: PLR0913 - one argument per collaborator.
        self,
        addresses: PeerAddresses,
        tls: PeerTls,
        cluster_id: str,
        keys: KeyExchange,
        *,
        level: int = NEWEST,
        on_malformed: Callable[[str, str], object] = lambda *_: None,
        member_keys: MemberKeys | None = None,
        patience_s: float = DEFAULTS.election_min_s,
        on_failed: OnFailed = lambda _: None,
    ) -> None:
        """
        *level* is the feature level that this member tells the others.

        *on_malformed* is called with the method and the peer of a call whose message
        does not decode.

        *member_keys*: the keys that members must show (P5a); None: any.

        Another connection to a member is opened if one does not answer for *patience_s*.

        *on_failed* gets the reason to stop the node: a task of the links has failed, and
        without it members would no longer be reached.
        """
        self._addresses = addresses
        self._level = level
        self._on_malformed = on_malformed
        self._member_keys = member_keys or MemberKeys()
        self._peers = KnownPeers(addresses.node_id, cluster_id, self._member_keys)
        self._dialed: dict[NodeId, str] = {}
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.refusals: Mapping[NodeId, str] = {}
        """
        The nodes that refuse this one as a member. Replaced, never changed: other
        threads read it.
        """
        self._tls = tls
        self._keys = keys
        keys.connect(channel=self.channel, others=self._peers.other_voters)
        self._segments = SegmentExchange(NoSegments())
        # Set at the start, before there is a link.
        self._engine: EngineThread
        self._wire: EngineWire
        self._servicer: PeerServicer
        self._server: grpc.aio.Server | None = None
        self._channels: dict[NodeId, grpc.aio.Channel] = {}
        self._links: dict[NodeId, OutboundLink] = {}
        self._patience_s = patience_s
        self._on_failed = on_failed
        self._watches: dict[NodeId, asyncio.Task[None]] = {}
        self.levels: dict[NodeId, int] = {}
        """The feature level of every member that this one has a link to."""
        self._epochs: dict[NodeId, int] = {}
        """
        Of links that were ended, so that a later link is not mistaken for one of them.
        """
        self.port = 0
        """The port of the listener, once it is bound."""

    def lend(self, segments: SegmentExchange) -> None:
        """Exchange sealed audit events with the other members, before the start."""
        self._segments = segments
        segments.connect(channel=self.channel, others=self._peers.other_voters)

    def wire(self, calls: LoopCalls) -> EngineWire:
        """Return what the engine sends through; called in its thread, once."""
        self._wire = EngineWire(calls, self._send)
        return self._wire

    def _send(self, peer: NodeId, epoch: int, frame: peers_pb2.LinkRequest) -> None:
        if link := self._links.get(peer):
            link.send(epoch, frame)

    async def start(self, engine: EngineThread, calls: PeerCalls) -> None:
        """Listen, and dial the others. The engine runs already."""
        self._engine = engine
        loop = asyncio.get_running_loop()
        # Links of nodes whose key is not the recorded one any more end.
        self._member_keys.on_change = lambda: loop.call_soon_threadsafe(
            self._peers.changed.set
        )
        self.take_status(
            await engine.run(lambda replica: replica.status(), timeout_s=START_S)
        )
        streams = ("grpc.max_concurrent_streams", STREAMS_MAX)
        options = (
            *_SERVER_OPTIONS,
            *listener_options(MEMBERS),
            *AGES,
            *waiting_options(CALLS_MAX),
            streams,
        )
        self._server = new_server(
            interceptors=[Decoding(self._on_malformed)],
            options=options,
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        self._servicer = PeerServicer(
            engine,
            calls,
            self._peers,
            self._keys,
            self._segments,
            level=self._level,
        )
        peers_pb2_grpc.add_PeerServiceServicer_to_server(self._servicer, self._server)
        current: Callable[[], PeerTls] = lambda: self._tls  # noqa: E731
        if (joiner_service := self._addresses.joiner_service) is not None:
            joiner_service.add_to(self._server)
            current = ListenerCertificates(current, joiner_service.certificates_pem)
        try:
            self.port = self._server.add_secure_port(
                self._addresses.listen, renewable_credentials(current)
            )
        except RuntimeError as error:
            raise StartRefusedError(
                f"cannot listen for members on {self._addresses.listen}: {error}"
            ) from error
        await self._server.start()
        await self._dial_all()
        self._tasks = [
            run_owned(self._follow(), "members", self._on_failed),
            run_owned(self._refresh(), "new connections", self._on_failed),
        ]

    def take_status(self, status: ReplicaStatus) -> None:
        """Take a new status of the replica: the members may have changed."""
        self._peers.take_status(status)

    async def _follow(self) -> None:
        while True:
            await self._peers.changed.wait()
            self._peers.changed.clear()
            await self._dial_all()

    async def _dial_all(self) -> None:
        """Link to every member and guest, at its current address, and to no other node."""
        async with self._changing:
            wanted = self._peers.addresses()
            for peer in tuple(self._links):
                if wanted.get(peer) != self._dialed[peer]:
                    await self._hang_up(peer)
            self._servicer.close_refused()
            for peer, address in wanted.items():
                if peer not in self._links and address:
                    self._dialed[peer] = address
                    self._channels[peer] = self._dial(peer)
                    self._link(peer, epoch=self._epochs.get(peer, 0))
                    self._watch(peer)

    async def _hang_up(self, peer: NodeId) -> None:
        await _end([self._watches.pop(peer)])
        link, channel = self._links.pop(peer), self._channels.pop(peer)
        # A later link must not be mistaken for this one.
        self._epochs[peer] = link.epoch + 1
        self._forget_refusal(peer)
        await link.stop()
        await channel.close()

    def _dial(self, peer: NodeId) -> grpc.aio.Channel:
        return dial(peer, self._dialed[peer], self._tls)

    def _link(self, peer: NodeId, *, epoch: int) -> None:
        """Open the link over the channel; *epoch* is that of the previous link."""
        link = OutboundLink(
            peer,
            self._channels[peer],
            on_up=self._up,
            hello=self._own_hello,
            on_down=self._down,
            on_refused=self._take_refusal,
            epoch=epoch,
        )
        self._links[peer] = link
        link.start()

    def _watch(self, peer: NodeId) -> None:
        """Notice from now on when the current connection carries nothing any more."""
        watch = LinkWatch(
            peer=peer,
            channel=lambda: self._channels[peer],
            dial=lambda: self._dial(peer),
            replace=lambda dead, other: self._replace(peer, dead, other),
            patience_s=self._patience_s,
        )
        self._watches[peer] = run_owned(
            watch.run(), f"watch of {peer}", self._on_failed
        )

    async def _replace(
        self, peer: NodeId, dead: grpc.aio.Channel, other: grpc.aio.Channel
    ) -> bool:
        """Link over another channel; return False if there is one already."""
        async with self._changing:
            if self._channels[peer] is not dead:
                return False
            link = self._links[peer]
            self._channels[peer] = other
            await link.stop()
            self._link(peer, epoch=link.epoch)
        # At once: no call on it can be answered.
        await dead.close()
        return True

    async def _own_hello(self) -> bytes:
        """Return what this node shows now. Raises `ProposeError`."""
        hello = await self._engine.run(
            lambda replica: replica.hello(), timeout_s=HELLO_S
        )
        return self._peers.own_hello(hello)

    async def renew(self, tls: PeerTls) -> None:
        """
        Show another certificate from now on, as server and as client.

        A channel cannot change its certificate, so each one is replaced when its
        successor is ready: one member after the other, while calls in progress end on
        the old channel.
        """
        self._tls = tls
        async with self._changing:
            await self._renew_all()

    async def _refresh(self) -> None:
        """Reach every member over a new connection from time to time."""
        while True:
            await asyncio.sleep(REFRESH_S)
            async with self._changing:
                await self._renew_all()

    async def _renew_all(self) -> None:
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
        self._member_keys.on_change = (
            None  # The loop may end before the engine's thread.
        )
        await _end(self._tasks)
        await _end(self._watches.values())
        self._watches.clear()
        for link in self._links.values():
            await link.stop()
        for channel in self._channels.values():
            await channel.close()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        self._links.clear()
        self._channels.clear()
        self._server = None

    @property
    def authorities(self) -> bytes:
        """The members' authorities that this node trusts now, PEM. Safe in any thread."""
        return self._tls.ca

    def channel(self, peer: NodeId) -> grpc.aio.Channel | None:
        """Return the channel to another member."""
        return self._channels.get(peer)

    def _take_refusal(self, peer: NodeId, why: str) -> None:
        """
        Log, once, that another member refuses this node.

        A guest is not believed: a node that was never admitted could stop all members.
        """
        if not self._peers.knows(peer):
            return
        if why == Refusal.ROLLED_BACK:
            self._engine.post(lambda replica: replica.hear_nothing(peer))
        if self.refusals.get(peer) == why:
            return
        self.refusals = {**self.refusals, peer: why}
        log.error("refused_as_member", extra={"peer": peer, "cause": explained(why)})

    def _forget_refusal(self, peer: NodeId) -> None:
        """Forget that a node has refused this one. A removal is for good."""
        if self.refusals.get(peer) not in (None, Refusal.REMOVED):
            self.refusals = {p: w for p, w in self.refusals.items() if p != peer}

    def _up(self, peer: NodeId, epoch: int, introduction: Introduction) -> None:
        self.levels[peer] = introduction.level
        self._forget_refusal(peer)
        wire = self._wire

        def up(replica: Replica) -> None:
            refusal = replica.guard.connected(peer, introduction.hello)
            if refusal not in (Refusal.ROLLED_BACK, Refusal.OTHER_STATE):
                wire.epochs[peer] = epoch

        self._engine.post(up)

    def _down(self, peer: NodeId) -> None:
        self.levels.pop(peer, None)
        wire = self._wire

        def down(replica: Replica) -> None:
            wire.epochs.pop(peer, None)
            replica.guard.disconnected(peer)

        self._engine.post(down)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
