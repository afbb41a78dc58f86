# SPDX-License-Identifier: Apache-2.0
"""The console of one node over the real use cases, and a browser without a script."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from sparecode_node.console.app import build_app
from sparecode_node.console.kit.site import Site
from sparecode_node.domain.agents import Protects
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.notices import ChannelKind, EventClass
from sparecode_node.rpc import tickets
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.load.rates import RateLimits
from tests.console.paper import Paper
from tests.services.one_node import PASSWORD, ROOT, OneNode, one_node
from tests.services.two_replicas import NODE

ORIGIN = "https://console.test"
GATE = "gate"
"""A RADIUS client."""
SIEM = "siem"
"""A channel."""
OTHERS = {"n1": ORIGIN, "n2": "https://n2.test", "n3": "https://n3.test"}


class Desk:
    """A running console and its browsers."""

    def __init__(self, node: OneNode) -> None:
        self.node = node
        self.site = Site(
            node_id=NODE,
            services=node.services,
            is_ready=lambda: node.replicator.ready,
            is_primary=lambda: node.replicator.primary == NodeId(NODE),
            is_removed=lambda: node.replicator.removed,
            clock=node.clock,
            entropy=SystemEntropy(),
            ticket_text=tickets.to_text,
            addresses=OTHERS,
        )
        self.app = build_app(self.site)
        self._open = contextlib.AsyncExitStack()

    async def browser(self) -> Paper:
        """Return a browser without cookies."""
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url=ORIGIN,
        )
        return Paper(await self._open.enter_async_context(client))

    async def administrator(self, name: str = ROOT, password: str = PASSWORD) -> Paper:
        """Return a browser with a signed-in administrator."""
        browser = await self.browser()
        page = await browser.sign_in(name, password)
        assert page.path != "/sign-in", page.text
        return browser

    async def close(self) -> None:
        """Close all browsers."""
        await self._open.aclose()


@contextlib.asynccontextmanager
async def desk(folder: Path, limits: RateLimits | None = None) -> AsyncIterator[Desk]:
    """Start a console with an agent and a RADIUS client; Alice has a token with a PIN."""
    async with one_node(folder, limits) as node:
        await node.register_agent()
        await node.radius_clients.register(
            node.admin("AgentService/RegisterRadiusClient"),
            name=GATE,
            networks=["192.0.2.1"],
            protects=Protects.AUTHENTICATION_MANAGER,
        )
        await node.channels.create(
            node.admin("NoticeService/CreateChannel"),
            name=SIEM,
            kind=ChannelKind.WEBHOOK,
            address="https://siem.example/in",
            classes=[EventClass.TOKENS],
            secret=node.channels.new_secret(),
        )
        await node.add_user()
        running = Desk(node)
        try:
            yield running
        finally:
            await running.close()
