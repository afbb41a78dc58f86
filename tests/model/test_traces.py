# SPDX-License-Identifier: Apache-2.0
"""What real nodes do in a simulation is what the specification allows, and no more."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.raft.membership_changes import Promote, Remove
from tests.long import long
from tests.model.test_model import needs_java
from tests.model.traces import WHOLE_LOG, RecordedCluster, Recording, explain, record
from tests.simulation import protections
from tests.simulation.faults import Profile
from tests.simulation.test_memberships import (
    N4,
    Growing,
    a_wiped_voter_elects,
    outvoted,
    split_by_two_changes,
    wiped_majority_founds_again,
)

pytestmark = needs_java


@pytest.mark.parametrize("profile", [Profile.POWER, *long([Profile.RESETS])])
def test_the_specification_allows_what_nodes_do(profile: Profile) -> None:
    recording = record(3, seconds=2.0, profile=profile)
    assert len(recording.steps) > 30
    explanation = explain(recording)
    assert explanation.first_refused is None, explanation


@pytest.mark.parametrize("seed", [2, *long([0])])
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


class RecordedScript(Growing, RecordedCluster):
    """A cluster to which only the script does something, recorded."""


def recorded(script: Callable[[Growing], object], seed: int) -> Recording:
    sim = RecordedScript(seed, raft=WHOLE_LOG)
    with sim.world():
        script(sim)
    sim.close()
    return sim.recording()


def replace_a_wiped_voter(sim: Growing) -> None:
    """Wipe a voter; let a learner catch up, become a voter, and take its place."""
    sim.run_for(2)
    wiped = sim.followers()[0]
    sim.wipe(wiped)
    sim.run_for(2)
    assert wiped.journal.last_index == 1  # No member tells it anything.
    sim.add(N4)
    sim.changed(Promote(N4))
    sim.changed(Remove(NodeId(wiped.node_id)))
    voters = {"n1", "n2", "n3", N4} - {wiped.node_id}
    assert sim.leading().journal.configuration.voters == voters


@pytest.mark.long
def test_the_specification_allows_a_wiped_voter_to_be_replaced() -> None:
    recording = recorded(replace_a_wiped_voter, seed=1)
    counts = recording.counts()
    assert (counts["wiped"], counts["joined"], counts["left"]) == (1, 1, 1)
    explanation = explain(recording)
    assert explanation.first_refused is None, explanation


def test_the_specification_allows_members_that_come_and_go() -> None:
    recording = record(10, seconds=6.0, profile=Profile.MEMBERS)
    counts = recording.counts()
    assert counts["joined"]
    assert counts["wiped"]
    explanation = explain(recording)
    assert explanation.first_refused is None, explanation


def elect(sim: Growing) -> None:
    """Let the first leader write the names of the journals."""
    sim.run_for(2)


@dataclass(frozen=True)
class Mistake:
    """What goes wrong without a protection of members."""

    without: Callable[[pytest.MonkeyPatch], None]
    script: Callable[[Growing], object]
    """A script in which it goes wrong, with this seed."""
    seed: int
    news: str
    """What the specification refuses: what is new about the node, by `Seen`."""


MISTAKES = [
    Mistake(protections.change_without_waiting, split_by_two_changes, 3, "log"),
    Mistake(protections.know_no_journals, a_wiped_voter_elects, 4, "role"),
    Mistake(protections.found_without_everyone, wiped_majority_founds_again, 5, "role"),
    Mistake(protections.change_before_own_term, elect, 6, "log"),
    *long([Mistake(protections.count_learners, outvoted, 2, "commit")]),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.script.__name__)
def test_the_specification_refuses_members_without_a_protection(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch
) -> None:
    explanation = explain(recorded(mistake.script, mistake.seed))
    assert explanation.first_refused is None, explanation
    mistake.without(monkeypatch)
    explanation = explain(recorded(mistake.script, mistake.seed))
    assert mistake.news in explanation.news, explanation
