# SPDX-License-Identifier: Apache-2.0
"""Asking the primary for the index to read at, while its channel is replaced."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.answers import stub_of
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.calls.primary_contact import PrimaryContact
from sparecode_node.replication.calls.quorum_wait import QuorumWait
from sparecode_node.replication.calls.read_points import ReadPoints
from sparecode_node.replication.errors import NoPrimaryError
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.statemachine.results import BarrierPassed

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


class VotingEngine:
    """It has voted in term 2, and its published status is of term 1."""

    _status = ReplicaStatus(term=1)

    def __init__(self, on_run: Callable[[], object] = lambda: None) -> None:
        self.on_run = on_run

    async def run(self, ask: Callable[[Any], int], *, timeout_s: float) -> int:
        del timeout_s
        self.on_run()
        return ask(SimpleNamespace(term=lambda: 2))


async def no_news(deadline: float) -> bool:
    del deadline
    return False


def contact_of(engine: Any, channel: Callable[[], Any]) -> PrimaryContact:
    """Return the contact of n1 to its primary, n2."""
    return PrimaryContact(
        node_id=NodeId("n1"),
        engine=engine,
        primary=lambda: NodeId("n2"),
        channel=lambda _: channel(),
        news=no_news,
        quorum_wait=QuorumWait(patience_s=30),
    )


def contact_to_the_last(leaders: list[str], engine: Any) -> PrimaryContact:
    """Return the contact of n1 to the newest primary; a channel is the name of a node."""

    async def news(deadline: float) -> bool:
        del deadline
        return True

    return replace(
        contact_of(engine, object),
        primary=lambda: NodeId(leaders[-1]),
        channel=lambda node_id: node_id,
        news=news,
    )


@pytest.mark.asyncio
async def test_a_channel_that_is_replaced_meanwhile_is_not_asked() -> None:
    engine = RenewingEngine()
    contact = contact_of(engine, lambda: engine.channel)
    with pytest.raises(NoPrimaryError, match="did not answer"):
        await ReadPoints(contact, now_ms=lambda: 0).passed(timeout_s=30)
    await engine.channel.close()


@pytest.mark.asyncio
async def test_a_reading_member_tells_the_term_of_its_last_vote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A primary of an earlier term would answer by the word of its status."""
    told = []

    async def ask(_channel: Any, *, term: int, timeout_s: float) -> BarrierPassed:
        del timeout_s
        told.append(term)
        return BarrierPassed(index=1, at_ms=0)

    monkeypatch.setattr(peer_messages, "ask_read_index", ask)
    contact = contact_of(VotingEngine(), object)
    await ReadPoints(contact, now_ms=lambda: 0).passed(timeout_s=30)
    assert told == [2]


@pytest.mark.asyncio
async def test_a_read_does_not_wait_for_a_primary_that_was_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its machine may have lost power: then nothing ends a call to it before its end."""
    asked = asyncio.Event()

    async def ask(channel: Any, *, term: int, timeout_s: float) -> BarrierPassed:
        del term, timeout_s
        asked.set()
        if channel == "n2":
            await asyncio.Event().wait()
        return BarrierPassed(index=1, at_ms=0)

    monkeypatch.setattr(peer_messages, "ask_read_index", ask)
    leaders = ["n2"]
    contact = contact_to_the_last(leaders, VotingEngine())
    points = ReadPoints(contact, now_ms=lambda: 0)
    async with asyncio.timeout(30):
        reading = asyncio.create_task(points.passed(timeout_s=30))
        await asked.wait()
        for same in (None, NodeId("n2")):
            points.take_primary(same)
        leaders.append("n3")
        for _ in range(2):
            points.take_primary(NodeId("n3"))
        assert (await reading).index == 1
    points.take_primary(NodeId("n2"))  # Nothing is asked any more.


@pytest.mark.asyncio
async def test_a_primary_that_was_replaced_before_the_call_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def ask(channel: Any, *, term: int, timeout_s: float) -> BarrierPassed:
        del term, timeout_s
        asked.append(channel)
        return BarrierPassed(index=1, at_ms=0)

    monkeypatch.setattr(peer_messages, "ask_read_index", ask)
    leaders = ["n2"]
    engine = VotingEngine(lambda: leaders.append("n3"))
    contact = contact_to_the_last(leaders, engine)
    await ReadPoints(contact, now_ms=lambda: 0).passed(timeout_s=30)
    assert asked == ["n3"]


@pytest.mark.asyncio
async def test_a_member_whose_channel_was_closed_is_not_reachable() -> None:
    """Only by luck would gRPC itself say so: it uses memory that it has freed."""
    channel = grpc.aio.insecure_channel(NOWHERE)
    await channel.close()
    with pytest.raises(grpc.aio.AioRpcError, match="the channel was closed"):
        stub_of(channel)
    status = await peer_messages.ask_status(
        channel, NodeId("n2"), digest=False, timeout_s=30
    )
    assert not status.reachable
