# SPDX-License-Identifier: Apache-2.0
"""The benchmark of notices measures only while deliveries really hang (N2)."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import notices
from tests.bench.estate import Run
from tests.bench.notices import CHANNELS, ROUNDS, Receiver, hanging, silent
from tests.bench.test_bench import bench, run_of

NAMES = ("one", "two")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "TRIED_S", 0.1)


def connected(receiver: Receiver) -> socket.socket:
    """Return a connection, as a node opens it for a delivery."""
    return socket.create_connection(("127.0.0.1", receiver.port))


def test_a_delivery_that_hangs_is_seen() -> None:
    with silent(NAMES) as (one, _), connected(one) as connection:
        connection.sendall(b"hello")
        one.check()
        one.check()


def test_a_channel_that_tries_nothing_is_no_measurement() -> None:
    with (
        silent(NAMES) as (one, two),
        connected(one),
        pytest.raises(RuntimeError, match="channel two has tried no delivery"),
    ):
        two.check()


def test_a_delivery_that_was_given_up_is_no_measurement() -> None:
    with silent(NAMES) as (one, _):
        with connected(one) as connection:
            connection.sendall(b"hello")
        with pytest.raises(RuntimeError, match="no delivery of channel one hangs"):
            one.check()


def test_an_earlier_round_proves_nothing_for_a_later_one() -> None:
    with silent(NAMES) as (one, _), connected(one):
        one.check()
        one.forget()
        with pytest.raises(RuntimeError, match="has tried no delivery"):
            one.check()


class FakeEstate:
    """Sign-ins of an estate whose channels connect in some of the rounds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, tries: int) -> None:
        self.tries = tries
        """Rounds in which deliveries are tried."""
        self.ports: list[int] = []
        self.enabled = False
        self.connections: list[socket.socket] = []
        monkeypatch.setattr(notices, "_create", self._create)
        monkeypatch.setattr(notices, "_enable", self._enable)

    async def _create(self, _: object, ports: list[int]) -> None:
        self.ports = ports

    async def _enable(self, _: object, *, enabled: bool) -> None:
        self.enabled = enabled

    def authenticate(self, **_: object) -> Run:
        if self.enabled and self.tries:
            self.tries -= 1
            self.connections += [
                socket.create_connection(("127.0.0.1", port)) for port in self.ports
            ]
        return run_of(12 if self.enabled else 10)


@pytest.fixture
def estates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[FakeEstate] = []

    def make(*, tries: int) -> FakeEstate:
        made.append(FakeEstate(monkeypatch, tries=tries))
        return made[-1]

    yield make
    for each in made:
        for connection in each.connections:
            connection.close()


def test_the_comparison_says_how_sure_it_is(tmp_path: Path, estates: Any) -> None:
    """With fewer rounds there would be no interval at all."""
    measuring = bench(tmp_path)
    estate = estates(tries=ROUNDS)
    hanging(measuring, estate)
    assert len(estate.connections) == ROUNDS * len(CHANNELS)
    assert [each.interval for each in measuring.report.targets] == [
        (pytest.approx(1.2), pytest.approx(1.2))
    ] * 2
    assert all(each.holds for each in measuring.report.targets)


def test_every_round_must_hang(tmp_path: Path, estates: Any) -> None:
    """One look at the end would not see channels that were idle in all other rounds."""
    measuring = bench(tmp_path)
    with pytest.raises(RuntimeError, match="channel webhook-1 has tried no delivery"):
        hanging(measuring, estates(tries=ROUNDS - 1))
    assert measuring.report.targets == []
