# SPDX-License-Identifier: Apache-2.0
"""The real state machine in the simulated cluster: a code is accepted once."""

import pytest

from tests.simulation.cluster import Scenario
from tests.simulation.codes import CODES, CodesCluster, SqliteStore


@pytest.mark.parametrize("seed", range(30))
def test_a_code_is_accepted_once_whatever_happens(seed: int) -> None:
    """Whatever happens to the reply, a code is either live or used (A3, Q2)."""
    sim = CodesCluster(seed, Scenario(store=SqliteStore))
    sim.run()
    assert sim.invariants.violations == {}
    spent = {
        code: by
        for node in sim.live()
        for code, by in node.store.db.execute(
            "SELECT ordinal, used_index FROM codes WHERE used_index IS NOT NULL"
        )
    }
    assert set(sim.spending.accepted) <= set(spent)


def test_codes_are_used_in_the_simulation() -> None:
    """A simulation in which nobody is let in would prove nothing."""
    sim = CodesCluster(3, Scenario(store=SqliteStore))
    sim.run()
    assert len(sim.spending.accepted) > CODES // 2
