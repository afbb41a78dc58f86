# SPDX-License-Identifier: Apache-2.0
"""The real state machine in the simulated cluster: 200 seeds of `make sim`."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.long import long
from tests.simulation.codes import CodesCluster, scenario
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect
from tests.simulation.faults import Profile
from tests.simulation.scenarios import Scenario
from tests.simulation.sqlite_store import SqliteStore


@contextlib.contextmanager
def finished(seed: int, scenario: Scenario) -> Iterator[CodesCluster]:
    """Yield a simulation that has run to its end."""
    with contextlib.closing(CodesCluster(seed, scenario)) as sim:
        sim.run()
        yield sim


@pytest.mark.parametrize("seed", [*range(12), *long(range(12, 36))])
def test_three_nodes_keep_every_promise_about_codes(seed: int) -> None:
    """Under any faults, a code is either live or used, on every node (A3, Q2)."""
    with finished(seed, scenario(3)) as sim:
        used = {
            f"{set_id}/{ordinal}"
            for node in sim.live()
            for set_id, ordinal in node.store.db.execute(
                "SELECT set_id, ordinal FROM codes WHERE used_index IS NOT NULL"
            )
        }
    assert sim.invariants.violations == {}
    spent = {
        accepted.what.partition(" ")[2]
        for who in sim.rules.accepted.values()
        for accepted in who.values()
        if accepted.set_id.startswith(("ada", "ben"))
    }
    assert spent <= used


@pytest.mark.parametrize("seed", [*range(6), *long(range(6, 16))])
def test_five_nodes_keep_every_promise_about_codes(seed: int) -> None:
    """The same with five (A3, Q2)."""
    with finished(seed, scenario(5)) as sim:
        assert sim.invariants.violations == {}


@pytest.mark.long
def test_codes_are_used_in_the_simulation() -> None:
    """A simulation without an accepted code would prove nothing."""
    accepted = acknowledged = repeated = 0
    for seed in range(4, 20):  # Of one alone, much is chance.
        mild = Scenario(store=SqliteStore, profile=Profile.MILD)
        with finished(seed, mild) as sim:
            accepted += len(sim.rules.accepted)
            acknowledged += len(sim.rules.acked)
            repeated += sim.effects[Effect.REPEATED]
    assert accepted > 40
    assert acknowledged > 150
    assert repeated > 20


def test_segments_are_sealed_fetched_and_damaged_in_the_simulation() -> None:
    """A simulation without them would prove nothing."""
    compared: Counter[Comparison] = Counter()
    for seed in range(14):
        with finished(seed, scenario(3)) as sim:
            assert sim.invariants.violations == {}
            compared.update(sim.invariants.comparisons)
    assert compared[Comparison.SEALED] > 200
    assert compared[Comparison.FETCHED] > 3
    assert compared[Comparison.ROTTEN] > 0


def test_nodes_agree_on_segments_in_the_simulation() -> None:
    """A simulation without them would prove nothing (U1)."""
    compared: Counter[Comparison] = Counter()
    for seed in (47, 110):
        with finished(seed, scenario(3)) as sim:
            assert sim.invariants.violations == {}
            compared.update(sim.invariants.comparisons)
    assert compared[Comparison.STORED] > 40
    assert compared[Comparison.DISCARDED] > 100
    assert compared[Comparison.FORGED] > 0


def test_segments_are_archived_and_removed_in_the_simulation() -> None:
    """A simulation without them would prove nothing (U4)."""
    compared: Counter[Comparison] = Counter()
    for seed in (22, 31, 91):
        with finished(seed, scenario(3)) as sim:
            assert sim.invariants.violations == {}
            compared.update(sim.invariants.comparisons)
    assert compared[Comparison.ARCHIVED] > 200
    assert compared[Comparison.REMOVED] > 5
    assert compared[Comparison.ACROSS] > 100
    assert compared[Comparison.SHARED] > 0


def test_a_seed_with_codes_is_a_run() -> None:
    with finished(11, scenario(3)) as one, finished(11, scenario(3)) as other:
        pass
    assert one.effects == other.effects
    assert one.invariants.applied == other.invariants.applied
    assert one.now == other.now
