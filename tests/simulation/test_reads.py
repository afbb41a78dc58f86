# SPDX-License-Identifier: Apache-2.0
"""Reads under faults: an answer covers everything that was committed before it."""

import pytest

from sparecode_node.replication.errors import NotAppliedError
from sparecode_node.replication.raft.read_index import ReadOutcome, ReadPoint
from sparecode_node.replication.settings import RaftSettings
from tests.long import long
from tests.replication.recording_state import call
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import Profile
from tests.simulation.protections import believe_any_word, read_without_quorum
from tests.simulation.scenarios import Scenario
from tests.simulation.seed_search import first_violation
from tests.simulation.test_directed import Script


@pytest.mark.parametrize("seed", [*range(12), *long(range(12, 30))])
def test_no_read_is_stale_while_leaders_are_cut_off(seed: int) -> None:
    sim = SimCluster(seed, Scenario(profile=Profile.LEADER_HUNT))
    sim.run()
    assert sim.invariants.violations == {}


def test_reads_are_answered_between_the_faults() -> None:
    """A leader that never answered would never be stale either."""
    outcomes: list[ReadOutcome] = []
    for seed in range(12):
        sim = SimCluster(seed, Scenario(profile=Profile.LEADER_HUNT))
        sim.run()
        outcomes += (o for read in sim.invariants.reads for o in read.outcomes)
    answered = [o for o in outcomes if isinstance(o, ReadPoint)]
    refused = [o for o in outcomes if isinstance(o, NotAppliedError)]
    assert len(answered) > 50
    assert refused


def test_without_the_quorum_a_read_that_is_not_confirmed_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_without_quorum(monkeypatch)
    result = first_violation(range(20), Scenario(profile=Profile.LEADER_HUNT))
    assert result is not None
    assert "read confirmed by a majority" in result[1]


def _read_on_deposed_leader(sim: Script, *, by_word: bool) -> list[ReadOutcome]:
    """
    Commit on the other nodes without a leader's knowledge, then read on it.

    *by_word*: another member asks it, and names its present term.
    """
    # It is slow to notice that it is cut off, the others are quick.
    sim.raft = RaftSettings(election_max_s=0.45, contact_s=3, step_down_s=3)
    with sim.world():
        deposed = sim.leading()
        sim.run_for(2)  # The journals get their names: now a majority elects a leader.
        sim.isolate(deposed)
        sim.run_for(1.5)
        leader = next(n for n in sim.live() if n.leads and n is not deposed)
        sim.propose(leader, "new", lambda: call("new"))
        sim.run_for(0.3)
        assert "new" in sim.invariants.acked
        assert deposed.leads
        read = sim.read(deposed, leader.word() if by_word else None)
        sim.run_for(4)
        assert not deposed.leads
    return read.outcomes


@pytest.mark.parametrize("by_word", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_deposed_leader_answers_no_read(seed: int, *, by_word: bool) -> None:
    """It still believes to lead; what it has is not all that is committed."""
    sim = Script(seed)
    [outcome] = _read_on_deposed_leader(sim, by_word=by_word)
    assert isinstance(outcome, NotAppliedError)
    assert sim.invariants.violations == {}


def test_without_the_quorum_a_deposed_leader_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_without_quorum(monkeypatch)
    sim = Script(0)
    [outcome] = _read_on_deposed_leader(sim, by_word=False)
    assert isinstance(outcome, ReadPoint)
    assert "stale read" in sim.invariants.violations


def test_believing_any_word_a_deposed_leader_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    believe_any_word(monkeypatch)
    sim = Script(0)
    [outcome] = _read_on_deposed_leader(sim, by_word=True)
    assert isinstance(outcome, ReadPoint)
    assert "stale read" in sim.invariants.violations
