# SPDX-License-Identifier: Apache-2.0
"""Asking the primary for the index to read at, while its channel is replaced."""

from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.calls.primary_contact import PrimaryContact
from sparecode_node.replication.calls.quorum_wait import QuorumWait
from sparecode_node.replication.calls.read_points import ReadPoints
from sparecode_node.replication.errors import NoPrimaryError

NOWHERE = "127.0.0.1:1"


class RenewingEngine:
    """Its answer comes after a new certificate has replaced all channels."""

    def __init__(self) -> None:
        self.channel = grpc.aio.insecure_channel(NOWHERE)

    async def run(self, ask: Callable[[Any], int], *, timeout_s: float) -> int:
        del ask, timeout_s
        await self.channel.close()
        self.channel = grpc.aio.insecure_channel(NOWHERE)
        return 1


async def no_news(deadline: float) -> bool:
    del deadline
    return False


@pytest.mark.asyncio
async def test_a_channel_that_is_replaced_meanwhile_is_not_asked() -> None:
    engine = RenewingEngine()
    contact = PrimaryContact(
        node_id=NodeId("n1"),
        engine=engine,  # type: ignore[arg-type]
        primary=lambda: NodeId("n2"),
        channel=lambda _: engine.channel,
        news=no_news,
        quorum_wait=QuorumWait(patience_s=30),
    )
    with pytest.raises(NoPrimaryError, match="did not answer"):
        await ReadPoints(contact, now_ms=lambda: 0).passed(timeout_s=30)
    await engine.channel.close()


@pytest.mark.asyncio
async def test_a_member_whose_channel_was_closed_is_not_reachable() -> None:
    channel = grpc.aio.insecure_channel(NOWHERE)
    await channel.close()
    status = await peer_messages.ask_status(
        channel, NodeId("n2"), digest=False, timeout_s=30
    )
    assert not status.reachable
