# SPDX-License-Identifier: Apache-2.0
"""The engine: what is off is impossible; proposals are answered; restarts fit."""

import pickle
import subprocess
import sys
from typing import Any

import pytest
from pysyncobj import SyncObj

from sparecode_node.replication.codec import decode_entry
from sparecode_node.replication.errors import (
    Fatal,
    NoPrimaryError,
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
)
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.engine import OFF
from sparecode_node.replication.raft.read_index import Word
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.settings import (
    APPEND_BYTES_MAX,
    CALLS_BESIDE_MAX,
    CALLS_PER_ENTRY_MAX,
    COMMAND_BYTES_MAX,
    ENTRIES_IN_FLIGHT_MAX,
    PROPOSALS_QUEUED_MAX,
    WINDOW_ENTRIES,
)
from sparecode_node.statemachine.results import Applied
from tests.replication.bench import Bench, entry
from tests.replication.recording_state import FixedStamper, RecordingState


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


# --- What is off


@pytest.mark.parametrize(
    "message",
    [
        {"type": "append_entries", "term": 9, "commit_index": 9, "serialized": None},
        {"type": "timeout_now", "term": 9},
        {"type": "apply_command", "command": b"\x00x", "request_id": 1},
        {"type": "apply_command_response", "request_id": 1, "error": 1},
    ],
    ids=lambda m: m["type"],
)
def test_what_is_off_has_no_form_on_the_wire(
    bench: Bench, message: dict[str, Any]
) -> None:
    with pytest.raises(frames.FrameError):
        frames.encode(message)
    with pytest.raises(Fatal):
        bench.guard.send(next(iter(bench.engine.otherNodes)), message)


@pytest.mark.parametrize(
    "kind", ["timeout_now", "apply_command", "apply_command_response", "status", "add"]
)
def test_messages_of_other_types_are_dropped(bench: Bench, kind: str) -> None:
    before = bench.engine.raftCurrentTerm
    bench.receive("n2", kind, term=9, command=b"\x00x", request_id=1)
    bench.tick()
    assert bench.guard.dropped["unknown type"] == 1
    assert bench.engine.raftCurrentTerm == before


@pytest.mark.parametrize("data", [pickle.dumps({"type": "status"}), b"", b"\xff" * 9])
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.parse(data)


@pytest.mark.parametrize("name", OFF)
def test_disabled_methods_raise(bench: Bench, name: str) -> None:
    with pytest.raises(Fatal, match="is off"):
        getattr(bench.engine, name)()


def test_pysyncobj_cannot_unpickle_once_the_engine_is_there() -> None:
    """In a process of its own: the tests' own refusal does not reach it."""
    script = (
        "import pysyncobj.journal, pysyncobj.pickle\n"
        "import sparecode_node.replication.raft.engine\n"
        "from sparecode_node.replication.errors import Fatal\n"
        "for module in (pysyncobj.pickle, pysyncobj.journal):\n"
        "    try:\n"
        "        print(module.loads(b'I1\\n.'))\n"
        "    except Fatal:\n"
        "        print('off')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert ran.stdout == "off\noff\n"


def test_pysyncobj_connects_no_administration(bench: Bench) -> None:
    assert bench.guard._onUtilityMessageCallbacks == {}
    assert bench.guard._onReadonlyNodeConnectedCallback is None


def test_the_journal_is_never_shortened_at_its_beginning(bench: Bench) -> None:
    bench.lead()
    with pytest.raises(Fatal, match="must not compact"):
        bench.engine.journal.deleteEntriesTo(1)
    with pytest.raises(Fatal):
        bench.engine.journal.clear()
    SyncObj.forceLogCompaction(bench.engine)  # Even if PySyncObj would.
    bench.engine.conf.logCompactionMinEntries = 2
    bench.tick(1000)
    assert bench.engine.journal[0][1] == 1


# --- Proposals


def test_a_proposal_is_answered_when_a_quorum_has_it(bench: Bench) -> None:
    term = bench.lead()
    outcome = bench.propose("a")
    bench.tick()
    assert outcome == []
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick()
    assert outcome == [Applied(index=bench.engine.journal.last_index)]


def commit_one(bench: Bench) -> tuple[int, int]:
    """
    Commit a call; return its term and index.

    The followers do not know of the commit yet.
    """
    term = bench.lead()
    bench.propose("a")
    bench.tick()
    last = bench.engine.journal.last_index
    bench.acknowledge("n2", last + 1, term)
    bench.take()
    bench.tick()
    return term, last


def commit_announcements(bench: Bench) -> dict[str, int]:
    """Return the commit index announced to each follower."""
    return {p: m["commit_index"] for p, m in bench.take(frames.APPEND_ENTRIES)}


def test_followers_hear_soon_what_is_committed(bench: Bench) -> None:
    """Without waiting for a heartbeat, which would be five times as late."""
    _, last = commit_one(bench)
    assert commit_announcements(bench) == {}
    bench.tick(bench.engine.settings.tick_s)
    assert commit_announcements(bench) == {"n2": last, "n3": last}
    bench.tick(bench.engine.settings.tick_s)
    assert commit_announcements(bench) == {}


def test_the_next_entry_says_what_is_committed(bench: Bench) -> None:
    _, last = commit_one(bench)
    bench.propose("b")
    bench.tick()
    assert commit_announcements(bench) == {"n2": last, "n3": last}
    bench.tick(bench.engine.settings.tick_s)
    assert commit_announcements(bench) == {}


def test_followers_hear_of_a_commit_at_once_when_a_member_waits_for_it(
    bench: Bench,
) -> None:
    term, last = commit_one(bench)
    word = Word(member="n3", hello=Hello(""), term=term)
    bench.replica.read(timeout_s=3.0, callback=lambda _: None, word=word)
    bench.tick()
    assert commit_announcements(bench) == {"n2": last, "n3": last}


def test_a_read_on_the_leader_tells_no_follower(bench: Bench) -> None:
    commit_one(bench)
    bench.replica.read(timeout_s=3.0, callback=lambda _: None)
    bench.tick()
    assert commit_announcements(bench) == {}


def test_what_is_no_call_is_told_at_once(bench: Bench) -> None:
    """A member that is removed must hear of it while it has its link."""
    term = bench.elect()
    last = bench.engine.journal.last_index
    bench.tick()
    bench.take()
    bench.acknowledge("n2", last + 1, term)
    bench.tick()
    assert commit_announcements(bench) == {"n2": last, "n3": last}


def test_what_is_committed_and_what_is_new_go_in_one_message(bench: Bench) -> None:
    term = bench.lead()
    bench.propose("a")
    bench.tick()
    first = bench.engine.journal.last_index
    bench.propose("b")
    bench.take()
    bench.acknowledge("n2", first + 1, term)
    bench.tick()
    messages = [m for peer, m in bench.take(frames.APPEND_ENTRIES) if peer == "n2"]
    assert [(m["commit_index"], len(m["entries"])) for m in messages] == [(first, 1)]


def test_what_is_queued_together_is_one_entry(bench: Bench) -> None:
    bench.lead()
    before = bench.engine.journal.last_index
    for k in range(100):
        bench.propose(f"r{k}")
    bench.tick()
    assert bench.engine.journal.last_index == before + 1


def test_a_follower_proposes_nothing(bench: Bench) -> None:
    outcome = bench.propose("a")
    bench.tick()
    assert isinstance(outcome[0], NoPrimaryError)
    assert bench.log() == [(1, 0)]


def test_a_primary_without_a_quorum_proposes_nothing(bench: Bench) -> None:
    bench.lead()
    before = bench.log()
    bench.now += 0.6
    outcome = bench.propose("a")
    bench.tick()
    assert isinstance(outcome[0], NoQuorumError)
    assert bench.log() == before


def test_a_leader_steps_down_after_a_second_without_a_quorum(bench: Bench) -> None:
    bench.lead()
    outcome = bench.propose("a")
    for _ in range(11):
        bench.tick(0.1)
    assert not bench.engine.is_leader()
    assert [type(o) for o in outcome] == [OutcomeUnknownError]


def test_a_leader_that_is_heard_no_more_is_not_named(bench: Bench) -> None:
    """PySyncObj would name it until another one is elected."""
    bench.append("n2", 1, (1, 0))
    bench.tick()
    assert bench.replica.status().leader == "n2"
    bench.tick(0.9)
    assert bench.replica.status().leader == "n2"
    bench.tick(0.2)
    assert bench.replica.status().leader is None
    bench.append("n2", 1, (1, 0))
    assert bench.replica.status().leader == "n2"


def test_a_node_knows_whether_it_is_linked_to_a_quorum(bench: Bench) -> None:
    assert bench.replica.status().links_quorum
    bench.guard.disconnected("n2")
    assert bench.replica.status().links_quorum
    bench.guard.disconnected("n3")
    assert not bench.replica.status().links_quorum
    bench.guard.connected("n3", Hello(""))
    assert bench.replica.status().links_quorum


def test_a_deadline_is_kept_and_answered_once(bench: Bench) -> None:
    term = bench.lead()
    outcome = bench.propose("a", timeout_s=0.3)
    bench.tick()
    bench.tick(0.31)
    assert [type(o) for o in outcome] == [OutcomeUnknownError]
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick()
    assert "a" in bench.state.results  # Applied all the same.
    assert len(outcome) == 1


def test_another_entry_in_the_same_place_means_not_applied(bench: Bench) -> None:
    """The one that was appended first can never commit any more."""
    term = bench.lead()
    outcome = bench.propose("a")
    bench.tick()
    index = bench.engine.journal.last_index
    bench.append(
        "n2", term + 1, (index - 1, term), entry(index, term + 1), commit=index
    )
    bench.tick()
    assert [type(o) for o in outcome] == [OutcomeUnknownError]  # Told when deposed.
    assert "a" not in bench.state.results


def test_an_exception_in_apply_stops_the_node(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(index: int, calls: object) -> None:
        raise ZeroDivisionError

    bench.append("n2", 1, (1, 0), entry(2, 1), commit=2)
    monkeypatch.setattr(bench.state, "apply", broken)
    with pytest.raises(Fatal, match="applying entry 2 failed"):
        bench.tick()


def test_an_entry_that_cannot_be_read_stops_the_node(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), (b"\x00nonsense", 2, 1), commit=2)
    with pytest.raises(Fatal, match="cannot be read"):
        bench.tick()


def test_a_full_queue_sheds(bench: Bench) -> None:
    outcomes = [bench.propose(f"r{k}") for k in range(PROPOSALS_QUEUED_MAX + 1)]
    assert [type(o) for o in outcomes[-1]] == [OverloadedError]
    assert outcomes[-2] == []


def test_an_entry_holds_no_more_than_fits(bench: Bench) -> None:
    term = bench.lead()
    for k in range(100):
        bench.propose(f"{k}" + 1000 * "x")
    for _ in range(4):
        bench.tick()
        bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    sizes = [len(command) for command, _, _ in bench.engine.journal[2:]]
    assert len(sizes) > 1
    assert max(sizes) <= COMMAND_BYTES_MAX + 1


def test_entries_under_way_and_calls_per_entry_are_bounded(bench: Bench) -> None:
    """Further calls wait until an entry is committed."""
    term = bench.lead()
    begin = bench.engine.journal.last_index
    for k in range(3 * CALLS_PER_ENTRY_MAX):
        bench.propose(f"r{k}")
    bench.tick()
    first = bench.engine.journal.last_index
    assert first - begin == ENTRIES_IN_FLIGHT_MAX
    for command, _, _ in bench.engine.journal[-ENTRIES_IN_FLIGHT_MAX:]:
        assert len(decode_entry(command[1:])) == CALLS_PER_ENTRY_MAX
    bench.acknowledge("n2", first + 1, term)
    bench.tick()
    assert bench.engine.journal.last_index > first


def test_calls_wait_for_an_entry_that_carries_several(bench: Bench) -> None:
    """An entry costs about as much as several calls, so under load few entries are made."""
    term = bench.lead()
    begin = bench.engine.journal.last_index
    for k in range(CALLS_BESIDE_MAX + 1):
        bench.propose(f"r{k}")
    bench.tick()
    assert bench.engine.journal.last_index == begin + 1
    for k in range(10):
        bench.propose(f"s{k}")
        bench.tick()
    assert bench.engine.journal.last_index == begin + 1
    bench.acknowledge("n2", begin + 2, term)
    bench.tick()
    assert bench.engine.journal.last_index == begin + 2
    assert len(decode_entry(bench.engine.journal[-1][0][1:])) == 10


def test_few_calls_in_flight_hold_no_other_up(bench: Bench) -> None:
    bench.lead()
    begin = bench.engine.journal.last_index
    for k in range(CALLS_BESIDE_MAX):
        bench.propose(f"r{k}")
    bench.tick()
    bench.propose("s")
    bench.tick()
    assert bench.engine.journal.last_index == begin + 2


def test_what_one_message_to_a_follower_carries_is_bounded(bench: Bench) -> None:
    term = bench.lead()
    for k in range(64):
        bench.propose(f"{k} " + 20_000 * "x")
        bench.tick()
        bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.take()
    bench.acknowledge("n3", 2, term, reset=True, success=False)
    for _ in range(3):
        bench.tick(0.1)
    sizes = [
        [len(command) for command, _, _ in message["entries"]]
        for peer, message in bench.take(frames.APPEND_ENTRIES)
        if peer == "n3"
    ]
    assert sum(map(sum, sizes)) > APPEND_BYTES_MAX
    assert all(sum(size[:-1]) < APPEND_BYTES_MAX for size in sizes)


def test_a_lone_voter_commits_without_waiting_for_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No acknowledgement comes, so only the next tick would end the wait."""
    bench = Bench(monkeypatch, members=1)
    for _ in range(4):
        bench.tick(1.0)
    assert bench.engine.is_leader()
    waits: list[float] = []
    monkeypatch.setattr(bench.engine._poller, "poll", waits.append)
    outcome = bench.propose("a")
    while not outcome:
        bench.replica.tick(0.02)
    assert set(waits) == {0.0}
    bench.replica.tick(0.02)
    assert waits[-1] == 0.02


def test_a_stamper_that_fails_does_not_stop_the_primary(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same proposal would stop the next primary, and the next."""
    bench.lead()
    before = bench.log()
    with monkeypatch.context() as patch:
        patch.setattr(FixedStamper, "stamp", lambda _self, _proposals: 1 // 0)
        outcome = bench.propose("a")
        bench.tick()
    assert [type(o) for o in outcome] == [OverloadedError]
    assert bench.log() == before


def test_a_follower_far_behind_gets_no_more_than_a_window(bench: Bench) -> None:
    term = bench.lead()
    for k in range(3 * WINDOW_ENTRIES):
        bench.propose(f"r{k}")
        bench.tick()
        bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.take()
    bench.acknowledge("n3", 2, term, reset=True, success=False)
    for _ in range(3):
        bench.tick(0.1)
    sent = [
        index
        for peer, message in bench.take(frames.APPEND_ENTRIES)
        for _, index, _ in message["entries"]
        if peer == "n3"
    ]
    acked = bench.guard.progress("n3").acked
    assert max(sent) <= max(acked, 1) + WINDOW_ENTRIES
    bench.acknowledge("n3", max(sent) + 1, term)
    bench.tick()  # At once, not with the next heartbeat.
    more = [m["entries"] for p, m in bench.take(frames.APPEND_ENTRIES) if p == "n3"]
    assert more[0][0][1] == max(sent) + 1


# --- Restart


def apply_slowly(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    """Let each entry take 30 ms, as on a busy machine."""
    apply = RecordingState.apply

    def slow(self: RecordingState, *arguments: Any) -> Any:
        bench.now += 0.03
        return apply(self, *arguments)

    patch.setattr(RecordingState, "apply", slow)


def test_a_follower_that_has_much_to_apply_answers_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another member is down, its leader would lose the quorum."""
    apply_slowly(bench, monkeypatch)
    entries = [entry(index, 1) for index in range(2, 202)]
    bench.append("n2", 1, (1, 0), *entries, commit=201)
    contact_s, answered_at = bench.engine.settings.contact_s, bench.now
    while bench.state.applied_index < 201:
        applied = bench.state.applied_index
        bench.tick()
        assert bench.state.applied_index > applied
        bench.append("n2", 1, (201, 1), commit=201)
        bench.receive("n2", frames.ASK_CLOCK, round=applied)
        kinds = {message["type"] for _, message in bench.take()}
        if frames.NEXT_NODE_IDX in kinds:
            assert bench.now - answered_at < contact_s / 2
            answered_at = bench.now
    assert bench.now - answered_at < contact_s / 2
    assert bench.engine.raftLastApplied == bench.engine.raftCommitIndex == 201


def test_a_leader_applies_all_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers reads by what is committed, and by the time of the state there."""
    entries = [entry(index, 1) for index in range(2, 22)]
    bench.append("n2", 1, (1, 0), *entries, commit=1)
    term = bench.elect()
    apply_slowly(bench, monkeypatch)
    for other in bench.others:
        bench.acknowledge(other, bench.engine.journal.last_index + 1, term)
    bench.tick()
    assert bench.state.applied_index == bench.engine.raftCommitIndex == 22


def test_what_was_applied_is_not_applied_again(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=3)
    bench.tick()
    bench.start()
    assert bench.engine.raftLastApplied == 3
    bench.append("n2", 1, (3, 1), entry(4, 1), commit=4)
    bench.tick()
    assert [index for index, _ in bench.state.entries] == [1, 2, 3, 4]


def test_an_older_state_is_brought_up_from_the_journal(bench: Bench) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=3)
    bench.tick()
    bench.lose_power()
    bench.append("n2", 1, (3, 1), commit=3)
    bench.tick()
    assert bench.state.applied_index == 3
