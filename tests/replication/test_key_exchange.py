# SPDX-License-Identifier: Apache-2.0
"""A key of the ring on its way to another member, which is back, late or gone (P5)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from local_cluster.cluster import free_ports

from sparecode.internal.v1 import peers_pb2_grpc
from sparecode_node.domain.ids import KeyId, NodeId
from sparecode_node.replication.links.key_exchange import (
    KeyCalls,
    KeyExchange,
    KeyNotHeldError,
    NoKeys,
)

pytestmark = pytest.mark.asyncio

WAIT_S = 60
LITTLE_S = 0.1
KEY = b"k" * 32
FINGERPRINT = b"f" * 8
N1, N2 = NodeId("n1"), NodeId("n2")


class Ring(NoKeys):
    """Holds what it is given."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    async def hold(self, key: bytes, *, replaces: KeyId) -> bytes:
        assert replaces == 1
        self.held.append(key)
        return FINGERPRINT


class Member(KeyCalls, peers_pb2_grpc.PeerServiceServicer):
    """The other member, called without TLS."""

    def __init__(self, ring: Ring) -> None:
        self._keys = KeyExchange(ring)

    async def _caller(self, _: Any) -> NodeId:
        return N1


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest_asyncio.fixture
async def exchange(address: str) -> AsyncIterator[KeyExchange]:
    """Return the side that hands out keys, whose channel has found the member down."""
    async with grpc.aio.insecure_channel(address) as channel:
        async with asyncio.timeout(WAIT_S):
            while (
                state := channel.get_state(try_to_connect=True)
            ) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await channel.wait_for_state_change(state)
        made = KeyExchange(NoKeys())
        made.connect(channel=lambda _: channel, others=lambda: [N2])
        yield made


@contextlib.asynccontextmanager
async def listening(address: str, ring: Ring) -> AsyncIterator[None]:
    server = grpc.aio.server()
    peers_pb2_grpc.add_PeerServiceServicer_to_server(Member(ring), server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def hand(exchange: KeyExchange, *, timeout_s: float) -> None:
    await exchange.hand_to(
        N2, KEY, replaces=KeyId(1), fingerprint=FINGERPRINT, timeout_s=timeout_s
    )


async def test_member_that_is_just_back_is_handed_the_key(
    address: str, exchange: KeyExchange
) -> None:
    """It may be up before the channel dials it again."""
    ring = Ring()
    handing = asyncio.create_task(hand(exchange, timeout_s=WAIT_S))
    async with listening(address, ring):
        await handing
    assert ring.held == [KEY]


async def test_member_that_stays_away_is_named(exchange: KeyExchange) -> None:
    """Within the time that there is for it."""
    text = r"n2 does not hold the new key: it did not answer \(DEADLINE_EXCEEDED\)"
    with pytest.raises(KeyNotHeldError, match=text) as not_held:
        await hand(exchange, timeout_s=LITTLE_S)
    assert not_held.value.node_id == N2
