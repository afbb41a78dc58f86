# SPDX-License-Identifier: Apache-2.0
"""
What members promise each other, judged at the moment of the promise.

A broken promise does harm only when other things happen too: two votes in a term need
two candidates. So the harm is rare, and the promise itself is looked at here, from
outside: in the messages that a member sends, and in the logs of all members. The rules
are those of Raft (paper, figure 2 and 8; thesis, 4.1, 4.2, 6.4, 9.6) and of DESIGN.md.
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from sparecode_node.replication.log.journal import CONFIGURATION
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from tests.simulation.committed_members import CommittedMembers
from tests.simulation.comparisons import Comparison
from tests.simulation.log_lengths import LogLengths
from tests.simulation.observed import Judge, Observed
from tests.simulation.read_promises import ReadPromises
from tests.simulation.returned import Returned
from tests.simulation.roles import is_named, needed, roles_of, voters_of

PROMISES = {frames.REQUEST_VOTE, frames.RESPONSE_VOTE, frames.NEXT_NODE_IDX}
"""Messages that the sender must not forget: it makes them from its journal."""

ROUNDS_LATE_S = 0.5
"""How late an engine looks at the end of a round, and this at the engine."""
LOOKS_MAX = 500
TICK_S = 0.01
"""Time passes inside a step of an engine, too."""


Machines = Mapping[str, Observed]


@dataclass(frozen=True)
class Vote:
    """A vote, as it was sent."""

    term: int
    candidate: str


@dataclass
class Promises:
    """The promises of the members of one cluster."""

    judge: Judge
    votes: dict[tuple[str, str], Vote] = field(default_factory=dict)
    """Machine and journal -> the last vote that was promised with it."""
    elections: defaultdict[tuple[int, str], set[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """Term and candidate -> who has voted for it, each with its journal."""
    pre_votes: defaultdict[tuple[int, str], set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """Term and candidate -> who would vote for it."""
    sent_by: set[tuple[int, str]] = field(default_factory=set)
    """Term, and who has sent entries in it as its leader."""
    called_up: set[tuple[int, str]] = field(default_factory=set)
    """Term of a leader, and whom it has told to take over."""
    committed: dict[int, int] = field(default_factory=dict)
    """Index -> the term of the entry that a leader has committed there."""
    returned: Returned = field(default_factory=Returned)
    """Machines that have lost what they had promised, not by a fault of the product."""
    lengths: LogLengths = field(init=False)
    reads: ReadPromises = field(init=False)
    members: CommittedMembers = field(init=False)
    _lengths: defaultdict[tuple[str, int], deque[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=LOOKS_MAX))
    )
    """A leader and its term -> its last entry at each look."""
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Node -> its life, and when a leader's message last reached it."""
    _promoted: set[tuple[int, int]] = field(default_factory=set)
    """Changes of members that were judged, each by its index and term."""
    _looked_at: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Node -> its life, and the commit index that it then had."""

    def __post_init__(self) -> None:
        """Let logs, reads and snapshots be judged with the rest."""
        self.lengths = LogLengths(self.judge)
        self.reads = ReadPromises(self.judge)
        self.members = CommittedMembers(self.judge)

    def forget(self, node_id: str) -> None:
        """
        Do not expect what a machine has promised until now.

        Its disk is lost, rotten or an older copy.
        """
        self.returned.returns(node_id)
        for voter, journal in [each for each in self.votes if each[0] == node_id]:
            del self.votes[voter, journal]

    def _compared(self, kind: Comparison) -> None:
        self.judge.comparisons[kind] += 1

    # --- Messages

    def on_send(
        self, node: Observed, peer: str, message: Message, nodes: Machines, now: float
    ) -> None:
        """Judge a message of a member to *peer*."""
        match message["type"]:
            case frames.REQUEST_VOTE:
                self._check_candidate(node, message["term"])
                self._voted(node, Vote(message["term"], node.node_id))
            case frames.RESPONSE_VOTE:
                self._voted(node, Vote(message["term"], peer))
            case frames.PRE_VOTE_ANSWER if message["granted"]:
                self.pre_votes[message["term"], peer].add(node.node_id)
                self._check_pre_vote(node, peer, message["term"], now)
            case frames.HAND_OVER:
                self.called_up.add((message["term"], peer))
            case frames.NEXT_NODE_IDX if message["success"]:
                journal, last = node.journal.journal_id, message["next_node_idx"] - 1
                term = message["term"]
                self.returned.acknowledges(node.node_id, journal, term, last)
                self._check_addressee(node, peer, term)
                self._check_acknowledgement(node, message, nodes.get(peer))
            case frames.ASK_TO_CONFIRM | frames.CONFIRM:
                self.reads.on_send(node, peer, message)
            case frames.APPEND_ENTRIES:
                self.sent_by.add((message["term"], node.node_id))
                self._check_sent(node, peer, message)
            case frames.KEEP_LOG if message["index"]:
                self.lengths.needed(by=node.node_id, of=peer)

    def _voted(self, node: Observed, vote: Vote) -> None:
        """See that a journal votes once in a term (figure 2, "votedFor")."""
        journal = node.journal.journal_id
        self.elections[vote.term, vote.candidate].add((node.node_id, journal))
        last = self.votes.get((node.node_id, journal))
        self._compared(Comparison.VOTE)
        if last is not None:
            again = vote.term == last.term and vote.candidate != last.candidate
            if again or vote.term < last.term:
                seen = f"{node.node_id}: {last}, {vote}"
                self.judge.violated("one vote in a term", seen)
        self.votes[node.node_id, journal] = vote

    def _check_candidate(self, node: Observed, term: int) -> None:
        """See that a candidate is a voter, has its journal, and is wanted (9.6)."""
        members, node_id = node.journal.configuration, node.node_id
        if node_id not in voters_of(members) or members.names_another_journal(
            node_id, node.journal.journal_id
        ):
            seen = f"{node_id} in term {term}: {members}"
            self.judge.violated("only voters campaign", seen)
        wanted = {node_id} | self.pre_votes[term, node_id]
        self._compared(Comparison.CAMPAIGN)
        if (term - 1, node_id) not in self.called_up and len(wanted) < needed(members):
            seen = f"{node_id} in term {term}, wanted by {sorted(wanted)} of {members}"
            self.judge.violated("candidates are wanted", seen)

    def _check_pre_vote(
        self, node: Observed, candidate: str, term: int, now: float
    ) -> None:
        """See that no one wants another leader beside one that it hears (9.6, 4.2.3)."""
        self._compared(Comparison.PRE_VOTE)
        if self._has_leader(node, now):
            seen = f"{node.node_id} in term {node.term} wants {candidate} in {term}"
            self.judge.violated("no pre-vote beside a leader", seen)

    def _has_leader(self, node: Observed, now: float) -> bool:
        """Return whether a member leads, or has heard a leader a moment ago."""
        life, heard_at = self._heard.get(node.node_id, (0, 0.0))
        recent_s = node.replica.engine.settings.election_min_s - TICK_S
        return node.leads or (life == node.life and now - heard_at < recent_s)

    def _check_addressee(self, node: Observed, peer: str, term: int) -> None:
        """
        See that an acknowledgement is of the term in which its receiver sent entries.

        It waits for a sync, and a newer term may begin in between. The entries may not be
        those of the receiver's log in a later term.
        """
        if (term, peer) not in self.sent_by:
            seen = f"{node.node_id} to {peer}, which has sent nothing in term {term}"
            self.judge.violated("acknowledged in the term of the entries", seen)

    def _check_acknowledgement(
        self, node: Observed, message: Message, leader: Observed | None
    ) -> None:
        """See that a follower has what it acknowledges, as its leader has it (figure 2)."""
        term, index = message["term"], message["next_node_idx"] - 1
        if leader is None or leader.replica is None:
            return
        if not (leader.leads and leader.term == term):
            return  # No one counts it.
        if node.term != term:
            return  # The message waited for a sync: it says what was true in that term.
        theirs, own = leader.journal, node.journal
        if index < max(theirs.first_index, own.first_index):
            return  # Compacted, and so committed.
        self._compared(Comparison.ACKNOWLEDGED)
        if index > theirs.last_index or own.term_at(index) != theirs.term_at(index):
            seen = f"{node.node_id} to {leader.node_id}: {message}"
            self.judge.violated("acknowledged as the leader has it", seen)

    def _check_sent(self, node: Observed, peer: str, message: Message) -> None:
        """See that a leader sends nothing that it knows to be acknowledged."""
        # What it knows: an acknowledgement that has arrived may have been refused.
        known = node.replica.guard.progress(peer).acked
        if message["prevLogIdx"] < known:
            seen = f"{node.node_id} to {peer}, who has {known}: {message['prevLogIdx']}"
            self.judge.violated("nothing acknowledged is sent again", seen)

    def before_request(
        self, node: Observed, peer: str, message: Message, now: float
    ) -> int | None:
        """
        Return the term of a member that must keep it, None if it need not.

        It hears a leader, and *peer*, who is no voter, asks for its vote (4.2.3).
        """
        voters = voters_of(node.journal.configuration)
        if message["type"] == frames.APPEND_ENTRIES and message["term"] >= node.term:
            if peer in voters:  # Others it may have to refuse.
                self._heard[node.node_id] = node.life, now
            return None
        if message["type"] != frames.REQUEST_VOTE or peer in voters:
            return None
        if not self._has_leader(node, now):
            return None
        self._compared(Comparison.OUTSIDER_ASKED)
        return node.term

    def after_request(self, node: Observed, peer: str, term: int) -> None:
        """See that the member is in the same *term* as before."""
        if node.term != term:
            seen = f"{node.node_id}: {peer} has ended term {term}"
            self.judge.violated("only voters end a term", seen)

    def on_refusal(self, node: Observed, peer: str) -> None:
        """See that a removed member is refused only when no one can take that back."""
        # Its own commit index: what it takes for committed is judged in `_check_commit`.
        journal, commit = node.journal, node.replica.engine.raftCommitIndex
        self._compared(Comparison.REFUSED_REMOVED)
        if peer not in journal.configuration_at(commit).removed:
            seen = (
                f"{node.node_id}, at {commit}, refuses {peer}: {journal.configuration}"
            )
            self.judge.violated("removed before it is refused", seen)

    # --- Logs

    def on_install(self, node: Observed, applied: int) -> None:
        """Judge a snapshot that the state takes over: the log must not begin after it."""
        if node.replica is None:
            return
        if node.journal.first_index > applied:
            seen = f"{node.node_id}: {applied} is applied, and the log begins later"
            self.judge.violated("a log that continues the state", seen)

    def on_stamp(self, node: Observed) -> None:
        """See that a primary has applied all of earlier terms when it stamps (paper, 8)."""
        journal, term = node.journal, node.term
        index = node.replica.engine.raftLastApplied
        self._compared(Comparison.STAMPED)
        if journal.term_at(index) != term:
            seen = (
                f"{node.node_id} in term {term} has applied {index} of an earlier one"
            )
            self.judge.violated("stamped after what came before", seen)

    def look_at(self, node: Observed, nodes: Machines, now: float) -> None:
        """Judge the log of a running member."""
        life, known = self._looked_at.get(node.node_id, (0, 0))
        if life != node.life:
            known = 0
            self._check_start(node)
        commit = node.replica.engine.raftCommitIndex
        if commit > known:
            self._check_commit(node, known, commit, nodes)
        self._looked_at[node.node_id] = node.life, commit
        journal = node.journal
        at = journal.configured_at
        entry = journal.entry(at) if journal.has(at) else None
        if at > journal.last_index or (
            entry and at > journal.first_index and entry[0][:1] != CONFIGURATION
        ):
            seen = f"{node.node_id} counts by entry {at}, which its log does not have"
            self.judge.violated("members of the own log", seen)
        self.lengths.look_at(node, now)
        if node.leads:
            self._lengths[node.node_id, node.term].append((now, journal.last_index))
            self._check_counted(node, nodes)
            self._check_change(node, commit)
            self._check_promoted(node, nodes, now)

    def _check_start(self, node: Observed) -> None:
        """See that a vote outlasts every stop of the voter."""
        journal = node.journal
        key = node.node_id, journal.journal_id
        last = self.votes.get(key)
        term, vote = journal.getCurrentTerm(), journal.getVotedForNodeId()
        if last is None:
            if vote is not None and node.node_id in self.returned:
                self.votes[key] = Vote(term, vote)  # What is left to it, it keeps.
            return
        self._compared(Comparison.VOTE_KEPT)
        if (term, vote) != (last.term, last.candidate) and term <= last.term:
            seen = f"{node.node_id} starts with {term}, {vote}; it has sent {last}"
            self.judge.violated("votes are kept", seen)

    def _check_commit(
        self, node: Observed, known: int, commit: int, nodes: Machines
    ) -> None:
        """See that what is committed is the same everywhere, and on a majority's disks."""
        journal = node.journal
        for index in range(max(known + 1, journal.first_index), commit + 1):
            term = journal.term_at(index)
            if term is None or self.committed.setdefault(index, term) != term:
                seen = (
                    f"{node.node_id}: entry {index} of term {term}, and of"
                    f" {self.committed.get(index)} elsewhere"
                )
                self.judge.violated("one entry committed", seen)
        if not node.leads or not journal.has(commit):
            return
        self._compared(Comparison.COMMITTED)
        # Since then, the members may have changed.
        for members in (journal.configuration_at(commit), journal.configuration):
            have = {
                voter
                for voter in voters_of(members)
                if self._may_have(
                    nodes.get(voter), commit, journal.term_at(commit), node.term
                )
            }
            if 2 * len(have) > len(voters_of(members)):
                return
        seen = f"entry {commit} of {node.node_id}, on {sorted(have)} of {members}"
        self.judge.violated("committed by a majority", seen)

    def _may_have(
        self, node: Observed | None, index: int, term: int | None, counted_in: int
    ) -> bool:
        """
        Return whether a member has an entry on its disk, as far as one can know.

        *counted_in*: the term of the leader that counts it.
        """
        if node is None or self.returned.may_lack(node.node_id, counted_in, index):
            return True
        if node.node_id in self.returned:
            self._compared(Comparison.RETURNED)
        if node.replica is None:
            return node.had_entries >= index
        journal = node.journal
        return journal.first_index >= index or (
            journal.durable_index >= index and journal.term_at(index) == term
        )

    def _check_counted(self, leader: Observed, nodes: Machines) -> None:
        """See that a member has what its leader counts for it (figure 2, "matchIndex")."""
        journal = leader.journal
        for voter in sorted(voters_of(journal.configuration) - {leader.node_id}):
            index = leader.replica.guard.progress(voter).acked
            member = nodes.get(voter)
            if member is None or not (index and journal.has(index)):
                continue
            if member.replica is not None and member.term > leader.term:
                continue  # It follows another one by now.
            self._compared(Comparison.COUNTED)
            seen = f"{leader.node_id} in term {leader.term}: {voter} has {index}"
            if not self._may_have(member, index, journal.term_at(index), leader.term):
                self.judge.violated("counted what a member has", seen)
            elif index > self.returned.counts(
                journal.configuration, voter, leader.term
            ):
                self.judge.violated("counted with the known journal", seen)

    def _check_change(self, leader: Observed, commit: int) -> None:
        """
        Members change one at a time, and after an entry of the leader's term (4.1).

        And not before the journals of all voters have names: else a voter that loses its
        journal then could never be told from one that has it, or never be replaced.
        """
        journal = leader.journal
        last = journal.configured_at
        if last <= commit:
            return
        before = journal.configuration_at(last - 1)
        own = journal.term_at(last) == leader.term
        changed = roles_of(before) != roles_of(journal.configuration)
        self._compared(Comparison.CHANGE_BEGUN)
        earlier = [at for at, _ in journal._configurations if commit < at < last]
        if own and earlier:
            seen = f"{leader.node_id}: entries {earlier}, {last} beyond {commit}"
            self.judge.violated("one change at a time", seen)
        known = journal.term_at(commit)
        if own and known is not None and known != leader.term:
            seen = (
                f"{leader.node_id}: entry {last} in term {leader.term}, after {known}"
            )
            self.judge.violated("change in a known term", seen)
        if own and changed and not is_named(before):
            seen = f"{leader.node_id}: entry {last} after {before}"
            self.judge.violated("change with known journals", seen)

    def _check_promoted(self, leader: Observed, nodes: Machines, now: float) -> None:
        """See that a new voter has what its leader had two rounds before (4.2.1)."""
        journal = leader.journal
        last = journal.configured_at
        if last <= journal.first_index or journal.term_at(last) != leader.term:
            return  # It is from before this log, or of another leader.
        if (last, leader.term) in self._promoted:
            return  # Since then the new voter may have fallen behind again.
        self._promoted.add((last, leader.term))
        before, after = journal.configuration_at(last - 1), journal.configuration
        since = now - 2 * leader.replica.engine.membership.round_s - ROUNDS_LATE_S
        had = [n for at, n in self._lengths[leader.node_id, leader.term] if at <= since]
        for voter in voters_of(after) - voters_of(before):
            self._compared(Comparison.PROMOTED)
            has = has_entries(nodes[voter])
            if not had or self.returned.may_lack(voter, leader.term, had[-1]):
                continue
            if has < had[-1]:
                seen = f"{voter} ends at {has}, and {leader.node_id} had {had[-1]}"
                self.judge.violated("new voters have caught up", seen)

    def on_leader(self, node: Observed) -> None:
        """See that a majority, or all, have voted for a leader (figure 2)."""
        journal, term = node.journal, node.term
        index = journal.last_index
        while journal.has(index) and journal.term_at(index) == term:
            index -= 1
        if not journal.has(index):
            return  # The log begins within its term.
        members = journal.configuration_at(index)
        voted = {
            voter
            for voter, name in self.elections[term, node.node_id]
            if voter in voters_of(members)
            and not members.names_another_journal(voter, name)
        }
        if len(voters_of(members)) == 1:
            voted.add(node.node_id)  # It asks no one.
        self._compared(Comparison.ELECTED)
        if len(voted) < needed(members):
            seen = f"{node.node_id} in term {term} by {sorted(voted)} of {members}"
            self.judge.violated("elected by a majority", seen)


def has_entries(node: Observed) -> int:
    """Return the last entry of a machine, or what it was when its process ended."""
    return node.had_entries if node.replica is None else node.journal.last_index
