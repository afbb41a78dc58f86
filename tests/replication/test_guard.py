# SPDX-License-Identifier: Apache-2.0
"""Each fence of `guard` and `engine`, shown by a script; some also without it."""

import pickle

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.rollback import Hello
from tests.replication.bench import Bench, entry
from tests.simulation import protections


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def bench5(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch, members=5)


# --- Acknowledgements


def test_entries_are_acknowledged_after_the_next_sync_and_not_before(
    bench: Bench,
) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    assert bench.take(frames.NEXT_NODE_IDX) == []
    assert bench.engine.journal.durable_index == 1
    bench.tick()
    [(peer, ack)] = bench.take(frames.NEXT_NODE_IDX)
    assert peer == "n2"
    assert ack == {
        "type": frames.NEXT_NODE_IDX,
        "term": 1,
        "next_node_idx": 3,
        "reset": False,
        "success": True,
    }
    assert bench.engine.journal.durable_index == 2


def test_one_sync_and_one_word_serve_all_that_a_tick_has_received(
    bench: Bench,
) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.tick()
    before = bench.engine.journal.syncs
    for index in range(3, 13):
        bench.append("n2", 1, (index - 1, 1), entry(index, 1))
    bench.tick()
    text = [ack["next_node_idx"] for _, ack in bench.take(frames.NEXT_NODE_IDX)]
    assert text == [3, 13]
    assert bench.engine.journal.syncs == before + 1


def test_what_was_just_acknowledged_is_not_said_again(bench: Bench) -> None:
    """That more is committed is news for a follower; its answer would be none."""
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.tick()
    assert len(bench.take(frames.NEXT_NODE_IDX)) == 1
    bench.append("n2", 1, (2, 1), commit=2)
    bench.tick(0.01)
    assert not bench.take(frames.NEXT_NODE_IDX)
    assert bench.engine.raftLastApplied == 2


def test_a_leader_hears_of_a_follower_with_every_heartbeat(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.tick()
    bench.take()
    for _ in range(5):
        bench.append("n2", 1, (2, 1))
        bench.tick(bench.engine.settings.heartbeat_s)
    assert len(bench.take(frames.NEXT_NODE_IDX)) == 5


def test_over_another_link_everything_is_said_again(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.tick()
    bench.take()
    bench.guard.disconnected("n2")
    bench.guard.connected("n2", Hello(""))
    bench.append("n2", 1, (2, 1))
    bench.tick()
    assert len(bench.take(frames.NEXT_NODE_IDX)) == 1


def test_that_something_is_missing_is_always_said(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.tick()
    bench.take()
    for _ in range(2):
        bench.append("n2", 1, (7, 1), entry(8, 1))
    bench.tick()
    refusals = [ack for _, ack in bench.take(frames.NEXT_NODE_IDX)]
    assert [ack["success"] for ack in refusals] == [False, False]


def test_an_acknowledgement_of_more_covers_none_of_another_term(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.append("n2", 2, (2, 1), entry(3, 2))
    bench.tick()
    text = [
        (a["term"], a["next_node_idx"]) for _, a in bench.take(frames.NEXT_NODE_IDX)
    ]
    assert text == [(1, 3), (2, 4)]


def test_nothing_is_acknowledged_when_the_sync_fails(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.disk.failing = True
    with pytest.raises(Fatal, match="writing the journal failed"):
        bench.tick()
    assert bench.take(frames.NEXT_NODE_IDX) == []


def stale_acknowledgements_commit(bench: Bench) -> bool:
    """
    Lead in two terms, and get in the second what was meant for the first.

    Two of five followers acknowledged an entry that they have cut off since.
    """
    old = bench.lead()
    bench.propose("a")
    bench.tick()
    last = bench.engine.journal.last_index
    bench.append("n5", old + 1, (last, old), commit=1)  # Another node leads.
    term = bench.elect()
    noop = bench.engine.journal.last_index
    for follower in ("n2", "n3"):
        bench.acknowledge(follower, noop + 1, old)
    bench.tick()
    assert term > old
    return bench.engine.raftCommitIndex >= noop


def test_an_acknowledgement_of_an_earlier_term_does_not_count(bench5: Bench) -> None:
    assert not stale_acknowledgements_commit(bench5)
    assert bench5.guard.dropped["acknowledgement of another term"] == 2


def test_without_the_fence_an_entry_commits_on_one_node(
    bench5: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.ignore_term_of_acks(monkeypatch)
    assert stale_acknowledgements_commit(bench5)


def test_an_acknowledgement_from_no_member_does_not_count(bench: Bench) -> None:
    term = bench.elect()
    bench.acknowledge("n9", 3, term)
    bench.tick()
    assert bench.engine.raftCommitIndex == 1
    assert bench.guard.dropped["not a member"] == 1


def test_an_acknowledgement_beyond_the_log_does_not_count(bench: Bench) -> None:
    term = bench.elect()
    bench.acknowledge("n2", 99, term)
    bench.tick()
    assert bench.engine.raftCommitIndex == 1


def test_a_request_beyond_the_log_does_not_stop_the_leader(bench: Bench) -> None:
    """From a learner too: it counts in no quorum, but decides what it is sent."""
    term = bench.lead()
    journal = bench.engine.journal
    learner = Member(node_id=NodeId("n4"), address="", role=MemberRole.LEARNER)
    bench.engine.append_configuration(journal.configuration.with_member(learner))
    bench.guard.connected("n4", Hello(""))
    for voter in bench.others:
        bench.acknowledge(voter, journal.last_index + 1, term)
    bench.tick()
    for follower in ("n2", "n4"):
        for reset in (False, True):
            bench.acknowledge(follower, 10**9, term, reset=reset, success=False)
            bench.take()
            bench.tick(0.2)
            sent = bench.take(frames.APPEND_ENTRIES)
            assert any(peer == follower for peer, _ in sent)


def test_a_reset_never_goes_below_what_was_acknowledged(bench: Bench) -> None:
    term = bench.lead()
    acked = bench.engine.journal.last_index
    bench.take()
    bench.acknowledge("n2", 1, term, reset=True, success=False)
    bench.tick(0.2)
    previous = {p: m["prevLogIdx"] for p, m in bench.take(frames.APPEND_ENTRIES)}
    assert previous["n2"] == acked


def test_a_leader_does_not_count_itself_before_its_entry_is_on_disk(
    bench: Bench,
) -> None:
    term = bench.lead()
    outcome = bench.propose("a")
    bench.disk.failing = True
    with pytest.raises(Fatal):
        bench.tick()
    for follower in bench.others:
        bench.acknowledge(follower, bench.engine.journal.last_index + 1, term)
    with pytest.raises(Fatal):
        bench.tick()
    assert outcome == []
    assert "a" not in bench.state.results


# --- Votes


def duplicate_votes_elect(bench: Bench) -> bool:
    bench.name_journals()
    term = bench.campaign()
    for _ in range(3):
        bench.receive("n2", frames.RESPONSE_VOTE, term=term)
    return bench.engine.is_leader()


def test_a_voter_is_counted_once(bench5: Bench) -> None:
    assert not duplicate_votes_elect(bench5)
    assert bench5.guard.dropped["duplicate vote"] == 2


def test_without_the_fence_two_of_five_elect_a_leader(
    bench5: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.count_votes_twice(monkeypatch)
    assert duplicate_votes_elect(bench5)


def test_a_vote_of_another_term_does_not_count(bench: Bench) -> None:
    term = bench.campaign()
    bench.receive("n2", frames.RESPONSE_VOTE, term=term - 1)
    assert not bench.engine.is_leader()


def majority_elects(bench: Bench) -> bool:
    term = bench.campaign()
    bench.receive("n2", frames.RESPONSE_VOTE, term=term)
    return bench.engine.is_leader()


def test_the_first_leader_has_the_votes_of_all(bench: Bench) -> None:
    """A voter that loses its journal before it is named may vote twice in a term."""
    assert not majority_elects(bench)
    term = bench.engine.raftCurrentTerm
    bench.receive("n3", frames.RESPONSE_VOTE, term=term)
    assert bench.engine.is_leader()


def test_without_the_fence_a_majority_elects_the_first_leader(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.lead_first_by_a_majority(monkeypatch)
    assert majority_elects(bench)


def test_a_majority_elects_once_the_journals_have_names(bench: Bench) -> None:
    bench.name_journals()
    assert majority_elects(bench)


def campaigns_without_its_journal(bench: Bench) -> bool:
    bench.name_journals(own="the lost journal")
    bench.take()
    for _ in range(20):
        bench.tick(0.5)
    return bool(bench.take(frames.PRE_VOTE))


def test_a_node_without_its_journal_does_not_campaign(bench: Bench) -> None:
    """Voters that lack its name would take its vote for itself for its only one."""
    assert not campaigns_without_its_journal(bench)


def test_without_the_fence_a_node_campaigns_without_its_journal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.campaign_without_the_journal(monkeypatch)
    assert campaigns_without_its_journal(bench)


def votes_twice_over_a_power_cut(bench: Bench) -> bool:
    votes = []
    for candidate in ("n2", "n3"):
        bench.receive(
            candidate, frames.REQUEST_VOTE, term=7, last_log_index=1, last_log_term=0
        )
        votes += bench.take(frames.RESPONSE_VOTE)
        bench.lose_power()
    return len(votes) == 2


def test_a_vote_is_remembered_over_a_power_cut(bench: Bench) -> None:
    assert not votes_twice_over_a_power_cut(bench)


def test_without_the_sync_a_node_votes_twice_in_a_term(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.vote_unsynced(monkeypatch)
    assert votes_twice_over_a_power_cut(bench)


def test_a_node_that_is_cut_off_does_not_raise_its_term(bench: Bench) -> None:
    term = bench.engine.raftCurrentTerm
    for _ in range(50):
        bench.tick(0.5)
    assert bench.engine.raftCurrentTerm == term
    assert len(bench.take(frames.PRE_VOTE)) > 10


def test_a_member_that_hears_from_a_leader_grants_no_pre_vote(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0))
    ask = {"term": 2, "last_log_index": 1, "last_log_term": 0}
    bench.receive("n3", frames.PRE_VOTE, **ask)
    bench.now += 1.0
    bench.receive("n3", frames.PRE_VOTE, **ask)
    granted = [m["granted"] for _, m in bench.take(frames.PRE_VOTE_ANSWER)]
    assert granted == [False, True]


def test_a_candidate_that_lacks_entries_gets_no_pre_vote(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.now += 1.0
    ask = {"term": 2, "last_log_index": 1, "last_log_term": 0}
    bench.receive("n3", frames.PRE_VOTE, **ask)
    [(_, answer)] = bench.take(frames.PRE_VOTE_ANSWER)
    assert not answer["granted"]


# --- The log of a follower


def after_an_old_message_comes_again(bench: Bench) -> list[tuple[int, int]]:
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.append("n2", 1, (2, 1), entry(3, 1), entry(4, 1))
    bench.tick()
    bench.take()
    bench.append("n2", 1, (1, 0), entry(2, 1))
    bench.tick()
    return bench.log()


def test_a_message_that_comes_again_cuts_nothing_off(bench: Bench) -> None:
    assert after_an_old_message_comes_again(bench)[-1] == (4, 1)
    [(_, ack)] = bench.take(frames.NEXT_NODE_IDX)
    assert ack["next_node_idx"] == 3  # Only what the message has confirmed.


def test_without_the_fence_acknowledged_entries_are_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.cut_tail(monkeypatch)
    assert after_an_old_message_comes_again(bench)[-1] == (2, 1)


def test_a_heartbeat_does_not_commit_what_it_does_not_confirm(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1))
    bench.append("n3", 2, (1, 0), commit=3)
    assert bench.engine.raftCommitIndex == 1


def test_what_conflicts_is_replaced(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1))
    bench.append("n3", 2, (1, 0), entry(2, 1), entry(3, 2), commit=3)
    bench.tick()
    assert bench.log() == [(1, 0), (2, 1), (3, 2)]
    assert bench.state.applied_index == 3


def test_a_conflict_with_a_committed_entry_stops_the_node(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1), commit=2)
    bench.tick()
    with pytest.raises(Fatal, match="committed here"):
        bench.append("n3", 2, (1, 0), entry(2, 2))
    with pytest.raises(Fatal, match="committed here"):
        bench.append("n3", 2, (2, 2))


def test_a_whole_term_in_conflict_is_skipped_at_once(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), *(entry(i, 1) for i in range(2, 30)))
    bench.tick()
    bench.take()
    bench.append("n3", 2, (29, 2))
    bench.append("n3", 2, (35, 2))  # Was under way: must not undo the back-off.
    bench.tick()
    acks = [m for _, m in bench.take(frames.NEXT_NODE_IDX)]
    assert [(m["next_node_idx"], m["reset"]) for m in acks] == [(2, True), (2, True)]


@pytest.mark.parametrize(
    "command",
    [
        b"\x02" + pickle.dumps(["add", "n9", None]),
        b"\x03" + pickle.dumps(1),
        b"\x01more",
        b"",
        b"\x00" + bytes(40_000),
    ],
    ids=["membership", "version", "no-op with more", "empty", "too large"],
)
def test_entries_that_are_none_of_ours_are_refused(
    bench: Bench, command: bytes
) -> None:
    bench.append("n2", 1, (1, 0), (command, 2, 1))
    bench.tick()
    assert bench.log() == [(1, 0)]
    assert bench.guard.dropped["malformed entries"] == 1


def test_a_leader_of_an_earlier_term_is_told(bench: Bench) -> None:
    bench.append("n2", 5, (1, 0))
    bench.append("n3", 4, (1, 0), entry(2, 4))
    [(peer, report)] = bench.take(frames.STALE_TERM)
    assert (peer, report["term"]) == ("n3", 5)
    assert bench.log() == [(1, 0)]


def test_a_leader_that_is_told_of_a_newer_term_steps_down(bench: Bench) -> None:
    term = bench.lead()
    bench.receive("n2", frames.STALE_TERM, term=term + 1)
    assert not bench.engine.is_leader()
    assert bench.engine.raftCurrentTerm == term + 1
    assert bench.take(frames.RESPONSE_VOTE) == []
