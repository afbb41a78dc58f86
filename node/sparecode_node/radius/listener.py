# SPDX-License-Identifier: Apache-2.0
"""
The UDP listener of RADIUS: which packets are served, dropped, or answered again.

A packet that gets no answer costs its sender a timeout, and then it asks another node.
So the node stays silent whenever it cannot decide (A7), and Status-Server gets an
answer only while it could.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.radius import packets
from sparecode_node.radius.answers import ALIVE, Answer
from sparecode_node.radius.dialog import Dialog
from sparecode_node.radius.duplicates import Duplicates
from sparecode_node.radius.packets import DroppedError, Request
from sparecode_node.radius.request_ids import RequestIds, Source
from sparecode_node.radius.sources import Sources, canonical
from sparecode_node.replication.errors import (
    OverloadedError,
    ProposeError,
    RemovedError,
)
from sparecode_node.services.access.packet_counts import UNKNOWN, PacketCounts
from sparecode_node.services.access.security_log import PACKET_DROPPED, SecurityLog
from sparecode_node.services.ambient import Clock
from sparecode_node.services.errors import RateError, Refused, ServiceError
from sparecode_node.services.people.radius_clients import (
    RadiusClient,
    RadiusClients,
    RadiusDirectory,
)

log = logging.getLogger(__name__)

REFRESH_S = 0.5
"""How soon the door knows a new secret or client. Apply checks the agent at once."""
IN_PROGRESS_MAX = 1024
IN_PROGRESS_OF_CLIENT_MAX = 256
NEW_SHARE = 0.75
"""New dialogs get this share of both; the rest is for answers (RFC 5080, 2.2.3)."""

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
        dialog: Dialog,
        counts: PacketCounts,
        is_ready: Callable[[], bool],
        check_open: Callable[[], None],
        security_log: SecurityLog,
        clock: Clock,
    ) -> None:
        self._addresses = addresses
        self._clients = clients
        self._dialog = dialog
        self._counts = counts
        self._is_ready = is_ready
        self._check_open = check_open
        self._security_log = security_log
        self._clock = clock
        self._directory: RadiusDirectory | None = None
        self._sources = Sources()
        self._available = False
        self._is_open = False
        self._was_available: bool | None = None
        self._leaving = False
        self._warned: frozenset[AgentIdentity] = frozenset()
        self._signing: set[AgentIdentity] = set()
        self._duplicates = Duplicates(clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_progress: dict[str, int] = {}
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
        self._sources = Sources(directory.clients)
        self._available, self._is_open = directory.available, directory.is_open
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
        self._leaving = True

    async def stop(self, grace_s: float = 0) -> None:
        """
        Answer no new packet. Close the sockets when all in progress are answered.

        Give those up that take longer than *grace_s*. Without the grace a client would
        not learn of a decision that is committed, and the next node would refuse the
        passcode that it spent.
        """
        self.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def received(
        self, datagram: bytes, address: _Address, transport: asyncio.DatagramTransport
    ) -> None:
        """Check a packet, and begin to serve it."""
        host = canonical(address[0])
        client = self._sources.find(host)
        if client is None:
            verdict = "unknown_client" if self._available else "level"
            self._dropped(UNKNOWN, verdict, host)
            return
        try:
            request = packets.read(datagram, self._settings_of(client), client.secrets)
            self._note_signed(client, request)
            secret_id = client.secret_ids[client.secrets.index(request.packet.secret)]
            self._serve(
                Source(client=client, host=host, port=address[1], secret_id=secret_id),
                request,
                address,
                transport,
            )
        except DroppedError as error:
            self._dropped(client.name, error.verdict, host)

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

    def _dropped(self, name: str, verdict: str, host: str) -> None:
        self._count(name, verdict)
        if verdict not in ("duplicate", "overloaded", "unavailable"):
            agent = {"agent": name} if name else {}
            self._security_log.note(PACKET_DROPPED, peer=host, **agent, cause=verdict)

    def _serve(
        self,
        source: Source,
        request: Request,
        address: _Address,
        transport: asyncio.DatagramTransport,
    ) -> None:
        """Answer a request again, or begin to decide it. Raises `DroppedError`."""
        client = source.client
        if self._leaving:
            raise DroppedError("unavailable")
        if request.is_status:
            self._check_able(client, request)
            transport.sendto(packets.reply(request, ALIVE.code, ()), address)
            self._count(client.name, ALIVE.verdict)
            return
        request_ids = self._dialog.ids_of(source, request)
        answer = self._duplicates.answer(request_ids.first)
        if answer is not None:
            transport.sendto(
                packets.reply(request, answer.code, answer.attributes), address
            )
            self._count(client.name, "duplicate")
            return
        self._check_room(client, request)
        if not self._duplicates.begin(request_ids.first):
            raise DroppedError("duplicate")
        self._in_progress[client.name] = self._in_progress.get(client.name, 0) + 1
        task = asyncio.create_task(
            self._answer(source, request, request_ids, address, transport)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check_able(self, client: RadiusClient, request: Request) -> None:
        """Raise `DroppedError` if a request would get no answer now (D4)."""
        if not self._is_open or not self._is_ready():
            raise DroppedError("unavailable")
        try:
            self._check_open()
            self._dialog.check_room()
        except RemovedError:
            raise DroppedError("unavailable") from None
        except OverloadedError:
            raise DroppedError("overloaded") from None
        self._check_room(client, request)

    def _check_room(self, client: RadiusClient, request: Request) -> None:
        """Raise `DroppedError` if too many requests are in progress."""
        share = 1.0 if request.has(packets.STATE) else NEW_SHARE
        if (
            len(self._tasks) >= IN_PROGRESS_MAX * share
            or self._in_progress.get(client.name, 0)
            >= IN_PROGRESS_OF_CLIENT_MAX * share
        ):
            raise DroppedError("overloaded")

    async def _answer(
        self,
        source: Source,
        request: Request,
        request_ids: RequestIds,
        address: _Address,
        transport: asyncio.DatagramTransport,
    ) -> None:
        name, answer, verdict = source.client.name, None, "unavailable"
        try:
            self._check_open()
            answer = await self._dialog.answer(source, request, request_ids)
            datagram = packets.reply(request, answer.code, answer.attributes)
            verdict = answer.verdict
            if not transport.is_closing():
                transport.sendto(datagram, address)
        except RateError:
            verdict = "rate_limited"
        except OverloadedError:
            verdict = "overloaded"
        except (ProposeError, RemovedError, Refused, ServiceError) as error:
            log.debug("radius_silent", extra={"cause": type(error).__name__})
        except Exception:
            # A bug: the packet gets no answer, and the node goes on.
            log.exception("radius_failed")
        finally:
            self._end(name, request_ids, answer)
            self._count(name, verdict)

    def _end(self, name: str, request_ids: RequestIds, answer: Answer | None) -> None:
        self._duplicates.end(request_ids.first, answer)
        self._in_progress[name] -= 1
        if not self._in_progress[name]:
            del self._in_progress[name]

    def _count(self, name: str, verdict: str) -> None:
        self._counts.count(name, verdict, self._clock.now_ms())


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
