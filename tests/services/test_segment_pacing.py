# SPDX-License-Identifier: Apache-2.0
"""Work on sealed segments takes a third of the time at most, by the clock of a test (U1)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode_node.domain.ids import NodeId
from sparecode_node.services.cluster import segments as keeping
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.sealed_events import SealedEvents
from sparecode_node.statemachine.snapshots import write_snapshot
from tests.services.one_node import OneNode, one_node
from tests.services.pauses import Pauses
from tests.services.test_notices import add_users
from tests.services.test_segments import EVENTS, joined, kept, stored_numbers
from tests.services.two_replicas import FakeClock

pytestmark = pytest.mark.asyncio

REST = keeping.REST
PART = 3
"""Events of one answer of a member."""
JUDGE_S, STORE_S, WAIT_S = 0.002, 0.050, 0.300
"""How long it takes to judge an event, to store a segment, and until a part arrives."""


class LogicalTime:
    """`asyncio` as the keeper uses it, by the clock of a test."""

    def __init__(self, clock: FakeClock, pauses: Pauses) -> None:
        self._clock, self._pauses = clock, pauses

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def get_running_loop(self) -> "LogicalTime":
        return self

    def time(self) -> float:
        return self._clock.now_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        await self._pauses.sleep(seconds)


class Exchange:
    """Reaches one member, which sends what it has, part by part, after a while."""

    others = (NodeId("n2"),)

    def __init__(self, source: SegmentKeeper, clock: FakeClock) -> None:
        self._source, self._clock = source, clock

    async def fetch(
        self, _: NodeId, number: int, hash_after: bytes, **__: int
    ) -> AsyncIterator[list[bytes]]:
        for skip in range(0, EVENTS, PART):
            self._clock.pass_s(WAIT_S)
            lines = self._source.lend(number, hash_after, skip=skip, most=PART)
            yield lines.splitlines()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pauses(clock: FakeClock) -> Pauses:
    return Pauses(clock)


@pytest_asyncio.fixture
async def node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(keeping, "REST", 0.0)  # Until the clock of the test counts.
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


@pytest.fixture
def timed(
    clock: FakeClock, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Return what lets the keepers of this node work and rest by the clock from then on."""
    judge, store = keeping.event_in, SealedEvents.store_chained

    def judged(line: bytes) -> Any:
        clock.pass_s(JUDGE_S)
        return judge(line)

    def stored(*arguments: Any) -> None:
        clock.pass_s(STORE_S)
        store(*arguments)

    def begin() -> None:
        monkeypatch.setattr(keeping, "REST", REST)
        monkeypatch.setattr(keeping, "event_in", judged)
        monkeypatch.setattr(SealedEvents, "store_chained", stored)
        monkeypatch.setattr(keeping, "asyncio", LogicalTime(clock, pauses))

    return begin


def rests(pauses: Pauses) -> Iterator[float]:
    """Yield the pauses of a keeper, without those after work that took no time."""
    return (each for each in pauses.taken_s if each)


async def test_a_member_that_fetches_rests_after_each_part_as_long_as_it_worked(
    node: OneNode,
    tmp_path: Path,
    clock: FakeClock,
    pauses: Pauses,
    timed: Callable[[], None],
) -> None:
    """(U1) Twice as long; waiting for a member is no work."""
    other = tmp_path / "other.db"
    write_snapshot(tmp_path / "local.db", other)
    sealed_events.create(other)
    async with kept(other) as whole, joined(node, tmp_path) as path:
        await whole.step()
        async with kept(path) as keeper:
            keeper.exchange = Exchange(whole, clock)  # type: ignore[assignment]
            timed()
            began_ms = clock.now_ms()
            await keeper.step()
    assert stored_numbers(path) == [1, 2, 3]
    parts = [PART, PART, EVENTS - 2 * PART]
    each_segment = [*(n * JUDGE_S for n in parts), STORE_S]
    assert list(rests(pauses)) == [round(REST * each, 3) for each in 3 * each_segment]
    took_s = (clock.now_ms() - began_ms) / 1000
    worked_s = 3 * sum(each_segment)
    waited_s = 3 * len(parts) * WAIT_S
    assert took_s == pytest.approx((1 + REST) * worked_s + waited_s, abs=0.01)
    assert REST >= 2, "it works a third of the time at most"


async def test_a_node_rests_after_each_own_segment(
    node: OneNode, tmp_path: Path, pauses: Pauses, timed: Callable[[], None]
) -> None:
    """(U1) An upgrade seals a log of years, one segment with each further event."""
    assert node
    async with kept(tmp_path / "local.db") as keeper:
        timed()
        await keeper.step()
    assert list(rests(pauses)) == 3 * [round(REST * STORE_S, 3)]
