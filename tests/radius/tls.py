# SPDX-License-Identifier: Apache-2.0
"""The RadSec door of an in-process node, and a connection of an agent."""

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.membership.certificates import write_certificates
from sparecode_node.radius.radsec import SECRET, RadsecListener, tls_context
from sparecode_node.services.access.agent_certificates import read_certificate
from tests.radius.door import TIMEOUT_S, Door

HOST = "127.0.0.1"
AGENT = "vpn"
IDENTITY = f"sparecode://agent/{AGENT}"
RADSEC = SECRET.decode()


@dataclass
class TlsDoor:
    """A RadSec listener beside the door of a node."""

    door: Door
    listener: RadsecListener
    folder: Path

    async def connect(self, agent: str = AGENT) -> "Connection":
        """Open the connection of an agent."""
        streams = await asyncio.open_connection(
            HOST,
            self.listener.port,
            ssl=trusting(self.folder, agent),
            server_hostname=HOST,
        )
        return Connection(*streams)

    async def deny(self, agent: str = AGENT) -> None:
        """Deny the certificate of an agent."""
        pem = (self.folder / f"{agent}.pem").read_text()
        node = self.door.node
        await node.agents.deny(
            node.admin("AgentService/DenyCertificate"),
            fingerprint=read_certificate(
                ssl.PEM_cert_to_DER_cert(pem)
            ).marks.fingerprint,
            note="stolen",
        )


class Connection:
    """A connection of an agent."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> bytes:
        """Return the next packet; empty: the connection has ended."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                head = await self.reader.readexactly(4)
                length = int.from_bytes(head[2:])
                return head + await self.reader.readexactly(length - 4)
            except (asyncio.IncompleteReadError, OSError):
                return b""

    async def ask(self, sent: bytes) -> bytes:
        """Send a request, and return the reply; empty: the connection has ended."""
        self.writer.write(sent)
        return await self.reply()

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def trusting(folder: Path, agent: str) -> ssl.SSLContext:
    """Return a context that trusts the members, and has an agent's certificate."""
    context = ssl.create_default_context(cafile=folder / "members-ca.pem")
    if agent:
        context.load_cert_chain(folder / f"{agent}.pem", folder / f"{agent}.key")
    return context


@contextlib.asynccontextmanager
async def open_tls_door(door: Door, folder: Path) -> AsyncIterator[TlsDoor]:
    """Open the RadSec door beside an open door."""
    folder.mkdir()  # noqa: ASYNC240 - quick.
    write_certificates(
        folder,
        members=["n1"],
        agents=[AGENT, "mail"],
        hosts=[HOST],
        now=dt.datetime.now(dt.UTC),
    )
    listener = RadsecListener(
        HOST,
        0,
        tls=lambda: tls_context(
            folder / "n1.pem",
            folder / "n1.key",
            (folder / "agents-ca.pem").read_bytes(),
        ),
        clients=door.node.services.radius_clients,
        exchange=door.listener.exchange,
        security_log=door.node.refusals.log,
        clock=door.node.clock,
    )
    await listener.start()
    watch = asyncio.create_task(listener.run())
    try:
        yield TlsDoor(door=door, listener=listener, folder=folder)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await listener.stop()
