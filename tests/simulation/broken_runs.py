# SPDX-License-Identifier: Apache-2.0
"""Runs in which something is wrong in one way, made by hand: of the log and its members."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.ids import NodeId, SessionId
from sparecode_node.replication.errors import Fatal, NoQuorumError, StartRefusedError
from sparecode_node.replication.log.skip_statements import digest_of
from sparecode_node.replication.log.skips import Stop
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.raft.membership_changes import Remove
from sparecode_node.replication.raft.read_index import ReadPoint
from sparecode_node.statemachine.results import (
    Applied,
)
from tests.replication.recording_state import call
from tests.simulation.changes import Wish
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import Profile
from tests.simulation.installations import check_installed
from tests.simulation.invariants import Invariants, Read, Submission
from tests.simulation.memberships import Memberships
from tests.simulation.scenarios import Scenario
from tests.simulation.slips import check_refused
from tests.simulation.statements import check_skipped, signed_by

Broken = Callable[[], Invariants]
BROKEN: dict[str, list[Broken]] = {}
"""Kind of violation -> runs in which something is wrong in just that way."""


def breaks(kind: str) -> Callable[[Broken], Broken]:
    """Record that the run a function makes is broken in one way."""

    def noted(make: Broken) -> Broken:
        BROKEN.setdefault(kind, []).append(make)
        return make

    return noted


# --- Leaders and logs


class Log(list[tuple[bytes, int, int]]):
    """A journal, as the invariants see it."""

    @property
    def first_index(self) -> int:
        return self[0][1]

    def entry(self, index: int) -> tuple[bytes, int, int]:
        return self[index - self[0][1]]

    def has(self, index: int) -> bool:
        return self[0][1] <= index <= self[-1][1]

    def term_at(self, index: int) -> int:
        return self.entry(index)[2]


def log_of(*entries: tuple[str, int]) -> Log:
    """Return a log of these commands and terms, behind the first entry of all logs."""
    results = [
        (command.encode(), index, term)
        for index, (command, term) in enumerate(entries, start=2)
    ]
    return Log([(b"", 1, 0), *results])


def node(node_id: str, term: int = 1, *, leads: bool = False, **more: Any) -> Any:
    return SimpleNamespace(node_id=node_id, term=term, leads=leads, **more)


@breaks("one leader")
def two_leaders() -> Invariants:
    seen = Invariants()
    seen.check_leader(node("n1", leads=True, journal=log_of()))
    seen.check_leader(node("n2", leads=True, journal=log_of()))
    return seen


@breaks("leader completeness")
def a_leader_without_what_is_committed() -> Invariants:
    seen = Invariants()
    seen.on_apply("n1", 1, 2, [call("r").stamped(0)])
    seen.check_leader(node("n2", 2, leads=True, journal=log_of()))
    return seen


@breaks("leader completeness")
def a_leader_with_another_entry_than_is_committed() -> Invariants:
    seen = Invariants()
    seen.on_apply("n1", 2, 2, [call("r").stamped(0)], entry_term=2)
    seen.check_leader(node("n2", 3, leads=True, journal=log_of(("s", 1))))
    return seen


@breaks("log matching")
def logs_that_agree_behind_a_difference() -> Invariants:
    seen = Invariants()
    one, other = log_of(("a", 1), ("c", 2)), log_of(("b", 1), ("c", 2))
    seen.check_logs([node("n1", journal=one), node("n2", journal=other)])
    return seen


@breaks("same entries")
def another_entry_at_an_index() -> Invariants:
    seen = Invariants()
    seen.on_apply("n1", 1, 2, [call("r").stamped(0)])
    seen.on_apply("n2", 1, 2, [call("s").stamped(0)])
    return seen


@breaks("same entries")
def no_entry_at_an_index() -> Invariants:
    seen = Invariants()
    seen.on_apply("n1", 1, 2, [call("r").stamped(0)])
    seen.on_apply("n2", 1, 2, [])
    return seen


@breaks("same entries")
def an_entry_of_another_term_at_an_index() -> Invariants:
    seen = Invariants()
    seen.on_apply("n1", 2, 2, [], entry_term=1)
    seen.on_apply("n2", 2, 2, [], entry_term=2)
    return seen


@breaks("clock of a quorum")
def a_clock_of_its_own() -> Invariants:
    seen = Invariants()
    seen.on_stamp("n1", 60.0, [{60.0}, {0.0}, {0.0}])
    return seen


# --- Answers


def submission(request_id: str = "r", **more: Any) -> Submission:
    return Submission(request_id, f"n1.1.{request_id}", 10.0, call(request_id), **more)


@breaks("answered once")
def two_answers() -> Invariants:
    seen, calls = Invariants(), submission()
    seen.on_outcome(calls, NoQuorumError("no"))
    seen.on_outcome(calls, NoQuorumError("no"))
    return seen


@breaks("exactly once")
def done_twice() -> Invariants:
    seen = Invariants()
    seen.on_outcome(submission(), Applied(index=2))
    seen.on_outcome(submission(), Applied(index=3))
    return seen


@breaks("an error that tells")
def an_error_of_no_kind() -> Invariants:
    seen, bad = Invariants(), KeyError("whether it was applied?")
    seen.on_outcome(submission(), bad)  # type: ignore[arg-type]
    return seen


@breaks("an error that tells")
def a_read_with_an_error_of_no_kind() -> Invariants:
    seen, bad = Invariants(), KeyError("whether it was applied?")
    seen.on_read(Read("n1.1.0", 10.0, floor=0), bad)  # type: ignore[arg-type]
    return seen


@breaks("read answered once")
def a_read_answered_twice() -> Invariants:
    seen, read = Invariants(), Read("n1.1.0", 10.0, floor=2)
    for _ in range(2):
        seen.on_read(read, ReadPoint(index=2, state_ms=0))
    return seen


@breaks("stale read")
def a_read_of_the_past() -> Invariants:
    seen = Invariants()
    seen.on_read(Read("n1.1.0", 10.0, floor=3), ReadPoint(index=2, state_ms=0))
    return seen


@breaks("change answered once")
def a_change_answered_twice() -> Invariants:
    seen, wish = Invariants(), Wish("n1.1.0", 10.0)
    seen.on_wish(wish, 2)
    seen.on_wish(wish, 2)
    return seen


@breaks("answered in time")
def a_late_answer() -> Invariants:
    seen = Invariants()
    seen.check_late(submission(), now=11.0, slack=0.5)
    return seen


def waiting(**kinds: list[Any]) -> Invariants:
    seen = Invariants(**kinds)
    seen.check_answers(10.0, 1.0)
    assert not seen.violations
    seen.check_answers(11.1, 1.0)
    return seen


@breaks("answered in time")
def a_call_that_is_not_answered() -> Invariants:
    return waiting(submissions=[submission()])


@breaks("answered in time")
def a_call_that_is_not_answered_after_pauses() -> Invariants:
    seen = Invariants(submissions=[submission()])
    seen.check_answers(13.0, 1.0, {"n1": 12.5, "n2": 99.0})
    assert not seen.violations
    seen.check_answers(13.6, 1.0, {"n1": 12.5, "n2": 99.0})
    return seen


@breaks("answered in time")
def a_read_that_is_not_answered() -> Invariants:
    return waiting(reads=[Read("n1.1.0", 10.0, floor=0)])


@breaks("answered in time")
def a_change_that_is_not_answered() -> Invariants:
    return waiting(wishes=[Wish("n1.1.0", 10.0)])


@breaks("not applied")
def told_as_not_applied_and_applied() -> Invariants:
    calls = submission(outcomes=[NoQuorumError("no")])
    seen = Invariants(submissions=[calls])
    seen.on_apply(
        "n1", 1, 2, [replace(call("r").stamped(0), session_id=SessionId(calls.attempt))]
    )
    seen.check_applied()
    return seen


@breaks("not applied")
def administrators_told_as_not_applied_and_applied() -> Invariants:
    """Two attempts look alike, and neither is told that it may be applied."""
    by_root = replace(call("r"), session_id=SessionId("open.1"))
    attempts = [replace(submission(), call=by_root) for _ in range(2)]
    seen = Invariants(submissions=attempts)
    seen.on_apply("n1", 1, 2, [by_root.stamped(0)])
    seen.on_outcome(attempts[0], NoQuorumError("no"))
    seen.check_applied()
    assert not seen.violations
    seen.on_outcome(attempts[1], NoQuorumError("no"))
    seen.check_applied()
    return seen


# --- What is left


def machine(node_id: str, applied: dict[str, int], digest: str = "d") -> Any:
    store = SimpleNamespace(
        applied=lambda: applied,
        digest=lambda: digest,
        state=SimpleNamespace(applied_index=max(applied.values(), default=0)),
    )
    return node(node_id, store=store)


@breaks("nothing lost")
def acknowledged_and_not_on_every_node() -> Invariants:
    seen = Invariants(acked={"r": 2})
    seen.check_states([machine("n1", {"r": 2}), machine("n2", {})])
    return seen


@breaks("equal digests")
def two_states() -> Invariants:
    seen = Invariants()
    seen.check_states([machine("n1", {}, "one"), machine("n2", {}, "other")])
    return seen


# --- Members


def members(**roles: str) -> Configuration:
    return Configuration.of(
        Member(node_id=NodeId(name), address="", role=MemberRole[role])
        for name, role in roles.items()
    )


THREE = members(n1="VOTER", n2="VOTER", n3="VOTER")


def memberships(configuration: Configuration) -> Memberships:
    world: Any = SimpleNamespace(invariants=Invariants())
    return Memberships(world, random.Random(1), 0.0, 3, configuration=configuration)


def invariants_of(cluster: Memberships) -> Invariants:
    return cluster.world.invariants


@breaks("what makes no sense is refused")
def a_primary_that_is_removed_while_it_leads() -> Invariants:
    seen = Invariants()
    check_refused(seen, Wish("n1.1.0", 0.0), Remove(NodeId("n1")), 7)
    return seen


@breaks("one change at a time")
def two_voters_less_at_once() -> Invariants:
    result = memberships(THREE)
    both = [(2, THREE), (3, members(n1="VOTER"))]
    journal = SimpleNamespace(_configurations=both, first_index=5)
    engine = SimpleNamespace(raftCommitIndex=0)
    result.look_at(
        node("n1", journal=journal, running=SimpleNamespace(engine=engine)),
    )
    return invariants_of(result)


@breaks("no outsider leads")
def a_removed_node_leads() -> Invariants:
    result = memberships(THREE.without(NodeId("n3")))
    result.on_leader(node("n3", leads=True))
    return invariants_of(result)


@breaks("no outsider leads")
def a_wiped_node_leads() -> Invariants:
    result = memberships(THREE)
    result.wiped.add("n3")
    result.on_leader(node("n3", leads=True))
    return invariants_of(result)


@breaks("changes kept")
def a_removal_that_is_forgotten() -> Invariants:
    result = memberships(THREE)
    result.acknowledged.append(Remove(NodeId("n3")))
    result.check()
    return invariants_of(result)


# --- Snapshots


def install(
    before: int, index: int, committed: int, digest: str, body: bytes = b"body"
) -> Invariants:
    seen = Invariants()
    seen.applied[committed] = ()
    installed: Any = machine("n1", {}, digest)
    installed.invariants = seen
    installed.journal = SimpleNamespace(
        first_index=index, configuration_at=lambda _: THREE, term_at=lambda _: 1
    )
    installed.disk = SimpleNamespace(read=lambda _name: body)
    announced = hashlib.sha256(b"body").digest()
    manifest: Any = SimpleNamespace(
        index=index, digest="d", body="snapshot.6", sha256=announced
    )
    check_installed(installed, manifest, before)
    return seen


@breaks("never back")
def an_old_snapshot_installed() -> Invariants:
    return install(before=5, index=5, committed=9, digest="d")


@breaks("committed only")
def a_snapshot_of_what_is_not_committed() -> Invariants:
    return install(before=5, index=10, committed=9, digest="d")


@breaks("snapshot digest")
def another_state_than_the_snapshots() -> Invariants:
    return install(before=5, index=6, committed=9, digest="other")


@breaks("snapshot as announced")
def another_body_than_the_announced_one() -> Invariants:
    return install(before=5, index=6, committed=9, digest="d", body=b"bodx")


# --- Processes


def raising(error: Exception, *, starting: bool, signed: int = 0) -> Invariants:
    """*signed*: the entry that one operator wants to skip; the next one is 2."""
    sim = SimCluster(1, Scenario())
    machine = sim.nodes["n1"]
    log = log_of(("a", 1), ("b", 1))
    if signed:
        machine.store.state.apply(1, ())
        digest = digest_of(log.entry(signed)[0])
        stop = Stop(index=signed, term=1, digest=digest, commands="", cause="")
        sim.statements.folder("n1").read = (signed_by("n2", stop, 0),)

    def act(_replica: object) -> None:
        raise error

    replica: Any = SimpleNamespace(
        engine=SimpleNamespace(journal=log, raftCommitIndex=3)
    )
    machine.replica = None if starting else replica
    machine.remember_what_it_had = lambda: None  # type: ignore[method-assign]
    sim.run_on(machine, act, starting=starting)
    return sim.invariants


@breaks("no halt")
def a_node_that_stops_without_cause() -> Invariants:
    return raising(Fatal("no"), starting=False)


@breaks("no halt")
def a_node_that_stops_before_the_entry_that_an_operator_wants_to_skip() -> Invariants:
    assert not raising(Fatal("no"), starting=False, signed=2).violations
    return raising(Fatal("no"), starting=False, signed=3)


@breaks("starts unaided")
def a_node_that_does_not_start() -> Invariants:
    return raising(StartRefusedError("no"), starting=True)


@breaks("no exception")
def a_bug() -> Invariants:
    return raising(KeyError("no"), starting=False)


@breaks("progress")
def a_cluster_that_stays_as_it_is() -> Invariants:
    sim = SimCluster(1, Scenario(seconds=0.1, profile=Profile.MILD))
    sim.heal = lambda _seconds=0.0: False  # type: ignore[method-assign]
    sim.run()
    return sim.invariants


# --- Skipped entries


@breaks("skipped by a majority")
def an_entry_skipped_by_half_of_the_voters() -> Invariants:
    seen = Invariants()
    check_skipped(seen, "n1", 7, {"n1", "n2"}, ["n1", "n2", "n3"])
    assert not seen.violations
    check_skipped(seen, "n1", 7, {"n1", "n2"}, ["n1", "n2", "n3", "n4"])
    return seen
