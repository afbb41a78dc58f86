# SPDX-License-Identifier: Apache-2.0
"""An estate of users and tokens on a cluster of real processes, for the system tests."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, TypeVar

from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode

from sparecode_client import (
    AlreadyExists,
    AsyncAdmin,
    AsyncAgent,
    NewToken,
    OutcomeUnknown,
    Unavailable,
)
from sparecode_client.connection.client import new_request_id

T = TypeVar("T")
U = TypeVar("U")

PATIENCE = timedelta(seconds=60)
PIN = "4719"


@dataclass(frozen=True)
class Holder:
    """A user with one token and unused emergency codes of it."""

    username: str
    serial: str
    codes: tuple[str, ...]


async def each(
    items: Iterable[T], do: Callable[[T], Awaitable[U]], *, at_once: int
) -> list[U]:
    """Await *do* for every item with bounded concurrency; return results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: T) -> U:
        async with gate:
            return await do(item)

    return await asyncio.gather(*(one(item) for item in items))


async def answered(ask: Callable[[str], Awaitable[U]]) -> U:
    """
    Return the answer to a request that is asked again under its id.

    A client gives up when the nodes have had no quorum for longer than an election
    takes: a killed primary on a busy machine may cost more.
    """
    request_id = new_request_id()
    async with asyncio.timeout(2 * PATIENCE.total_seconds()):
        while True:
            with suppress(Unavailable, OutcomeUnknown):
                return await ask(request_id)


class Estate:
    """Clients of every node, and what they set up. Use it as an async context."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self._open = AsyncExitStack()
        self.agents: dict[str, AsyncAgent] = {}

    async def __aenter__(self) -> Self:
        for node in self.cluster.nodes:
            self.agents[node.node_id] = await self._agent([node])
        self.any_agent = await self._agent(self.cluster.nodes)
        self.admin = await self._open.enter_async_context(
            AsyncAdmin(
                [node.admin_address for node in self.cluster.nodes],
                ca=self.cluster.members_ca,
                timeout=PATIENCE,
            )
        )
        await self.admin.login(ADMINISTRATOR, self.cluster.password)
        self.admin.confirm_with(lambda _: self.cluster.password)
        with suppress(AlreadyExists):  # By an earlier test of this cluster.
            await self.admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _agent(self, nodes: list[LocalNode]) -> AsyncAgent:
        certificates = self.cluster.certificates
        agent = AsyncAgent(
            [node.agents_address for node in nodes],
            ca=self.cluster.members_ca,
            certificate=certificates / f"{AGENT}.pem",
            key=certificates / f"{AGENT}.key",
            timeout=PATIENCE,
        )
        return await self._open.enter_async_context(agent)

    async def holder(self, name: str, *, codes: int) -> Holder:
        """Set up a user with a token, a PIN and a number of codes."""
        serial = f"serial-{name}"
        await self.admin.create_user(name)
        await self.admin.enroll_token(
            NewToken(serial=serial, seed=name.ljust(20).encode()[:20])
        )
        await self.admin.assign_token(serial, name)
        await self.admin.set_pin(serial, PIN)
        issued = await self.admin.issue_tokencodes(serial, count=codes)
        return Holder(name, serial, tuple(code.code for code in issued.codes))

    async def digests(self) -> set[tuple[int, str]]:
        """Return the applied index and digest of every member."""
        status = await self.admin.get_status(digest=True)
        return {
            (member.applied_index, member.digest if member.reachable else "")
            for member in status.members
        }

    async def primary(self, *, but: LocalNode | None = None) -> LocalNode:
        """Return the primary, once there is one, and another one than a killed node."""
        killed = but.node_id if but else ""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                with suppress(Unavailable):
                    name = (await self.admin.get_status()).primary
                    if name not in ("", killed):
                        return self.cluster.node(name)

    async def until_all_reachable(self) -> None:
        """Return when every member answers."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                members = (await self.admin.get_status()).members
                if all(member.reachable for member in members):
                    return

    async def until_equal(self) -> str:
        """Return the digest once it is the same on every member."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                digests = await self.digests()
                if len(digests) == 1:
                    return digests.pop()[1]
