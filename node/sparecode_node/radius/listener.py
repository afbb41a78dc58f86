# SPDX-License-Identifier: Apache-2.0
"""The UDP listener of RADIUS: whose packets they are, and whether they must be signed."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.radius import packets
from sparecode_node.radius.exchange import Exchange
from sparecode_node.radius.packets import DroppedError, Request
from sparecode_node.radius.request_ids import Source
from sparecode_node.radius.sources import sources_of
from sparecode_node.services.access.packet_counts import UNKNOWN, PacketCounts
from sparecode_node.services.people.radius_clients import (
    RadiusClient,
    RadiusClients,
    RadiusDirectory,
)

log = logging.getLogger(__name__)

REFRESH_S = 0.5
"""How soon the door knows a new secret or client. Apply checks the agent at once."""

_Address = tuple[str, int] | tuple[str, int, int, int]


class RadiusListenError(Exception):
    """A socket cannot be opened. One line that names the address."""


class RadiusListener:
    """Receives packets on one or more addresses."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        *,
        clients: RadiusClients,
        exchange: Exchange,
        counts: PacketCounts,
    ) -> None:
        self._addresses = addresses
        self._clients = clients
        self.exchange = exchange
        self._counts = counts
        self._directory: RadiusDirectory | None = None
        self._sources = sources_of(())
        self._available = False
        self._was_available: bool | None = None
        self._warned: frozenset[AgentIdentity] = frozenset()
        self._signing: set[AgentIdentity] = set()
        self._transports: list[asyncio.DatagramTransport] = []

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses that the sockets have."""
        return [each.get_extra_info("sockname")[:2] for each in self._transports]

    async def start(self) -> None:
        """Open the sockets. Raises `RadiusListenError`."""
        await self.refresh()
        loop = asyncio.get_running_loop()
        for host, port in self._addresses:
            try:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Protocol(self), sock=await _bound_socket(host, port)
                )
            except OSError as error:
                await self.stop()
                raise RadiusListenError(
                    f"[radius] listen: {host}:{port} cannot be opened: {error.strerror}"
                ) from error
            self._transports.append(transport)

    async def run(self) -> None:
        """Follow the clients in the state, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the clients and their secrets from the state of this node."""
        directory = await self._clients.directory()
        if directory is self._directory:
            return
        self._directory = directory
        self._sources = sources_of(directory.clients)
        self._available = directory.available
        self.exchange.is_open = directory.is_open
        self._counts.keep(frozenset(each.name for each in directory.clients))
        if not directory.available and self._was_available is not False:
            log.warning(
                "radius_waits: RADIUS needs feature level 2, which begins when every "
                "member runs this release"
            )
        self._was_available = directory.available
        self._warn_of_unsigned(directory)

    def _warn_of_unsigned(self, directory: RadiusDirectory) -> None:
        """Log each client that may begin to send unsigned requests."""
        unsigned = {
            each.identity: each
            for each in directory.clients
            if each.settings.allow_unsigned
        }
        for identity, client in unsigned.items():
            if identity not in self._warned:
                log.warning("radius_unsigned_allowed", extra={"agent": client.name})
        self._warned = frozenset(unsigned)
        self._signing &= unsigned.keys()

    def leave(self) -> None:
        """Answer no new packet, because the node is about to stop."""
        self.exchange.leave()

    async def stop(self, grace_s: float = 0) -> None:
        """
        Answer no new packet. Close the sockets when all in progress are answered.

        Give those up that take longer than *grace_s*.
        """
        await self.exchange.finish(grace_s)
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        await self.exchange.stop()

    def received(
        self, datagram: bytes, address: _Address, transport: asyncio.DatagramTransport
    ) -> None:
        """Check a packet, and begin to serve it."""
        host = canonical(address[0])
        client = self._sources.find(host)
        if client is None:
            verdict = "unknown_client" if self._available else "level"
            self.exchange.dropped(UNKNOWN, verdict, host)
            return
        try:
            request = packets.read(datagram, self._settings_of(client), client.secrets)
            self._note_signed(client, request)
            secret_id = client.secret_ids[client.secrets.index(request.packet.secret)]
            self.exchange.serve(
                Source(client=client, host=host, port=address[1], secret_id=secret_id),
                request,
                _Sender(transport, address),
            )
        except DroppedError as error:
            self.exchange.dropped(client.name, error.verdict, host)

    def _settings_of(self, client: RadiusClient) -> RadiusSettings:
        """Return the settings of a client, after the signed requests that it has sent."""
        settings = client.settings
        if settings.unsigned_until_signed and client.identity in self._signing:
            return replace(settings, allow_unsigned=False)
        return settings

    def _note_signed(self, client: RadiusClient, request: Request) -> None:
        """
        Remember that a client can sign its requests.

        Status-Server tells nothing of that: it is always signed (RFC 5997, section 3).
        """
        if (
            client.settings.unsigned_until_signed
            and request.is_signed
            and not request.is_status
            and client.identity not in self._signing
        ):
            self._signing.add(client.identity)
            log.info("radius_signatures_required", extra={"agent": client.name})


async def _bound_socket(host: str, port: int) -> socket.socket:
    """Return a UDP socket for one address. `[::]` is IPv6 alone, beside `0.0.0.0`."""
    loop = asyncio.get_running_loop()
    (family, kind, protocol, _, address), *_ = await loop.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    bound = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.settimeout(0)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


class _Sender:
    """The sender of a datagram."""

    def __init__(self, transport: asyncio.DatagramTransport, address: _Address) -> None:
        self._transport = transport
        self._address = address

    def send(self, datagram: bytes) -> None:
        """Send an answer."""
        if not self._transport.is_closing():
            self._transport.sendto(datagram, self._address)

    def deny(self) -> None:
        """Do nothing: RADIUS over UDP has no certificates."""


class _Protocol(asyncio.DatagramProtocol):
    """Passes packets of one socket on."""

    def __init__(self, listener: RadiusListener) -> None:
        self._listener = listener
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No subclass of DatagramTransport in every event loop.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        if self._transport is not None:
            self._listener.received(data, addr, self._transport)

    def error_received(self, exc: Exception) -> None:
        """Ignore what a peer's system reports about an answer, such as a closed port."""
        log.debug("radius_error_received", extra={"cause": str(exc)})
