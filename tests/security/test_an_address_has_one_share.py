# SPDX-License-Identifier: Apache-2.0
"""
A stranger's address has one rate and one share, whatever the door it comes through (L7).

The attack: an attacker guesses passwords through gRPC and through the console at once,
or from all addresses of one IPv6 network, and has a rate for each spelling.
"""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio

from sparecode.v1 import sessions_pb2
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode_node.domain.caller_addresses import canonical, source_of
from sparecode_node.services.load.rates import BURST_S
from tests.console.desk import Desk
from tests.http.door import open_door
from tests.rpc.edge import admin_port
from tests.services.one_node import PASSWORD, ROOT, OneNode, one_node
from tests.services.test_rates import UNLIMITED

OVERLOADED = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True)
class Node:
    """A node with all its doors at 127.0.0.1, where a stranger has 1 call a second."""

    node: OneNode
    sessions: SessionServiceStub
    folder: Path

    async def guess(self) -> grpc.StatusCode:
        """Type a wrong password through gRPC."""
        request = sessions_pb2.LoginRequest(
            request_id=str(uuid.uuid4()),
            administrator=str(uuid.uuid4()),
            password="Summer2026!",
        )
        try:
            await self.sessions.Login(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("a guess was right")

    async def show_session(self) -> grpc.StatusCode:
        """Show a session that the node does not know, through gRPC."""
        bearer = (("authorization", f"Bearer {'A' * 43}"),)
        try:
            await self.sessions.WhoAmI(
                sessions_pb2.WhoAmIRequest(), metadata=bearer, timeout=60
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("the session is known")


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    limits = replace(UNLIMITED, peer=1, session=1)
    async with one_node(tmp_path, limits) as one, admin_port(one) as (_, channel):
        yield Node(one, SessionServiceStub(channel), tmp_path)


@pytest.mark.asyncio
async def test_grpc_and_console_share_the_passwords_of_an_address(node: Node) -> None:
    """(L7) What is used up at one door is used up at the other."""
    codes = [await node.guess() for _ in range(BURST_S + 1)]
    assert codes.index(OVERLOADED) == BURST_S
    desk = Desk(node.node)
    try:
        browser = await desk.browser()  # From 127.0.0.1, as httpx says.
        page = await browser.sign_in(ROOT, PASSWORD)
        assert page.path == "/sign-in"
        node.node.clock.pass_s(BURST_S)
        page = await browser.sign_in(ROOT, PASSWORD)
        assert page.path != "/sign-in"
    finally:
        await desk.close()


@pytest.mark.asyncio
async def test_grpc_and_http_share_the_strangers_of_an_address(node: Node) -> None:
    """(L7, D5) Unknown sessions and unknown keys count together."""
    codes = [await node.show_session() for _ in range(BURST_S + 1)]
    assert codes.index(OVERLOADED) == BURST_S
    key = {"authorization": "Bearer sparecode_unknown"}
    async with open_door(node.node, node.folder / "tls") as door:
        async with door.stranger(headers=key) as stranger:
            answer = await door.authenticate("12345678", client=stranger)
        assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS
        node.node.clock.pass_s(BURST_S)
        async with door.stranger(headers=key) as stranger:
            answer = await door.authenticate("12345678", client=stranger)
        assert answer.status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize(
    ("spelling", "address", "source"),
    [
        ("ipv4:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("ipv6:[::ffff:192.0.2.1]", "192.0.2.1", "192.0.2.1"),
        ("ipv6:[2001:DB8::0:1]", "2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("unix", "unix", "unix"),
        ("", "", ""),
    ],
)
def test_every_spelling_of_an_address_is_one(
    spelling: str, address: str, source: str
) -> None:
    """(L7) A host chooses among the addresses of its IPv6 network: they are one source."""
    assert canonical(spelling) == address
    assert source_of(spelling) == source_of(address) == source
