# SPDX-License-Identifier: Apache-2.0
"""The RADIUS door of an in-process node, and a packet of pyrad's client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from pyrad.packet import AccessRequest, AuthPacket, StatusServer

from sparecode_node.domain.agents import Protects
from sparecode_node.radius import packets
from sparecode_node.radius.dialog import Dialog
from sparecode_node.radius.exchange import Exchange
from sparecode_node.radius.listener import RadiusListener
from sparecode_node.services.access.packet_counts import PacketCounts
from tests.services.one_node import OneNode

TIMEOUT_S = 60.0
SILENCE_S = 0.1


@dataclass
class Door:
    """A listener on a free port of 127.0.0.1, and the secret of a client there."""

    node: OneNode
    listener: RadiusListener
    counts: PacketCounts
    ready: list[bool] = field(default_factory=lambda: [True])
    secret: str = ""

    @property
    def port(self) -> int:
        """The port of the listener."""
        return self.listener.addresses[0][1]

    async def register(self, name: str = "vpn", **settings: object) -> str:
        """Register a client on 127.0.0.1, and return its secret."""
        new = await self.node.radius_clients.register(
            self.node.admin("AgentService/RegisterRadiusClient"),
            name=name,
            **{
                "networks": ["127.0.0.1/32"],
                "protects": Protects.AUTHENTICATION_MANAGER,
                **settings,
            },
        )
        await self.listener.refresh()
        self.secret = new.secret
        return str(new.secret)

    async def send(
        self,
        *datagrams: bytes,
        wait_s: float = TIMEOUT_S,
        socket: "Client | None" = None,
        host: str = "127.0.0.1",
    ) -> bytes | None:
        """Send datagrams from one port; return the first reply, or None for silence."""
        client = socket or await connected(self.port, host)
        try:
            for datagram in datagrams:
                client.transport.sendto(datagram)
            return await client.reply(wait_s)
        finally:
            if socket is None:
                client.transport.close()

    async def silent(self, *datagrams: bytes) -> bool:
        """Return whether datagrams get no answer, once the node has judged them."""
        judged = self._judged() + len(datagrams)
        client = await connected(self.port)
        try:
            for datagram in datagrams:
                client.transport.sendto(datagram)
            async with asyncio.timeout(TIMEOUT_S):
                while self._judged() < judged:  # noqa: ASYNC110 - no event.
                    await asyncio.sleep(0.001)
            return await client.reply(SILENCE_S) is None
        finally:
            client.transport.close()

    def _judged(self) -> int:
        return sum(self.counts.packets().values())

    def counted(self, verdict: str, client: str = "vpn") -> int:
        """Return how many packets of a client had this verdict."""
        return self.counts.packets().get((client, verdict), 0)


class Client(asyncio.DatagramProtocol):
    """A socket with a queue of replies."""

    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.replies.put_nowait(data)

    async def reply(self, wait_s: float) -> bytes | None:
        """Return the next reply; None: there is none in this time."""
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self.replies.get(), wait_s)
        return None


async def connected(port: int, host: str = "127.0.0.1") -> Client:
    """Return a socket that sends to a port of this machine."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(Client, remote_addr=(host, port))
    return client


def request(
    secret: str,
    username: str = "alice",
    password: str | bytes | None = "",
    *,
    signed: bool = True,
    code: int = AccessRequest,
    identifier: int = 7,
    authenticator: bytes | None = None,
    attributes: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """Return an Access-Request that pyrad encodes. No password: None."""
    packet = AuthPacket(code, identifier, secret.encode(), authenticator)
    if packet.authenticator is None:
        packet.authenticator = packet.CreateAuthenticator()
    if code != StatusServer:
        packet[packets.USER_NAME] = [username.encode()]
        if password is not None:
            packet[packets.USER_PASSWORD] = [packet.PwCrypt(password)]
    for kind, value in attributes:
        packet.setdefault(kind, []).append(value)
    packet.message_authenticator = signed or None
    return packet.RequestPacket()


def decoded(secret: str, sent: bytes, reply: bytes) -> AuthPacket:
    """Return a reply, whose signatures must be right and come first."""
    asked = AuthPacket(packet=sent, secret=secret.encode())
    answer = AuthPacket(packet=reply, secret=secret.encode())
    assert asked.VerifyReply(answer, reply, enforce_ma=True)
    assert reply[20] == packets.MESSAGE_AUTHENTICATOR
    return answer


async def answered(door: Door, sent: bytes, host: str = "127.0.0.1") -> int:
    """Send a request; return the code of the reply, whose signatures must be right."""
    reply = await door.send(sent, host=host)
    assert reply is not None, door.counts.packets()
    return decoded(door.secret, sent, reply).code


async def update(door: Door, **settings: object) -> None:
    """Change the settings of the client."""
    await door.node.radius_clients.update(
        door.node.admin("AgentService/UpdateRadiusClient"), name="vpn", **settings
    )
    await door.listener.refresh()


async def give_attributes(door: Door, **attributes: object) -> None:
    """Change what an Access-Accept tells the client."""
    await door.node.agents.update(
        door.node.admin("AgentService/UpdateAgent"), name="vpn", **attributes
    )
    await door.listener.refresh()


def failures(door: Door) -> int:
    """Return how many failures users were charged with."""
    (number,) = door.node.primary_db.execute(
        "SELECT coalesce(sum(failures), 0) FROM lockouts"
    ).fetchone()
    return int(number)


@contextlib.asynccontextmanager
async def open_door(
    node: OneNode, addresses: Sequence[tuple[str, int]] = (("127.0.0.1", 0),)
) -> AsyncIterator[Door]:
    """Open the door of a node."""
    counts, ready = PacketCounts(), [True]
    exchange = Exchange(
        dialog=Dialog(
            authentication=node.services.authentication,
            continuation=node.services.continuation,
            seals=node.services.radius_seals,
            security_log=node.refusals.log,
        ),
        counts=counts,
        is_ready=lambda: ready[0],
        check_open=lambda: None,
        security_log=node.refusals.log,
        clock=node.clock,
    )
    listener = RadiusListener(
        addresses,
        clients=node.services.radius_clients,
        exchange=exchange,
        counts=counts,
    )
    await listener.start()
    try:
        yield Door(node=node, listener=listener, counts=counts, ready=ready)
    finally:
        await listener.stop()
