# SPDX-License-Identifier: Apache-2.0
"""Fences that no random schedule shows: each by a script, on one replica."""

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import CONFIGURATION
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.membership_changes import AddLearner
from sparecode_node.replication.raft.rollback import Hello
from tests.replication.bench import ME, Bench, entry


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def members_entry(index: int, term: int, **roles: MemberRole) -> Entry:
    """Return an entry that holds the members."""
    members = (
        Member(node_id=NodeId(name), address="", role=role)
        for name, role in roles.items()
    )
    return (CONFIGURATION + Configuration.of(members).to_bytes(), index, term)


def test_a_new_primary_proposes_when_all_before_is_applied(bench: Bench) -> None:
    """Who stamps must have seen what the primary before has committed."""
    bench.append("n2", 1, (1, 0), entry(2, 1))  # Committed, as it will turn out.
    term = bench.elect()
    outcome = bench.propose("a")
    bench.tick()
    noop = bench.engine.journal.last_index
    assert bench.log()[-1] == (noop, term)  # Nothing is stamped yet.
    assert bench.state.applied_index < 2
    bench.acknowledge("n2", noop + 1, term)
    bench.tick()
    assert bench.state.applied_index == noop
    bench.tick()
    assert bench.engine.journal.last_index == noop + 1
    assert outcome == []


def test_an_acknowledgement_covers_what_its_message_confirms(bench: Bench) -> None:
    """Not what stands behind it: that is of a leader that fell, and may go."""
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1))
    bench.tick()
    bench.take()
    bench.append("n3", 2, (1, 0), entry(2, 1))
    bench.tick()
    acks = bench.take(frames.NEXT_NODE_IDX)
    assert [(peer, ack["next_node_idx"]) for peer, ack in acks] == [("n3", 3)]
    assert bench.log()[-1] == (3, 1)


def test_the_journals_get_their_names_before_members_change(bench: Bench) -> None:
    """Else the first change names the leader alone, and its loss leaves no leader ever."""
    for other in bench.others:
        bench.names[other] = f"journal of {other}"
        bench.guard.connected(other, Hello(bench.names[other]))
    term = bench.elect()
    joins = AddLearner(
        Member(node_id=NodeId("n9"), address="", role=MemberRole.LEARNER)
    )
    bench.replica.change_members(joins, timeout_s=5, callback=lambda _outcome: None)
    for _ in range(2):
        for other in bench.others:
            bench.acknowledge(other, bench.engine.journal.last_index + 1, term)
        bench.tick()
    changes = [
        Configuration.from_bytes(command[1:])
        for command, _, _ in bench.engine.journal[:]
        if command[:1] == CONFIGURATION
    ][-2:]
    assert [each.is_named for each in changes] == [True, True]
    assert ["n9" in each.ids for each in changes] == [False, True]


def test_a_candidate_that_is_no_voter_deposes_no_living_leader(
    bench: Bench,
) -> None:
    """A learner, or a member of a newer configuration only (Raft thesis, 4.2.3)."""
    voter, learner = MemberRole.VOTER, MemberRole.LEARNER
    four = members_entry(2, 1, n1=voter, n2=voter, n3=voter, n4=learner)
    bench.append("n2", 1, (1, 0), four)
    bench.tick()
    ask = {"term": 9, "last_log_index": 9, "last_log_term": 8}
    bench.receive("n4", frames.REQUEST_VOTE, **ask)
    assert bench.engine.raftCurrentTerm == 1
    assert bench.engine.leader() == "n2"
    # Nobody lives: it may be a voter by what has not come here yet.
    bench.now += 1.0
    bench.receive("n4", frames.REQUEST_VOTE, **ask)
    assert bench.engine.raftCurrentTerm == 9


def test_a_learner_asks_for_no_votes(bench: Bench) -> None:
    """Without a leader it waits and disturbs no member."""
    voter, learner = MemberRole.VOTER, MemberRole.LEARNER
    roles = {ME: learner, "n2": voter, "n3": voter}
    bench.append("n2", 1, (1, 0), members_entry(2, 1, **roles))
    bench.take()
    for _ in range(50):
        bench.tick(0.5)
    assert bench.engine.raftCurrentTerm == 1
    assert bench.take(frames.PRE_VOTE) == []
    assert bench.take(frames.REQUEST_VOTE) == []
