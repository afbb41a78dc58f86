# SPDX-License-Identifier: Apache-2.0
"""What real nodes do in a simulation is what the specification allows, and no more."""

from collections.abc import Callable

import pytest

from tests.model.test_model import needs_java
from tests.model.traces import explain, record
from tests.simulation import protections
from tests.simulation.faults import Profile

pytestmark = needs_java


@pytest.mark.parametrize("profile", [Profile.POWER, Profile.RESETS])
def test_the_specification_allows_what_nodes_do(profile: Profile) -> None:
    steps = record(3, seconds=2.0, profile=profile)
    assert len(steps) > 30
    explanation = explain(steps)
    assert explanation.first_refused is None, explanation


@pytest.mark.parametrize("seed", [0, 2])
def test_the_specification_allows_deaths_inside_a_step(seed: int) -> None:
    explanation = explain(record(seed, seconds=4.0))
    assert explanation.first_refused is None, explanation


@pytest.mark.parametrize(
    "without",
    [
        protections.acknowledge_before_sync,
        protections.vote_unsynced,
        protections.count_itself_unsynced,
    ],
    ids=lambda each: each.__name__,
)
def test_the_specification_refuses_a_node_without_a_protection(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    explanation = explain(record(3, seconds=2.0, profile=Profile.POWER))
    assert explanation.first_refused is not None
