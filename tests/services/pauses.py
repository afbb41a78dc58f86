# SPDX-License-Identifier: Apache-2.0
"""Slow commits, and pauses that only move the test's clock (I12)."""

import pytest

from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.load.pacing import Pace
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.results import Result
from tests.services.one_node import OneNode
from tests.services.two_replicas import FakeClock


class Pauses:
    """A sleep function that moves the clock and records each pause."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.taken_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.taken_s.append(round(seconds, 3))
        self._clock.pass_s(seconds)


def watch_pauses(
    node: OneNode, monkeypatch: pytest.MonkeyPatch, user: object
) -> Pauses:
    """Let the service *user* pause on the test's clock, and return its pauses."""
    pauses = Pauses(node.clock)
    monkeypatch.setattr(user, "_pace", Pace(node.clock, sleep=pauses.sleep))
    return pauses


def slow_commits(
    node: OneNode, monkeypatch: pytest.MonkeyPatch, of: type[Command], took_s: float
) -> None:
    """Let each command of one kind take *took_s* seconds."""
    propose = node.replicator.propose

    async def slowly(proposal: Proposal, *, timeout_s: float) -> Result:
        if isinstance(proposal.call.command, of):
            node.clock.pass_s(took_s)
        return await propose(proposal, timeout_s=timeout_s)

    monkeypatch.setattr(node.replicator, "propose", slowly)
