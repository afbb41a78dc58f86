# SPDX-License-Identifier: Apache-2.0
"""Notices in the simulated cluster: some seeds of `make sim-outbox` (N1, N2)."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.long import long
from tests.simulation.broken_outbox import a_dropped_notice_that_the_log_tells
from tests.simulation.codes import scenario
from tests.simulation.comparisons import Comparison, comparisons_of
from tests.simulation.kinds import Kind
from tests.simulation.outbox import OutboxCluster

OF_OUTBOX = [each for each in comparisons_of(Kind.OUTBOX) if each.of_outbox]


@contextlib.contextmanager
def finished(seed: int, nodes: int = 3) -> Iterator[OutboxCluster]:
    """Yield a simulation that has run to its end."""
    with contextlib.closing(OutboxCluster(seed, scenario(nodes))) as sim:
        sim.run()
        yield sim


@pytest.mark.parametrize("seed", [*range(4), *long(range(4, 12))])
def test_three_nodes_keep_every_promise_about_notices(seed: int) -> None:
    """Each committed event arrives, under one id, or is said to be dropped (N1, N2)."""
    with finished(seed) as sim:
        assert sim.invariants.violations == {}


@pytest.mark.parametrize("seed", [58, 60, 61])
def test_five_nodes_keep_every_promise_about_notices(seed: int) -> None:
    """The same with five (N1, N2)."""
    with finished(seed, nodes=5) as sim:
        assert sim.invariants.violations == {}


def test_a_new_primary_tells_nothing_that_was_dropped() -> None:
    """In this seed it is elected while it lacks the entry that drops notices (N2)."""
    with finished(58) as sim:
        assert sim.invariants.violations == {}


def test_notices_arrive_repeat_and_are_dropped_in_the_simulation() -> None:
    """A simulation without them would prove nothing."""
    compared = dict.fromkeys(OF_OUTBOX, 0)
    for seed in range(4):
        with finished(seed) as sim:
            for each in OF_OUTBOX:
                compared[each] += sim.invariants.comparisons[each]
    assert all(compared.values()), compared
    assert compared[Comparison.NOTICE] > 40


def test_a_seed_with_notices_is_a_run() -> None:
    with finished(11) as one, finished(11) as other:
        pass
    assert one.effects == other.effects
    assert one.rules.told == other.rules.told
    assert one.invariants.applied == other.invariants.applied


def test_a_dropped_notice_that_the_log_tells_breaks_nothing() -> None:
    assert a_dropped_notice_that_the_log_tells().violations == {}
