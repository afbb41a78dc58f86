# SPDX-License-Identifier: Apache-2.0
"""Connections without a call: limited in number and in time."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

import pytest

from sparecode.v1 import users_pb2, users_pb2_grpc
from sparecode_node.daemon.metrics.listener import CONNECTIONS_MAX
from sparecode_node.replication.links import limits as listening
from sparecode_node.replication.links.limits import (
    ADMINISTRATORS,
    AGENTS,
    BROWSERS,
    HTTP_AGENTS,
    MEMBERS,
    Connections,
    listener_options,
    raise_open_files,
)
from sparecode_node.rpc import server
from sparecode_node.statemachine.results import Applied
from tests.rpc.edge import BEARER, Edge, running_edge

WAIT_S = 60
BOUND = 4


@contextlib.asynccontextmanager
async def strangers(
    edge: Edge, listener: str, count: int
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open this many connections, and send nothing."""
    host, port = edge.address(listener).split(":")
    pairs = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        yield [reader for reader, _ in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


@contextlib.asynccontextmanager
async def cancelling(tasks: set[asyncio.Task[None]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Return once the node has closed this connection."""
    with contextlib.suppress(ConnectionError):  # Closed, too.
        assert await reader.read() == b""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("listener", "name"), [("agents", "AGENTS"), ("admin", "ADMINISTRATORS")]
)
async def test_listener_refuses_connections_beyond_its_limit(
    listener: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise any caller could use up the files that the node needs to commit."""
    monkeypatch.setattr(server, name, Connections(most=BOUND, share=1))
    async with running_edge() as edge, strangers(edge, listener, BOUND * 2) as them:
        left = {asyncio.create_task(hung_up(each)) for each in them}
        async with asyncio.timeout(WAIT_S), cancelling(left):
            while len(left) > BOUND:
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            assert len(left) == BOUND
            # Accepted connections stay open.


@pytest.mark.asyncio
async def test_silent_connections_are_closed_after_the_handshake_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Callers can connect again when the handshake timeout has passed."""
    monkeypatch.setattr(server, "ADMINISTRATORS", Connections(most=BOUND, share=1))
    monkeypatch.setattr(listening, "HANDSHAKE_MS", 2000)
    async with running_edge() as edge, strangers(edge, "admin", BOUND) as them:
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*map(hung_up, them))
        edge.services["users"].answer = Applied(index=1)
        async with edge.admin() as channel:
            stub = users_pb2_grpc.UserServiceStub(channel)
            created = await stub.CreateUser(
                users_pb2.CreateUserRequest(), metadata=BEARER
            )
        assert created.commit.index == 1


@pytest.mark.parametrize(
    ("open_files", "most"),
    [(65_536, 1024), (4096, 256), (resource.RLIM_INFINITY, 1024)],
)
def test_one_listener_does_not_use_up_all_open_files(
    open_files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (open_files, open_files))
    options = dict(listener_options(ADMINISTRATORS))
    assert options["grpc.max_allowed_incoming_connections"] == most
    shares = (AGENTS.share, ADMINISTRATORS.share, MEMBERS.share)
    addresses = 2  # Of one listener: gRPC counts for each.
    taken = addresses * sum(1 / share for share in shares)
    taken += 1 / BROWSERS.share + 1 / HTTP_AGENTS.share
    assert taken * 1024 + CONNECTIONS_MAX < 1024 - 50


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 524_288, 65_536),
        (1024, 4096, 4096),
        (1024, resource.RLIM_INFINITY, 65_536),
        (65_536, 65_536, None),
        (500_000, 524_288, None),
    ],
)
def test_node_raises_its_limit_of_open_files(
    soft: int, hard: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells set 1,024, even if the system allows more."""
    new_limits: list[object] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(
        resource, "setrlimit", lambda _, limits: new_limits.append(limits)
    )
    raise_open_files()
    assert new_limits == ([] if raised is None else [(raised, hard)])
