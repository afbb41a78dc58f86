# SPDX-License-Identifier: Apache-2.0
"""A node with all its listeners in this process, so that its clock can be moved."""

import asyncio
import contextlib
import inspect
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_cluster.cluster import READY, LocalNode
from local_cluster.setup import set_up
from starlette.applications import Starlette

from sparecode_node.config import load_config
from sparecode_node.daemon.node import Node
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from tests.console.paper import Paper

START_S = 60
MONITORING = "the token of Prometheus"
"""What `/metrics` needs."""


class MovedClock(SystemClock):
    """The machine's clock, which a test moves on."""

    passed_s = 0

    def now_ms(self) -> int:
        """Return the time of the node."""
        return super().now_ms() + self.passed_s * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeNode:
    """A running node that is alone in its cluster."""

    node: Node
    place: LocalNode
    clock: MovedClock
    certificates: Path
    """The folder of its authorities and of the certificates that they made."""
    password: str
    """Of the first administrator."""

    def file(self, name: str) -> bytes:
        """Return a certificate, or a key."""
        return (self.certificates / name).read_bytes()

    def client(self, url: str, certificate: str = "") -> httpx.AsyncClient:
        """Return a client of HTTPS that trusts the node. *certificate*: its own."""
        context = ssl.create_default_context(
            cafile=self.certificates / "members-ca.pem"
        )
        if certificate:
            own = self.certificates / certificate
            context.load_cert_chain(own.with_suffix(".pem"), own.with_suffix(".key"))
        return httpx.AsyncClient(
            base_url=url, verify=context, timeout=60, trust_env=False
        )

    def browser(self, certificate: str = "") -> httpx.AsyncClient:
        """Return a browser at the console: it states that forms come from there."""
        browser = self.client(self.place.console_url, certificate)
        browser.headers["sec-fetch-site"] = "same-origin"
        return browser

    async def sign_in(
        self, browser: httpx.AsyncClient, administrator: str, password: str
    ) -> None:
        """Sign a browser in by the console's form."""
        page = await Paper(browser).sign_in(administrator, password)
        assert page.path != "/sign-in", page.text

    @property
    def console(self) -> Starlette:
        """The console's router."""
        app: Any = self.node._doors._web["console"]._app
        while not isinstance(app, Starlette):
            app = app._app
        return app

    @property
    def door(self) -> Starlette:
        """The router of the HTTP door."""
        app = self.node._doors._web["http"]._app
        found: Starlette = inspect.getclosurevars(app).nonlocals["routes"]
        return found


@contextlib.asynccontextmanager
async def whole_node(folder: Path) -> AsyncIterator[WholeNode]:
    """Set a node up as an operator does, start it, and stop it. Its hashing is cheap."""
    cluster = await asyncio.to_thread(set_up, folder, nodes=1, testing=True, doors=True)
    (place,), clock = cluster.nodes, MovedClock()
    _protect(place, cluster.certificates / place.node_id)
    node = Node(load_config(place.config), clock=clock, entropy=SystemEntropy())
    running = asyncio.create_task(node.run())
    try:
        async with asyncio.timeout(START_S):
            await _begun(place, cluster.members_ca.read_bytes(), running)
        yield WholeNode(
            node=node,
            place=place,
            clock=clock,
            certificates=cluster.certificates,
            password=cluster.password,
        )
    finally:
        node.stop()
        await running


def _protect(place: LocalNode, own: Path) -> None:
    """Let the metrics need a token, and answer no questions about the methods."""
    token = place.directory / "metrics.token"
    token.write_text(MONITORING)
    files = f'certificate = "{own}.pem"\nkey = "{own}.key"\ntoken_file = "{token}"'
    text = place.config.read_text().replace("[metrics]", f"[metrics]\n{files}")
    place.config.write_text(text.replace("reflection = true", "reflection = false"))


async def _begun(place: LocalNode, ca: bytes, running: asyncio.Task[int]) -> None:
    """Wait until the node serves, and its first administrator exists."""
    credentials = grpc.ssl_channel_credentials(ca)
    beginning = place.directory / "data/bootstrap.json"
    async with grpc.aio.secure_channel(place.admin_address, credentials) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=READY), wait_for_ready=True
        )
        async for answer in watch:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
    # No event tells that the file is gone.
    while beginning.exists() and not running.done():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
