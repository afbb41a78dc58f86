# SPDX-License-Identifier: Apache-2.0
"""The same, of promises: a member that says what it must not, or has lost what it said."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import CONFIGURATION, FIRST_ENTRY
from sparecode_node.replication.members import Configuration, MemberRole
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.replication.settings import RaftSettings
from tests.simulation.broken_runs import THREE, breaks, members
from tests.simulation.invariants import Invariants
from tests.simulation.log_lengths import KEPT_MAX
from tests.simulation.nodes.refusals import JudgedPeers

NAMED = Configuration.of(
    replace(member, journal_id=f"journal of {member.node_id}")
    for member in THREE.members
)
IDS = ("n1", "n2", "n3")


@dataclass
class PaperJournal:
    """A journal, as the promises see it."""

    journal_id: str
    configurations: list[tuple[int, Configuration]]
    entries: list[Entry] = field(default_factory=lambda: [FIRST_ENTRY])
    term: int = 0
    vote: str | None = None
    is_held: bool = False

    @property
    def possible_members(self) -> set[str]:
        return set(self.configuration.ids)

    @property
    def configuration(self) -> Configuration:
        return self.configurations[-1][1]

    @property
    def configured_at(self) -> int:
        return self.configurations[-1][0]

    @property
    def _configurations(self) -> list[tuple[int, Configuration]]:
        return self.configurations

    def configuration_at(self, index: int) -> Configuration:
        return next(c for at, c in reversed(self.configurations) if at <= index)

    @property
    def first_index(self) -> int:
        return self.entries[0][1]

    @property
    def last_index(self) -> int:
        return self.entries[-1][1]

    durable_index = last_index

    @property
    def bytes(self) -> int:
        return sum(len(command) for command, _, _ in self.entries)

    def __getitem__(self, some: slice) -> list[Entry]:
        return self.entries[some]

    def __len__(self) -> int:
        return len(self.entries)

    def has(self, index: int) -> bool:
        return self.first_index <= index <= self.last_index

    def entry(self, index: int) -> Entry:
        return self.entries[index - self.first_index]

    def term_at(self, index: int) -> int | None:
        return self.entry(index)[2] if self.has(index) else None

    def getCurrentTerm(self) -> int:
        return self.term

    def getVotedForNodeId(self) -> str | None:
        return self.vote

    def append(self, *terms: int, size: int = 0) -> None:
        """Append an entry of each of these terms."""
        for term in terms:
            self.entries.append((b"x" * size, self.last_index + 1, term))

    def change(self, term: int, after: Configuration) -> None:
        """Append a change of the members."""
        self.entries.append((CONFIGURATION, self.last_index + 1, term))
        self.configurations.append((self.last_index, after))


def member(node_id: str, members: Configuration = NAMED, **more: Any) -> Any:
    """Return a member that runs."""
    journal = PaperJournal(f"journal of {node_id}", [(0, members)])
    engine = SimpleNamespace(
        raftCommitIndex=1,
        raftLastApplied=1,
        membership=SimpleNamespace(round_s=1.0),
        settings=RaftSettings(log_entries_max=8, log_entries_kept=2),
        retention=SimpleNamespace(members=["n9"]),
    )
    guard = SimpleNamespace(progress=lambda _peer: SimpleNamespace(acked=0))
    replica = SimpleNamespace(engine=engine, guard=guard)
    known = {
        "node_id": node_id,
        "life": 1,
        "had_entries": 0,
        "journal": journal,
        "term": 1,
        "leads": False,
        "replica": replica,
        "takes_no_snapshot": lambda: False,
        "snapshot_s": lambda: 1.0,
    }
    return SimpleNamespace(**{**known, **more})


def three(members: Configuration = NAMED) -> dict[str, Any]:
    """Return three members; the first one leads in term 1."""
    return {i: member(i, members, leads=i == "n1") for i in IDS}


def said(
    nodes: dict[str, Any],
    sender: str,
    to: str,
    kind: str,
    seen: Invariants | None = None,
    now: float = 10.0,
    **more: Any,
) -> Invariants:
    """Return what is seen when a member sends this, after what was *seen*."""
    seen = seen or Invariants()
    message = {"type": kind, **more}
    seen.promises.on_send(nodes[sender], to, message, nodes, now)
    return seen


def looked_at(
    nodes: dict[str, Any], node_id: str, seen: Invariants, now: float = 10.0
) -> Invariants:
    seen.promises.look_at(nodes[node_id], nodes, now)
    return seen


@breaks("no log kept without a bound")
def a_log_that_is_kept_for_too_long() -> Invariants:
    nodes = three()
    nodes["n2"].journal.append(*[1] * round(8 * KEPT_MAX))
    return looked_at(nodes, "n2", Invariants())


@breaks("no log kept without a bound")
def a_log_of_too_many_bytes() -> Invariants:
    nodes, seen = three(), Invariants()
    engine, journal = nodes["n2"].replica.engine, nodes["n2"].journal
    engine.retention.members = []
    engine.settings = RaftSettings(log_bytes_max=100, log_bytes_kept=20)
    journal.append(1, 1, size=60)
    engine.raftLastApplied = journal.last_index
    looked_at(nodes, "n2", seen, now=10.0)
    looked_at(nodes, "n2", seen, now=11.0)
    assert not seen.violations
    return looked_at(nodes, "n2", seen, now=14.0)


@breaks("no log kept without a bound")
def a_log_that_is_not_compacted() -> Invariants:
    """No member needs it; until just now one did."""
    nodes, seen = three(), Invariants()
    n2 = nodes["n2"]
    n2.replica.engine.retention.members = []
    n2.journal.append(*[1] * 20)
    n2.replica.engine.raftLastApplied = 21
    looked_at(nodes, "n2", seen, now=10.0)
    said(nodes, "n3", "n2", frames.KEEP_LOG, seen, index=1)
    for now in range(11, 400):
        looked_at(nodes, "n2", seen, now=float(now))
    assert not seen.violations
    n2.journal.append(*[1] * 9)
    n2.replica.engine.raftLastApplied = 30
    looked_at(nodes, "n2", seen, now=400.0)
    assert not seen.violations
    return looked_at(nodes, "n2", seen, now=404.0)


@breaks("one vote in a term")
def two_votes_in_a_term() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=2)
    return said(nodes, "n3", "n2", frames.RESPONSE_VOTE, seen, term=2)


@breaks("one vote in a term")
def a_vote_in_an_earlier_term() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=3)
    return said(nodes, "n3", "n1", frames.RESPONSE_VOTE, seen, term=2)


@breaks("votes are kept")
def a_voter_that_starts_without_its_vote() -> Invariants:
    nodes = three()
    seen = said(nodes, "n3", "n1", frames.RESPONSE_VOTE, term=2)
    nodes["n3"].life, nodes["n3"].journal.term = 2, 2
    return looked_at(nodes, "n3", seen)


def campaign(nodes: dict[str, Any], candidate: str, *wanted_by: str) -> Invariants:
    """Return what is seen when a node campaigns in term 2, after these pre-votes."""
    seen, nodes["n1"].leads = Invariants(), False
    for voter in wanted_by:
        kind = frames.PRE_VOTE_ANSWER
        said(nodes, voter, candidate, kind, seen, term=2, granted=True)
    return said(nodes, candidate, "n1", frames.REQUEST_VOTE, seen, term=2)


@breaks("candidates are wanted")
def a_candidate_that_no_other_voter_wants() -> Invariants:
    return campaign(three(), "n3")


@breaks("candidates are wanted")
def a_first_candidate_that_one_voter_does_not_want() -> Invariants:
    return campaign(three(THREE), "n3", "n2")


def granted(nodes: dict[str, Any], voter: str, now: float) -> Invariants:
    """Return what is seen of a granted pre-vote; n1 leads, and was heard at 1.0 by n2."""
    seen, hears = Invariants(), {"type": frames.APPEND_ENTRIES, "term": 1}
    seen.promises.before_request(nodes["n2"], "n1", hears, 1.0)
    kind = frames.PRE_VOTE_ANSWER
    return said(nodes, voter, "n3", kind, seen, now, term=2, granted=True)


@breaks("no pre-vote beside a leader")
def a_pre_vote_of_a_leader() -> Invariants:
    return granted(three(), "n1", 9.0)


@breaks("no pre-vote beside a leader")
def a_pre_vote_of_a_member_that_has_just_heard_its_leader() -> Invariants:
    assert not granted(three(), "n2", 1.5).violations  # It has been silent for long.
    return granted(three(), "n2", 1.3)


@breaks("only voters campaign")
def a_learner_that_campaigns() -> Invariants:
    learner = members(n1="VOTER", n2="VOTER", n3="LEARNER")
    return campaign(three(learner), "n3", "n1", "n2")


@breaks("only voters campaign")
def a_candidate_with_another_journal() -> Invariants:
    nodes = three()
    nodes["n3"].journal.journal_id = "a new one"
    return campaign(nodes, "n3", "n2")


def acknowledged(
    nodes: dict[str, Any], index: int, term: int, seen: Invariants, by: str = "n3"
) -> Invariants:
    """Return what is seen when this entry is acknowledged to n1, after what was *seen*."""
    kind, more = frames.NEXT_NODE_IDX, {"next_node_idx": index + 1, "success": True}
    return said(nodes, by, "n1", kind, seen, term=term, **more)


def sent(nodes: dict[str, Any], term: int) -> Invariants:
    """Return what is seen when n1 sends entries to n3 as the leader of this term."""
    return said(nodes, "n1", "n3", frames.APPEND_ENTRIES, term=term, prevLogIdx=1)


@breaks("acknowledged as the leader has it")
def an_acknowledgement_of_another_entry() -> Invariants:
    nodes = three()
    nodes["n1"].term = nodes["n3"].term = 2
    nodes["n1"].journal.append(2)
    nodes["n3"].journal.append(1)
    return acknowledged(nodes, 2, 2, sent(nodes, 2))


@breaks("acknowledged as the leader has it")
def an_acknowledgement_of_more_than_there_is() -> Invariants:
    nodes = three()
    nodes["n3"].journal.append(1)
    return acknowledged(nodes, 2, 1, sent(nodes, 1))


@breaks("acknowledged in the term of the entries")
def an_acknowledgement_in_a_later_term() -> Invariants:
    nodes = three()
    seen = acknowledged(nodes, 1, 1, sent(nodes, 1))
    assert not seen.violations
    return acknowledged(nodes, 1, 2, seen)


@breaks("leader of its own term confirmed")
def a_deposed_leader_that_is_confirmed() -> Invariants:
    nodes = three()
    nodes["n3"].term = 2
    return said(nodes, "n3", "n1", frames.CONFIRM, term=1, round=1)


@breaks("nothing acknowledged is sent again")
def entries_that_are_sent_again() -> Invariants:
    nodes = three()
    nodes["n1"].replica.guard.progress = lambda _peer: SimpleNamespace(acked=1)
    return said(nodes, "n1", "n3", frames.APPEND_ENTRIES, term=1, prevLogIdx=0)


@breaks("members of the own log")
def members_of_an_entry_that_was_cut_off() -> Invariants:
    nodes = three()
    nodes["n3"].journal.configurations.append((2, THREE))
    return looked_at(nodes, "n3", Invariants())


@breaks("members of the own log")
def members_of_another_entry() -> Invariants:
    nodes = three()
    nodes["n3"].journal.configurations.append((2, THREE))
    nodes["n3"].journal.append(1)
    return looked_at(nodes, "n3", Invariants())


@breaks("committed by a majority")
def a_commit_of_what_one_member_has() -> Invariants:
    nodes = three()
    nodes["n1"].journal.append(1)
    nodes["n1"].replica.engine.raftCommitIndex = 2
    return looked_at(nodes, "n1", Invariants())


@breaks("committed by a majority")
def a_commit_with_a_learner() -> Invariants:
    nodes = three(members(n1="VOTER", n2="VOTER", n3="LEARNER"))
    for each in ("n1", "n3"):
        nodes[each].journal.append(1)
    nodes["n1"].replica.engine.raftCommitIndex = 2
    return looked_at(nodes, "n1", Invariants())


@breaks("counted what a member has")
def a_leader_that_counts_what_a_member_had_in_an_earlier_term() -> Invariants:
    nodes = three()
    for each, term in (("n1", 2), ("n2", 1), ("n3", 2)):
        nodes[each].journal.append(term)
        nodes[each].term = 2
    nodes["n1"].replica.guard.progress = lambda peer: SimpleNamespace(
        acked=2 if peer == "n2" else 0
    )
    return looked_at(nodes, "n1", Invariants())


@breaks("only voters end a term")
def a_term_that_a_learner_ends() -> Invariants:
    nodes = three(members(n1="VOTER", n2="VOTER", n3="LEARNER"))
    seen = Invariants()
    hears = {"type": frames.APPEND_ENTRIES, "term": 1}
    asked = {"type": frames.REQUEST_VOTE, "term": 2}
    before = seen.promises.before_request
    assert before(nodes["n2"], "n3", asked, 1.0) is None
    assert before(nodes["n2"], "n1", hears, 1.0) is None
    assert before(nodes["n2"], "n3", asked, 1.5) is None  # It has been silent for long.
    term = before(nodes["n2"], "n3", asked, 1.3)
    assert term == 1
    nodes["n2"].term = 2
    seen.promises.after_request(nodes["n2"], "n3", term)
    return seen


@breaks("removed before it is refused")
def a_member_refused_before_its_removal_is_committed() -> Invariants:
    nodes = three()
    removed = NAMED.without(NodeId("n3"))
    nodes["n2"].journal.configurations.append((2, removed))
    nodes["n2"].journal.append(1)
    seen = Invariants()
    seen.promises.on_refusal(nodes["n2"], "n3")
    return seen


@breaks("removed before it is refused")
def a_listener_that_refuses_before_a_removal_is_committed() -> Invariants:
    node = three()["n2"]
    removed = NAMED.without(NodeId("n3"))
    node.journal.configurations.append((2, removed))
    node.journal.append(1)
    seen = Invariants()
    node.invariants = seen
    peers = JudgedPeers(NodeId("n2"), "c")
    peers.machine = node
    peers.take_status(ReplicaStatus(configuration=removed, agreed=removed))
    assert peers.why_unknown(NodeId("n3")) == Refusal.REMOVED
    return seen


@breaks("one entry committed")
def a_follower_that_commits_another_entry() -> Invariants:
    nodes = three()
    for each, term in (("n1", 2), ("n2", 2), ("n3", 1)):
        nodes[each].journal.append(term)
        nodes[each].replica.engine.raftCommitIndex = 2
    seen = looked_at(nodes, "n1", Invariants())
    return looked_at(nodes, "n3", seen)


def change(
    *terms: int, before: Configuration = NAMED, commit: int = 2, term: int = 2
) -> Invariants:
    """Return what is seen of a leader that removes members, one in each of these terms."""
    nodes = {"n1": member("n1", before, leads=True, term=term)}
    journal = nodes["n1"].journal
    journal.append(term)
    for node_id, each in zip(("n3", "n2"), terms, strict=False):
        journal.change(each, journal.configuration.without(NodeId(node_id)))
    nodes["n1"].replica.engine.raftCommitIndex = commit
    return looked_at(nodes, "n1", Invariants())


@breaks("one change at a time")
def a_change_before_the_last_one_is_committed() -> Invariants:
    return change(2, 2)


@breaks("change in a known term")
def a_change_before_an_entry_of_the_own_term() -> Invariants:
    return change(2, commit=1)


@breaks("change with known journals")
def a_change_before_the_journals_have_names() -> Invariants:
    return change(2, before=THREE)


@breaks("change with known journals")
def a_learner_before_the_journals_have_names() -> Invariants:
    nodes = {"n1": member("n1", THREE, leads=True, term=2)}
    journal = nodes["n1"].journal
    journal.append(2)
    learner = replace(THREE.members[0], node_id=NodeId("n4"), role=MemberRole.LEARNER)
    journal.change(2, THREE.with_member(learner))
    nodes["n1"].replica.engine.raftCommitIndex = 2
    return looked_at(nodes, "n1", Invariants())


@breaks("new voters have caught up")
def a_new_voter_without_the_log() -> Invariants:
    learning = Configuration.of(
        replace(each, role=MemberRole.LEARNER) if each.node_id == "n3" else each
        for each in NAMED.members
    )
    nodes = three(learning)
    journal = nodes["n1"].journal
    for each in ("n1", "n2"):
        nodes[each].journal.append(1, 1, 1)
    nodes["n1"].replica.engine.raftCommitIndex = 4
    seen = looked_at(nodes, "n1", Invariants())
    journal.change(1, learning.promoted(NodeId("n3")))
    return looked_at(nodes, "n1", seen, now=20.0)


def elected(nodes: dict[str, Any], *voters: str) -> Invariants:
    """Return what is seen of a leader that these have voted for."""
    seen = Invariants()
    nodes["n1"].term = 2
    nodes["n1"].journal.append(2)
    for voter in voters:
        said(nodes, voter, "n1", frames.RESPONSE_VOTE, seen, term=2)
    seen.promises.on_leader(nodes["n1"])
    return seen


@breaks("elected by a majority")
def a_leader_by_one_vote() -> Invariants:
    return elected(three(), "n2")


@breaks("elected by a majority")
def a_leader_by_a_vote_with_another_journal() -> Invariants:
    nodes = three()
    nodes["n2"].journal.journal_id = "a new one"
    return elected(nodes, "n1", "n2")


@breaks("elected by a majority")
def a_first_leader_without_all_votes() -> Invariants:
    return elected(three(THREE), "n1", "n2")


@breaks("a log that continues the state")
def a_log_that_begins_after_the_state() -> Invariants:
    seen, node = Invariants(), member("n1")
    node.journal.entries[:] = [(b"", 9, 1)]
    seen.promises.on_install(node, applied=5)
    return seen


@breaks("stamped after what came before")
def a_stamp_before_all_is_applied() -> Invariants:
    seen, node = Invariants(), member("n1", term=2)
    node.journal.append(1, 2)
    node.replica.engine.raftLastApplied = 2
    seen.promises.on_stamp(node)
    return seen


PROMISED_RUNS = True
"""Importing this module adds its runs."""
