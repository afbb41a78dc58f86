# SPDX-License-Identifier: Apache-2.0
"""The HTTP door of an in-process node, and a client with an agent's certificate."""

import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from sparecode_node.http.app import Parts
from sparecode_node.http.plugins import Plugins
from sparecode_node.http.server import HttpServer
from sparecode_node.http.v1 import Steps
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.authentication.prompts import Prompts
from sparecode_node.services.ended_calls import EndedCall
from tests.services.one_node import OneNode

HOST = "127.0.0.1"
AGENT = "vpn"
NO_PLUGINS = Plugins()
IDENTITY = f"sparecode://agent/{AGENT}"


@dataclass
class Door:
    """A listener on a free port, and what its calls ended with."""

    node: OneNode
    folder: Path
    server: HttpServer
    client: httpx.AsyncClient
    """It has the agent's certificate."""
    ended: list[EndedCall] = field(default_factory=list)

    async def post(
        self, path: str, client: httpx.AsyncClient | None = None, **values: object
    ) -> httpx.Response:
        """Send JSON."""
        return await (client or self.client).post(path, json=values)

    async def authenticate(
        self, passcode: str, username: str = "alice", **values: object
    ) -> httpx.Response:
        """Send a passcode."""
        return await self.post(
            "/v1/authenticate", username=username, passcode=passcode, **values
        )

    def stranger(self, **options: Any) -> httpx.AsyncClient:
        """Return a client without a certificate."""
        return client_of(self.server.port, trusting(self.folder), **options)


def trusting(folder: Path, agent: str = "") -> ssl.SSLContext:
    """Return a context that trusts the members, and has an agent's certificate."""
    context = ssl.create_default_context(cafile=folder / "members-ca.pem")
    if agent:
        context.load_cert_chain(folder / f"{agent}.pem", folder / f"{agent}.key")
    return context


def client_of(port: int, context: ssl.SSLContext, **options: Any) -> httpx.AsyncClient:
    """Return a client of the door at this port."""
    return httpx.AsyncClient(
        base_url=f"https://{HOST}:{port}",
        verify=context,
        timeout=60,
        trust_env=False,
        **options,
    )


@contextlib.asynccontextmanager
async def open_door(
    node: OneNode, folder: Path, plugins: Plugins = NO_PLUGINS
) -> AsyncIterator[Door]:
    """Open the door of a node."""
    folder.mkdir()  # noqa: ASYNC240 - quick.
    write_certificates(
        folder,
        members=["n1"],
        agents=[AGENT, "mail"],
        hosts=[HOST],
        now=dt.datetime.now(dt.UTC),
    )
    ended: list[EndedCall] = []
    server = HttpServer(
        Parts(
            steps=Steps(
                authentication=node.services.authentication,
                continuation=node.services.continuation,
                entropy=SystemEntropy(),
            ),
            prompts=Prompts(
                continuation=node.services.continuation,
                seals=node.services.radius_seals,
            ),
            seals=node.services.radius_seals,
            agent_keys=node.services.agent_keys,
            plugins=plugins,
            check_open=lambda: None,
            refusals=node.refusals,
            clock=node.clock,
            on_ended=ended.append,
        ),
        host=HOST,
        port=0,
        certificate=folder / "n1.pem",
        key=folder / "n1.key",
        authority=(folder / "agents-ca.pem").read_bytes,
    )
    await server.start(grace_s=1)
    try:
        async with client_of(server.port, trusting(folder, AGENT)) as client:
            yield Door(
                node=node, folder=folder, server=server, client=client, ended=ended
            )
    finally:
        await server.stop()
