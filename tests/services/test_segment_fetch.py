# SPDX-License-Identifier: Apache-2.0
"""Members that stall, lie or send too much while a node fetches sealed events (U1)."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links import segment_exchange
from sparecode_node.replication.links.segment_exchange import (
    NoSegments,
    SegmentExchange,
    SegmentNotHeldError,
)
from sparecode_node.services.cluster import segments as keeping
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.statemachine import audit, sealed_events
from tests.services.one_node import OneNode, one_node
from tests.services.test_notices import add_users
from tests.services.test_segments import (
    EVENTS,
    another_member,
    joined,
    kept,
    linked,
    stored_numbers,
)

pytestmark = pytest.mark.asyncio

N2 = NodeId("n2")
MUCH = 1 << 20


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(segment_exchange, "PART_EVENTS", 3)
    monkeypatch.setattr(keeping, "REST", 0.0)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments."""
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


@pytest_asyncio.fixture
async def whole(node: OneNode, tmp_path: Path) -> AsyncIterator[SegmentKeeper]:
    """Return another member, which has all of them."""
    assert node
    async with another_member(tmp_path / "local.db") as keeper:
        yield keeper


class Sending(NoSegments):
    """A member that sends one part, whatever it is asked for, and then stalls."""

    def __init__(self, part: bytes) -> None:
        self.part = part
        self.goes_on = threading.Event()

    def lend(self, number: int, hash_after: bytes, *, skip: int, most: int) -> bytes:
        if skip:
            self.goes_on.wait(60)
        return b"" if skip else self.part


@pytest_asyncio.fixture
async def sending() -> AsyncIterator[Sending]:
    member = Sending(b"")
    yield member
    member.goes_on.set()  # Its thread must end.


class Member(NoSegments):
    """A member that can be told to fail, and writes down what it is asked for."""

    def __init__(self, name: str, source: SegmentKeeper, asked: list[str]) -> None:
        self.name, self.source, self.asked = name, source, asked
        self.fails = False

    def lend(self, number: int, hash_after: bytes, *, skip: int, most: int) -> bytes:
        if not skip:
            self.asked.append(f"{self.name} {number}")
        if self.fails:
            raise SegmentNotHeldError("not now")
        return self.source.lend(number, hash_after, skip=skip, most=most)


async def fetched(member: NoSegments, *, lines_max: int, bytes_max: int) -> list[bytes]:
    """Return what an exchange takes from a member."""
    exchange = SegmentExchange(NoSegments())
    async with linked(exchange, n2=member):
        parts = exchange.fetch(N2, 1, b"", lines_max=lines_max, bytes_max=bytes_max)
        return [line async for part in parts for line in part]


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (b"x\n" * (EVENTS + 1), "sends too much"),
        (b"\n" * 100_000, "sends too much"),
        (b"x" * MUCH + b"\n", "sends too much"),
        (b"x\nx", "sends parts of lines"),
    ],
)
async def test_no_more_is_taken_than_a_segment_has(
    sending: Sending, part: bytes, problem: str
) -> None:
    """(U1) Short lines are counted before they are split: 160 MB would hold 80 million."""
    sending.part = part
    with pytest.raises(SegmentNotHeldError, match=problem):
        await fetched(sending, lines_max=EVENTS, bytes_max=MUCH)


async def test_all_lines_of_a_segment_are_taken(sending: Sending) -> None:
    sending.part = b"x\n" * EVENTS
    sending.goes_on.set()
    lines = await fetched(sending, lines_max=EVENTS, bytes_max=2 * EVENTS)
    assert lines == [b"x"] * EVENTS


@pytest.mark.parametrize("part", [b"{}\n", b'{"sequence": 7}\n', b"[]\n"])
async def test_a_wrong_part_ends_a_fetch_before_the_next_one_comes(
    node: OneNode,
    sending: Sending,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: bytes,
) -> None:
    """(U1) What is no event is not kept until a stalling member has sent the rest."""
    monkeypatch.setattr(segment_exchange, "FETCH_S", 10.0)
    sending.part = part
    async with (
        joined(node, tmp_path) as path,
        kept(path) as keeper,
        linked(keeper.exchange, n2=sending),
    ):
        with pytest.raises(SegmentNotHeldError, match="is no event"):
            await keeper.step()
        assert stored_numbers(path) == []


async def test_a_member_that_stalls_costs_its_time_once(
    node: OneNode,
    whole: SegmentKeeper,
    sending: Sending,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(U1) Two minutes for each of 2,000 segments would be three days."""
    monkeypatch.setattr(segment_exchange, "FETCH_S", 1.0)
    calls: list[str] = []
    fetch = SegmentExchange.fetch

    def counted(
        self: SegmentExchange, node_id: NodeId, number: int, *args: bytes, **bounds: int
    ) -> AsyncIterator[list[bytes]]:
        calls.append(f"{node_id} {number}")
        return fetch(self, node_id, number, *args, **bounds)

    monkeypatch.setattr(SegmentExchange, "fetch", counted)
    sending.part = whole.lend(3, _hash(whole, 3), skip=0, most=3)
    async with (
        joined(node, tmp_path) as path,
        kept(path) as keeper,
        linked(keeper.exchange, n2=sending, n3=whole),
    ):
        await keeper.step()
        assert stored_numbers(path) == [1, 2, 3]
    assert calls == ["n2 3", "n3 3", "n3 2", "n3 1"]


def _hash(keeper: SegmentKeeper, number: int) -> bytes:
    with keeper._file.opened() as file:
        return file.stored()[number]


async def test_a_member_that_failed_is_asked_last_until_it_answers_well(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    asked: list[str] = []
    second, third = Member("n2", whole, asked), Member("n3", whole, asked)

    async def fetch(keeper: SegmentKeeper, number: int) -> list[str]:
        """Let a node fetch a segment again; return who was asked for it."""
        asked.clear()
        with keeper._file.opened() as file, file._transaction():
            file._db.execute("DELETE FROM stored_segments WHERE number = ?", (number,))
            file._db.execute(
                "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
                ((number - 1) * EVENTS + 1, number * EVENTS),
            )
        await keeper.step()
        return list(asked)

    async with (
        joined(node, tmp_path) as path,
        kept(path) as keeper,
        linked(keeper.exchange, n2=second, n3=third),
    ):
        await keeper.step()
        assert await fetch(keeper, 2) == ["n2 2"]
        second.fails = True
        assert await fetch(keeper, 2) == ["n2 2", "n3 2"]
        assert await fetch(keeper, 2) == ["n3 2"]
        second.fails, third.fails = False, True
        assert await fetch(keeper, 2) == ["n3 2", "n2 2"]
        third.fails = False
        assert await fetch(keeper, 2) == ["n2 2"]


async def test_a_channel_that_is_gone_is_a_member_that_lacks_it() -> None:
    exchange = SegmentExchange(NoSegments())
    channels: dict[NodeId, grpc.aio.Channel] = {}
    exchange.connect(channel=channels.get, others=lambda: (N2,))
    with pytest.raises(SegmentNotHeldError, match="no channel to n2"):
        async for _ in exchange.fetch(N2, 1, b"", lines_max=1, bytes_max=1):
            pass
