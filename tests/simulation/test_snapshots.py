# SPDX-License-Identifier: Apache-2.0
"""Followers that come back when the log has gone on without them."""

from collections.abc import Callable

import pytest

from sparecode_node.replication.errors import OutcomeUnknownError, SnapshotRefusedError
from sparecode_node.replication.replica import snapshot_fetch
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.snapshots.store import Manifest
from tests.long import long
from tests.replication.recording_state import call
from tests.simulation import absences, late_installations, late_snapshots
from tests.simulation.cluster import SimCluster
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.faults import Profile
from tests.simulation.installations import JudgedReplica, is_candidate
from tests.simulation.invariants import Submission
from tests.simulation.machines import Node
from tests.simulation.protections import install_journal_first
from tests.simulation.scenarios import SHORT_LOG, Scenario
from tests.simulation.test_directed import Script

Step = Callable[[float], None]
Done = Callable[[SnapshotRefusedError | None], object]

LONG = 60
ANSWER_S = 1.0
"""For the last call of a series to be answered."""
PORTION_BYTES = 300
"""A hundred times less than a snapshot has here: a fetch takes a while."""


def write(sim: Script, count: int, prefix: str) -> list[Submission]:
    """Write through the leader, one call after the other."""
    written = []
    for k in range(count):
        leader = max((n for n in sim.live() if n.leads), key=lambda node: node.term)
        name = f"{prefix}{k}"
        written.append(sim.propose(leader, name, lambda n=name: call(n)))
        sim.run_for(0.06)
    return written


def leave_behind(sim: Script) -> Node:
    """Cut a follower off until the others have compacted what it lacks."""
    sim.run_for(2)
    leader = sim.leading()
    away = next(node for node in sim.live() if node is not leader)
    write(sim, 3, "before")
    sim.isolate(away)
    write(sim, LONG, "meanwhile")
    sim.run_for(2)
    assert sim.leading().journal.first_index > away.journal.last_index
    return away


@pytest.mark.parametrize("seed", range(5))
def test_a_follower_behind_the_log_is_sent_a_snapshot(seed: int) -> None:
    sim = Script(seed, raft=SHORT_LOG)
    with sim.world():
        away = leave_behind(sim)
        sim.reconnect()
        assert sim.heal(seconds=5)
        assert sim.effects[Effect.SNAPSHOT_INSTALLED] == 1
        assert away.journal.first_index > 1
        sim.check()
    assert sim.invariants.violations == {}


def test_the_cluster_serves_while_a_snapshot_is_installed() -> None:
    sim = Script(2, raft=SHORT_LOG)
    with sim.world():
        away = leave_behind(sim)
        sim.reconnect()
        written = write(sim, 30, "during")
        assert sim.effects[Effect.SNAPSHOT_INSTALLED] >= 1
        sim.run_for(ANSWER_S)
        assert all(s.request_id in sim.invariants.acked for s in written)
        assert sim.heal(seconds=5)
        assert away.store.applied()[written[-1].request_id]
        sim.check()
    assert sim.invariants.violations == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_fetch_ends_while_the_others_write(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many snapshots could be taken in the time that one fetch takes."""
    for bound in ("PORTION_BYTES_MIN", "PORTION_BYTES_MAX"):
        monkeypatch.setattr(snapshot_fetch, bound, PORTION_BYTES)
    sim = Script(seed, raft=SHORT_LOG)
    with sim.world():
        away = leave_behind(sim)
        body = sim.leading().running.snapshots.current
        assert body is not None
        sim.reconnect()
        written = 0
        while not sim.effects[Effect.SNAPSHOT_INSTALLED] and written < 10 * LONG:
            write(sim, 1, f"during{written}.")
            written += 1
        assert written > 2 * SHORT_LOG.log_entries_max
        write(sim, 10, "after")
        assert away.journal.last_index > body.index + written
        assert sim.effects[Effect.SNAPSHOT_INSTALLED] == 1
        assert sim.heal(seconds=5)
        sim.check()
    assert sim.invariants.violations == {}


@pytest.mark.parametrize("seed", range(10))
def test_what_a_stranded_leader_has_is_gone_when_a_snapshot_comes(seed: int) -> None:
    """
    Ten writes go to a leader that is cut off; the others compact; all meet again.

    PySyncObj raises the commit index over the ten while the snapshot arrives,
    and acknowledges them; they are on no other node.
    """
    sim = Script(seed, raft=SHORT_LOG)
    with sim.world():
        sim.run_for(2)
        stranded = sim.leading()
        sim.isolate(stranded)
        lost = [
            sim.propose(stranded, f"lost{k}", lambda k=k: call(f"lost{k}"))
            for k in range(10)
        ]
        sim.run_for(2)
        assert not stranded.leads
        kept = write(sim, LONG, "kept")
        sim.run_for(2)
        assert sim.leading().journal.first_index > stranded.journal.last_index
        sim.reconnect()
        assert sim.heal(seconds=5)
        # The log is so short that it may be compacted again while the first is on its way.
        assert sim.effects[Effect.SNAPSHOT_INSTALLED] >= 1
        sim.check()
        states = [node.store.applied() for node in sim.live()]
    assert all(isinstance(s.outcomes[0], OutcomeUnknownError) for s in lost)
    assert all(s.request_id in sim.invariants.acked for s in kept)
    assert not any(s.request_id in applied for s in lost for applied in states)
    assert sim.invariants.violations == {}


def install_with_a_kill(after: int, *, power: bool) -> tuple[bool, dict[str, str]]:
    """
    Kill the node that installs after a number of operations on its disk and state.

    Returns whether it was killed, and the violations.
    """
    sim = Script(after, raft=SHORT_LOG)
    with sim.world():
        away = leave_behind(sim)
        sim.power = power
        sim.reconnect()
        sim.arm(away.node_id, after)
        sim.run_for(3)
        if not sim.heal(seconds=5):
            sim.invariants.violated("progress", sim.describe())
        sim.check()
    killed = Effect.KILL_IN_FILE_OPERATION in sim.effects
    return (
        killed or Effect.KILL_IN_TRANSACTION in sim.effects,
        sim.invariants.violations,
    )


@pytest.mark.parametrize("power", [False, *long([True])], ids=["killed", "power cut"])
def test_an_installation_may_be_cut_anywhere(power: bool) -> None:
    """At every file operation and transaction; the next start makes up for it."""
    points = 0
    while True:
        killed, violations = install_with_a_kill(points, power=power)
        assert violations == {}, f"after {points} operations"
        if not killed:
            break
        points += 1
    assert points > 20


def test_a_journal_that_goes_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state must hold the snapshot before the log begins behind it."""
    install_journal_first(monkeypatch)
    assert any(install_with_a_kill(after, power=False)[1] for after in range(40))


def test_the_log_stays_short_under_load() -> None:
    sim = Script(4, raft=SHORT_LOG)
    longest = 0
    with sim.world():
        sim.run_for(2)
        for k in range(300):
            leader = sim.leading()
            sim.propose(leader, f"r{k}", lambda k=k: call(f"r{k}"))
            sim.step(faulty=False)
            longest = max(longest, *(len(node.journal) for node in sim.live()))
        assert sim.heal()
        sim.check()
        sizes = [len(node.disk.read("raft.journal")) for node in sim.live()]
    assert longest < 100  # A snapshot takes up to a second here.
    assert max(sizes) < 100_000
    assert sim.invariants.violations == {}


@pytest.mark.long
def test_snapshots_are_taken_sent_and_spoiled_in_the_simulation() -> None:
    """An event that never happens is not tested."""
    struck: set[Effect] = set()
    for seed in range(40):
        sim = SimCluster(seed, Scenario(profile=Profile.PARTITIONS))
        sim.run()
        struck |= set(sim.effects)
    assert struck > {
        Effect.SNAPSHOT_TAKEN,
        Effect.SNAPSHOT_INSTALLED,
        Effect.CHUNK_REFUSED,
    }


def test_a_member_that_was_away_installs_while_the_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(absences, "RATE", 1.0)
    held, effects = 0, Effects()
    for seed in range(8):
        sim = SimCluster(seed, Scenario())
        step = sim.network.advance

        def advance(now: float, sim: SimCluster = sim, step: Step = step) -> None:
            nonlocal held
            held += any(node.journal.is_held for node in sim.live())
            step(now)

        monkeypatch.setattr(sim.network, "advance", advance)
        sim.run()
        assert sim.invariants.violations == {}
        effects.update(sim.effects)
    assert effects[Effect.INSTALLED_AMID_FAULTS] > 0
    assert held > 0


def test_installations_begin_at_candidates_and_with_entries_left_to_apply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(absences, "RATE", 1.0)
    monkeypatch.setattr(late_snapshots, "RATE_OF_ABSENCES", 1.0)
    monkeypatch.setattr(late_installations, "RATE", 1.0)
    install, begun = JudgedReplica.install, set()

    def seen(self: JudgedReplica, manifest: Manifest, done: Done) -> None:
        engine = self.engine
        left = engine.raftLastApplied < engine.raftCommitIndex
        begun.add((is_candidate(engine), left))
        install(self, manifest, done)

    monkeypatch.setattr(JudgedReplica, "install", seen)
    effects = Effects()
    for seed in range(8):
        sim = SimCluster(seed, Scenario())
        sim.run()
        assert sim.invariants.violations == {}
        effects.update(sim.effects)
    assert begun == {(False, False), (True, False), (False, True)}
    assert effects[Effect.INSTALLED_AT_ODD_MOMENT] > 1


def test_no_more_than_half_of_the_log_is_kept() -> None:
    with pytest.raises(ValueError, match="at most half"):
        RaftSettings(log_entries_max=10, log_entries_kept=6)
