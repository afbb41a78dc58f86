# SPDX-License-Identifier: Apache-2.0
"""Both kinds of links carry what is compared, in turns."""

import asyncio
import itertools
import os
from pathlib import Path

import pytest
import uvloop
from local_cluster.setup import set_up

from tests.bench.links import (
    FIGURES,
    IN_FLIGHT,
    KINDS,
    add_results,
    compare,
    measured,
    table,
    turns,
)
from tests.bench.report import Report
from tests.results import ROOT


def test_either_link_carries_messages_and_acknowledgements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "deploy"))
    cluster = set_up(tmp_path / "cluster")
    seen = uvloop.run(compare(cluster, rounds=2, times=100))
    assert list(seen) == list(itertools.product(KINDS, IN_FLIGHT))
    for trips in seen.values():
        assert [each.p50_ms > 0 and each.per_s > 0 for each in trips] == [True, True]
    report = Report(path=tmp_path / "links.json")
    add_results(report, seen)
    assert table(report).row_count == len(report.results) == 2 * len(FIGURES)
    first = report.results[0]
    stream, socket = (seen[kind, 1] for kind in KINDS)
    assert first["socket_to_stream"] == pytest.approx(
        sum(a.p50_ms / b.p50_ms for a, b in zip(socket, stream, strict=True)) / 2
    )


def test_what_is_compared_takes_turns_in_reverse_every_second_round() -> None:
    once = list(itertools.product(KINDS, IN_FLIGHT))
    assert list(turns(3)) == [*once, *once[::-1], *once]


class CountedLink:
    """A link that acknowledges only when it is full, or all messages are sent."""

    def __init__(self, *, full: int, times: int) -> None:
        self.under_way = self.most = 0
        self._full, self._left = full, times
        self._changed = asyncio.Condition()

    async def send(self) -> None:
        async with self._changed:
            self.under_way += 1
            self._left -= 1
            self.most = max(self.most, self.under_way)
            self._changed.notify_all()

    async def receive(self) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.under_way >= self._full or not self._left
            )
            self.under_way -= 1


@pytest.mark.asyncio
@pytest.mark.parametrize("in_flight", [1, 64])
async def test_as_many_messages_are_in_flight_as_is_said(in_flight: int) -> None:
    link = CountedLink(full=in_flight, times=200)
    async with asyncio.timeout(30):
        trip = await measured(link, os.getpid(), 200, in_flight)
    assert link.most == in_flight
    assert trip.per_s > 0
