# SPDX-License-Identifier: Apache-2.0
"""
RADIUS over TLS (RadSec, RFC 6614): the same requests, on connections of agents.

A certificate of the agents' authority names the agent, as over gRPC. TLS protects the
packets, so the shared secret is a constant (RFC 6614, 2.3), and a request needs no
Message-Authenticator. A connection ends when its certificate is denied or expires, and
when its agent is not registered.
"""

import asyncio
import datetime as dt
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.radius import packets
from sparecode_node.radius.exchange import Exchange
from sparecode_node.radius.listener import RadiusListenError
from sparecode_node.radius.packets import DroppedError
from sparecode_node.radius.request_ids import Source
from sparecode_node.replication.links.limits import RADSEC_AGENTS, most_open
from sparecode_node.services.access.agent_certificates import read_certificate
from sparecode_node.services.access.packet_counts import UNKNOWN
from sparecode_node.services.access.security_log import (
    CALL_REFUSED,
    SecurityLog,
)
from sparecode_node.services.ambient import Clock
from sparecode_node.services.errors import UnidentifiedError
from sparecode_node.services.people.radius_clients import (
    AgentStanding,
    RadiusClient,
    RadiusClients,
)
from sparecode_node.web.connections import Acceptor, Tracked

log = logging.getLogger(__name__)

SECRET: Final = b"radsec"
"""RFC 6614, 2.3."""
SETTINGS: Final = RadiusSettings(networks=())
"""Of all agents that are known by a certificate."""
REFRESH_S = 0.5
"""How soon a connection ends after its certificate is denied. Apply checks it at once."""
HANDSHAKE_S = 10.0
OF_AGENT_MAX = 32
"""Connections with one identity. One certificate alone cannot take every place."""
UNKNOWN_CHECKS_MAX = 10
"""
Checks, `REFRESH_S` apart, that find no agent until the connection ends: this node may
have not applied the registration yet.
"""
OUTSTANDING_MAX = 64
"""Requests of one connection in progress; the others wait in its buffers."""
WRITE_BYTES_MAX = 64 * 1024
"""Answers that a client has not read; then its further requests wait."""
BACKLOG = 128
LENGTH_END = 4
"""Where the length of a packet ends in it (RFC 2865, 3)."""


class RadsecListener:
    """Accepts connections of agents. `start` once, `run`, and `stop` once."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Callable[[], ssl.SSLContext],
        clients: RadiusClients,
        exchange: Exchange,
        security_log: SecurityLog,
        clock: Clock,
    ) -> None:
        """*tls*: called at the start, and at each `renew`."""
        self._address = host, port
        self._port = 0
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._clients = clients
        self.exchange = exchange
        self.security_log = security_log
        self.clock = clock
        self._connections: set[Connection] = set()
        self._checks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self._acceptors: list[Acceptor] = []

    @property
    def port(self) -> int:
        """The port of the listener, once it has started."""
        return self._port

    async def start(self) -> None:
        """Open the sockets. Raises `RadiusListenError`."""
        self.renew()
        host, port = self._address
        free = asyncio.Semaphore(most_open(RADSEC_AGENTS))
        try:
            self._sockets = await _bound_sockets(host, port)
        except OSError as error:
            raise RadiusListenError(
                f"[radsec] listen: {host}:{port} cannot be opened: {error.strerror}"
            ) from error
        self._port = self._sockets[0].getsockname()[1]
        self._acceptors = [
            Acceptor(
                each,
                name="radsec",
                connect=lambda: Connection(self),
                context=self._current,
                handshake_s=HANDSHAKE_S,
                free=free,
                on_failed=self._handshake_failed,
            )
            for each in self._sockets
        ]
        log.info("listening", extra={"listener": "radsec", "port": self._port})

    def renew(self) -> None:
        """Use the certificates that are now in the files for new connections."""
        self._context = self._tls()

    def _current(self) -> ssl.SSLContext:
        if self._context is None:
            raise ValueError("the listener has not started")
        return self._context

    def _handshake_failed(self, error: OSError) -> None:
        self.security_log.handshake_failed("radsec", error)

    async def run(self) -> None:
        """End the connections of denied certificates, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            for connection in [*self._connections]:
                await self.check(connection)

    def leave(self) -> None:
        """Answer no new packet, because the node is about to stop."""
        self.exchange.leave()

    def opened(self, connection: "Connection") -> None:
        """Let a connection begin, unless its agent may not have one (more)."""
        identity = connection.identity
        if sum(each.identity == identity for each in self._connections) >= OF_AGENT_MAX:
            self._refuse(connection, "CONNECTIONS")
            return
        self._connections.add(connection)
        task = asyncio.create_task(self.check(connection))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    async def check(self, connection: "Connection") -> None:
        """End a connection if its certificate is denied, or its agent not registered."""
        standing = await self._clients.standing(
            connection.identity, connection.certificate
        )
        self.exchange.is_open = standing.is_open
        if standing.is_denied:
            connection.deny()
        elif standing.name:
            connection.unknown_checks = 0
            connection.go_on(standing)
        else:
            connection.unknown_checks += 1
            if connection.unknown_checks == UNKNOWN_CHECKS_MAX:
                self._refuse(connection, Reason.AGENT_UNKNOWN.name)

    def _refuse(self, connection: "Connection", reason: str) -> None:
        """End a connection that its agent may not have."""
        self.security_log.note(
            CALL_REFUSED,
            listener="radsec",
            caller=connection.identity,
            peer=connection.host,
            reason=reason,
        )
        connection.close()

    async def stop(self, grace_s: float = 0) -> None:
        """Answer no new request. Close when all in progress are answered."""
        for acceptor in self._acceptors:
            acceptor.close()
        await self.exchange.finish(grace_s)
        for connection in [*self._connections]:
            connection.close()
        await self.exchange.stop()
        for task in [*self._checks]:
            task.cancel()
        for acceptor in self._acceptors:
            await acceptor.wait_closed()
        self._acceptors.clear()
        for each in self._sockets:
            each.close()
        self._sockets.clear()


class Connection(Tracked):
    """The connection of an agent."""

    def __init__(self, listener: RadsecListener) -> None:
        self.ended = asyncio.Event()
        self.certificate: Certificate
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self.identity = AgentIdentity("")
        self.host = ""
        self.unknown_checks = 0
        """Since its agent was last found."""
        self._port = 0
        self._standing: AgentStanding | None = None
        self._unread = bytearray()
        self._outstanding: set[asyncio.Task[None]] = set()
        self._is_writable = True
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing before the certificate is looked up."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        address = transport.get_extra_info("peername")
        tls = transport.get_extra_info("ssl_object")
        try:
            shown = read_certificate(tls.getpeercert(binary_form=True) or b"")
            self.host, self._port = canonical(address[0]), address[1]
        except (UnidentifiedError, TypeError):
            # It names no agent, or the client has gone already.
            self._listener.security_log.note(CALL_REFUSED, listener="radsec")
            self._transport.abort()
            return
        self.identity, self.certificate = shown.identity, shown.marks
        now = dt.datetime.fromtimestamp(self._listener.clock.now_ms() / 1000, dt.UTC)
        self._ending = asyncio.get_running_loop().call_later(
            (shown.ends_at - now).total_seconds(), self.close
        )
        self._listener.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Let requests in progress be decided; their answers go nowhere."""
        if self._ending is not None:
            self._ending.cancel()
        self._listener.closed(self)
        self.ended.set()

    def go_on(self, standing: AgentStanding) -> None:
        """Serve requests: the certificate is not denied."""
        self._standing = standing
        self._take()

    def deny(self) -> None:
        """End the connection: its certificate is denied."""
        log.info("radsec_denied", extra={"agent": self.identity})
        self.close()

    def close(self) -> None:
        """Close the connection after what is written already."""
        if self._transport is not None:
            self._unread.clear()
            self._transport.close()

    def send(self, datagram: bytes) -> None:
        """Send an answer; do nothing if the connection is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(datagram)

    def pause_writing(self) -> None:
        """Take no further request from a client that does not read its answers."""
        self._is_writable = False
        self._take()

    def resume_writing(self) -> None:
        """Take further requests."""
        self._is_writable = True
        self._take()

    def data_received(self, data: bytes) -> None:
        """Take the requests that have arrived."""
        self._unread += data
        self._take()

    def _take(self) -> None:
        """Begin to serve requests, and read more only while there is room for them."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while self._has_room and (packet := self._next()):
            self._receive(packet)
            if transport.is_closing():
                return
        # Neither does anything if it is so already.
        if self._has_room:
            transport.resume_reading()
        else:
            transport.pause_reading()

    @property
    def _has_room(self) -> bool:
        return (
            self._standing is not None
            and self._is_writable
            and len(self._outstanding) < OUTSTANDING_MAX
        )

    def _next(self) -> bytes:
        """Return the next whole packet; empty: it is not there yet, or has no end."""
        if len(self._unread) < LENGTH_END:
            return b""
        length = int.from_bytes(self._unread[LENGTH_END - 2 : LENGTH_END])
        if not packets.HEADER_BYTES <= length <= packets.PACKET_MAX:
            # Where the next packet begins is unknown.
            self._drop("malformed")
            self.close()
            return b""
        if len(self._unread) < length:
            return b""
        packet = bytes(self._unread[:length])
        del self._unread[:length]
        return packet

    def _receive(self, packet: bytes) -> None:
        standing = self._standing
        if standing is None:
            return
        if not standing.is_available:
            self._drop("level")
            return
        try:
            request = packets.read(packet, SETTINGS, (SECRET,), is_protected=True)
            source = Source(
                client=RadiusClient(
                    name=standing.name,
                    identity=self.identity,
                    settings=SETTINGS,
                    secrets=(SECRET,),
                    secret_ids=("",),
                ),
                host=self.host,
                port=self._port,
                certificate=self.certificate,
            )
            task = self._listener.exchange.serve(source, request, self)
        except DroppedError as error:
            self._drop(error.verdict)
            return
        if task is not None:
            self._outstanding.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: "asyncio.Task[None]") -> None:
        self._outstanding.discard(task)
        self._take()

    def _drop(self, verdict: str) -> None:
        name = self._standing.name if self._standing else UNKNOWN
        self._listener.exchange.dropped(name, verdict, self.host)


async def _bound_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of a host name. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in await loop.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.settimeout(0)
            bound.bind(address)
            bound.listen(BACKLOG)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def tls_context(certificate: Path, key: Path, authority: bytes) -> ssl.SSLContext:
    """
    Return the context of a listener that admits clients of an authority (PEM) alone.

    Raises `OSError` and `SSLError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=authority.decode("ascii"))
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would not check the certificate again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context
