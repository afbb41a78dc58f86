# SPDX-License-Identifier: Apache-2.0
"""The same, of machines that have lost something, and of those that have not."""

import random
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.log.boots import NOWHERE, Boot, BootFile, Seen
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Admission, Refusal
from sparecode_node.replication.raft.rollback import REPEATED, Hello, Rollbacks
from sparecode_node.replication.replica.replica import ReplicaStatus
from tests.simulation.broken_promises import NAMED, acknowledged, looked_at, said, three
from tests.simulation.broken_runs import breaks
from tests.simulation.disk import Disk
from tests.simulation.heard_promises import WRITTEN_S, HeardPromises
from tests.simulation.intact import check_refused, judge_refusals
from tests.simulation.invariants import Invariants
from tests.simulation.nodes.refusals import JudgedPeers


def counted(nodes: dict[str, Any], index: int, term: int, seen: Invariants) -> None:
    """Let n2 acknowledge entries to n1, which leads and counts them."""
    said(nodes, "n1", "n2", frames.APPEND_ENTRIES, seen, term=term, prevLogIdx=index)
    acknowledged(nodes, index, term, seen, by="n2")
    nodes["n1"].replica.guard.progress = lambda peer: SimpleNamespace(
        acked=index if peer == "n2" else 0
    )


def wiped(nodes: dict[str, Any], seen: Invariants, journal: str = "") -> None:
    """Let n2 lose its log, and return with this journal."""
    n2 = nodes["n2"]
    seen.promises.forget("n2")
    del n2.journal.entries[1:]
    n2.journal.journal_id = journal or n2.journal.journal_id


def counted_before_its_return() -> tuple[dict[str, Any], Invariants]:
    """Let the leader of term 1 count two entries that n2 then loses."""
    nodes, seen = three(), Invariants()
    for each in ("n1", "n2"):
        nodes[each].journal.append(1, 1)
    counted(nodes, 3, 1, seen)
    looked_at(nodes, "n1", seen)
    wiped(nodes, seen)
    nodes["n1"].replica.engine.raftCommitIndex = 3
    looked_at(nodes, "n1", seen)
    assert not seen.violations
    return nodes, seen


@breaks("counted what a member has")
def a_leader_that_counts_in_another_term_what_a_member_has_lost() -> Invariants:
    nodes, seen = counted_before_its_return()
    nodes["n1"].term = 2
    return looked_at(nodes, "n1", seen)


@breaks("committed by a majority")
def a_commit_of_what_a_returned_member_does_not_have() -> Invariants:
    nodes, seen = counted_before_its_return()
    nodes["n1"].journal.append(1)
    nodes["n1"].replica.engine.raftCommitIndex = 4
    return looked_at(nodes, "n1", seen)


@breaks("counted with the known journal")
def a_leader_that_counts_a_member_with_another_journal() -> Invariants:
    nodes, seen = counted_before_its_return()
    nodes["n2"].journal.journal_id = "a new one"
    for each in ("n1", "n2"):
        nodes[each].journal.entries[1:] = [(b"", index, 1) for index in (2, 3, 4)]
    counted(nodes, 4, 1, seen)
    return looked_at(nodes, "n1", seen)


@breaks("one vote in a term")
def two_votes_in_a_term_after_a_return() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=2)
    seen.promises.forget("n3")
    said(nodes, "n3", "n2", frames.RESPONSE_VOTE, seen, term=2)
    assert not seen.violations
    return said(nodes, "n3", "n1", frames.RESPONSE_VOTE, seen, term=2)


@breaks("votes are kept")
def a_voter_that_starts_without_its_vote_after_a_return() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=2)
    seen.promises.forget("n3")
    looked_at(nodes, "n3", seen)
    said(nodes, "n3", "n2", frames.RESPONSE_VOTE, seen, term=2)
    assert not seen.violations
    nodes["n3"].life, nodes["n3"].journal.term = 2, 2
    return looked_at(nodes, "n3", seen)


@breaks("votes are kept")
def a_voter_that_starts_without_the_vote_that_was_left_to_it() -> Invariants:
    nodes, seen = three(), Invariants()
    seen.promises.forget("n3")
    journal = nodes["n3"].journal
    journal.term, journal.vote = 2, "n1"
    assert not looked_at(nodes, "n3", seen).violations
    nodes["n3"].life, journal.vote = 2, None
    return looked_at(nodes, "n3", seen)


# --- Refusals of machines that have lost nothing


def judged(*, late_calls: bool = False) -> tuple[Any, Rollbacks]:
    """Return n1, whose refusals are judged, and what it knows of starts."""
    node = three()["n1"]
    node.invariants, node.running = Invariants(), node.replica
    start = Seen("journal of n2", 1, "one", (1, 1, 5))
    node.journal.boots = SimpleNamespace(
        seen={"n2": start}, save=lambda _ids, *, sync: sync
    )
    node.journal.agreed_configuration = NAMED
    rollbacks = Rollbacks(node.journal, lambda: 2, lambda: 100.0)
    guard = node.running.guard
    guard.rollbacks, guard.admission = rollbacks, Admission(node.journal, rollbacks)
    node.late_calls = late_calls
    judge_refusals(node)
    return node, rollbacks


@breaks("intact members are not refused")
def a_link_refused_as_of_an_older_copy() -> Invariants:
    node, _ = judged()
    start, hello = Boot(1, "one", NOWHERE), "journal of n2"
    shown = Hello(hello, boots=(start,), position=(1, 1, 4))
    admission = node.running.guard.admission
    assert admission.refusal_of_link("n2", shown, fresh=False) is None
    assert not node.invariants.violations
    assert admission.refusal_of_link("n2", shown, fresh=True) == Refusal.ROLLED_BACK
    return node.invariants  # type: ignore[no-any-return]


@breaks("intact members are not refused")
def a_member_reported_as_an_older_copy() -> Invariants:
    """Of whole nodes a call may come late, but not one after the other."""
    node, rollbacks = judged(late_calls=True)
    start, hello = Boot(1, "one", NOWHERE), "journal of n2"
    shown = Hello(hello, boots=(start,), position=(1, 1, 4))
    admission = node.running.guard.admission
    for _ in range(REPEATED):
        assert not node.invariants.violations
        assert admission.refusal_of_link("n2", shown, fresh=True) == Refusal.ROLLED_BACK
    assert rollbacks.refused == ["n2"]
    return node.invariants  # type: ignore[no-any-return]


@breaks("intact members are not refused")
def a_message_refused_for_another_journal() -> Invariants:
    node, _ = judged()
    why_not, kind = node.running.guard.admission.why_not, frames.CONFIRM
    assert why_not("n2", kind, Hello("a new one"), has_leader=False)
    return node.invariants  # type: ignore[no-any-return]


@breaks("intact members are not refused")
def a_listener_that_refuses_another_journal() -> Invariants:
    node, _ = judged()
    peers = JudgedPeers(NodeId("n1"), "c")
    peers.machine = node
    peers.take_status(ReplicaStatus(configuration=NAMED, agreed=NAMED))
    assert peers.refusal(NodeId("n2"), Hello("a new one")) == Refusal.ANOTHER_JOURNAL
    return node.invariants  # type: ignore[no-any-return]


@breaks("intact members are not refused")
def a_machine_that_is_refused_before_it_has_lost_something() -> Invariants:
    seen = Invariants()
    seen.promises.forget("n2")
    check_refused(seen, "n1", "n2", Refusal.ROLLED_BACK)
    assert not seen.violations
    check_refused(seen, "n1", "n3", Refusal.ROLLED_BACK)
    return seen


# --- What is remembered of promises


def heard(*, file: bool) -> Invariants:
    """Let n1 hear n2 promise more than it remembers, or than its file says."""
    node, _ = judged()
    node.sim, node.disk, journal = (
        SimpleNamespace(now=0.0),
        Disk("n1", random.Random(1)),
        node.journal,
    )
    written = BootFile(node.disk)
    written.open("journal of n1", NOWHERE, "nonce")
    written.seen = dict(journal.boots.seen)
    written.save(["n2"], sync=False)
    judge, start = HeardPromises(node), Boot(1, "one", NOWHERE)
    told = {"type": frames.TELL_CLOCK, "term": 1, "entry_term": 1, "entry_index": 5}
    shown = Hello("journal of n2", boots=(start,))
    judge.on_counted("n2", told, shown)
    node.sim.now += WRITTEN_S
    judge.on_step()
    assert not node.invariants.violations
    told["entry_index"] = 6
    if file:
        journal.boots.seen["n2"] = Seen("journal of n2", 1, "one", (1, 1, 6))
    judge.on_counted("n2", told, shown)
    assert bool(node.invariants.violations) != file
    node.sim.now += WRITTEN_S
    judge.on_step()
    return node.invariants  # type: ignore[no-any-return]


@breaks("promises of others are remembered")
def a_promise_that_is_forgotten() -> Invariants:
    return heard(file=False)


@breaks("promises of others are remembered")
def a_promise_that_is_not_written() -> Invariants:
    return heard(file=True)


RETURNED_RUNS = True
"""Importing this module adds its runs."""
