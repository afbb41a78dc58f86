# SPDX-License-Identifier: Apache-2.0
"""The times of wrong tokencodes are compared, also if a random one is right (A6)."""

import contextlib
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.bench import refusals
from tests.bench.refusals import BY_CHANCE_MAX, TOKENS
from tests.bench.report import Report

USERS = 8


class Agent:
    """Accepts one attempt of each of these users, and counts all."""

    def __init__(self, *lucky: str) -> None:
        self.attempts: dict[str, int] = {}
        self._lucky = lucky

    def authenticate(self, name: str, _: str) -> Mock:
        self.attempts[name] = self.attempts.get(name, 0) + 1
        return Mock(accepted=name in self._lucky)


def compare(agent: Agent, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare three attempts of users of each kind."""
    names = [(kind, f"{kind} {each}") for kind in TOKENS for each in range(USERS)]
    monkeypatch.setattr(refusals, "_with_tokens", lambda *_: names)
    monkeypatch.setattr(refusals, "agent_of", lambda _: contextlib.nullcontext(agent))
    refusals.measure_attempts(Mock(), report, waits_s=(0, 0))


def test_a_user_whose_random_tokencode_is_right_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no failures any more, so its next attempt would be a first one."""
    lucky, report = "three SecurID tokens 3", Report(path=tmp_path / "x.json")
    agent = Agent(lucky)
    compare(agent, report, monkeypatch)
    assert agent.attempts.pop(lucky) == 1
    assert set(agent.attempts.values()) == {3}
    assert len(report.results) == 3 * len(TOKENS)
    (target,) = report.targets
    assert target.value is not None


def test_more_right_tokencodes_than_come_by_chance_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lucky = [f"one SecurID token {each}" for each in range(BY_CHANCE_MAX + 1)]
    with pytest.raises(ValueError, match="3 random tokencodes were accepted"):
        compare(Agent(*lucky), Report(path=tmp_path / "x.json"), monkeypatch)
