# SPDX-License-Identifier: Apache-2.0
"""Invariants of every moment of every run, under any faults."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sparecode_node.domain.ids import RequestId, SessionId
from sparecode_node.replication.errors import NotAppliedError, OutcomeUnknownError
from sparecode_node.replication.raft.clock_watch import ANSWER_S
from sparecode_node.replication.raft.proposals import Outcome
from sparecode_node.replication.raft.read_index import ReadOutcome, ReadPoint, Word
from sparecode_node.replication.settings import MAX_CLOCK_OFFSET_S
from sparecode_node.statemachine.commands import Call, UnstampedCall
from sparecode_node.statemachine.results import BarrierPassed, SessionOpened
from tests.simulation.changes import Changes, Wish
from tests.simulation.comparisons import Comparison, Comparisons
from tests.simulation.observed import Living, Observed, attempt_of
from tests.simulation.promises import Promises
from tests.simulation.sqlite_store import DAMAGED


class Holding(Protocol):
    """A state store, as the invariants see it."""

    def applied(self) -> dict[str, int]: ...
    def digest(self) -> str: ...


class Machine(Observed, Protocol):
    """A node that runs, with its state."""

    @property
    def store(self) -> Holding: ...


@dataclass
class Submission:
    """A call that was proposed once, to one life of one node."""

    request_id: str
    attempt: str
    deadline: float
    call: UnstampedCall
    outcomes: list[Outcome] = field(default_factory=list)
    node_died: bool = False
    watch: Callable[[Outcome], object] | None = None

    @property
    def session(self) -> SessionId:
        """The session of its call: an administrator's, or else one of this attempt alone."""
        is_open = self.call.session_id.startswith("open")
        return self.call.session_id if is_open else SessionId(self.attempt)

    @property
    def is_denied(self) -> bool:
        """Whether it was called not applied."""
        return any(isinstance(each, NotAppliedError) for each in self.outcomes)

    def __str__(self) -> str:
        return f"{self.request_id}, asked of {self.attempt}: {self.outcomes}"


@dataclass
class Read:
    """A linearizable read, called on one life of one node."""

    attempt: str
    deadline: float
    floor: int
    """The commit index of the cluster when the read began."""
    word: Word | None = None
    """Of the member for whose callers it is, if it asks the leader."""
    outcomes: list[ReadOutcome] = field(default_factory=list)
    node_died: bool = False


def asked_node(question: Submission | Read | Wish) -> str:
    """Return the id of the node that must answer."""
    return question.attempt.partition(".")[0]


@dataclass
class Invariants:
    """Collects violations: kind, and what was seen."""

    violations: dict[str, str] = field(default_factory=dict)
    comparisons: Comparisons = field(default_factory=Comparisons)
    """The comparisons of the checks."""
    applied: dict[int, tuple[Call, ...]] = field(default_factory=dict)
    committed_in: dict[int, int] = field(default_factory=dict)
    """Index -> a term in which it was committed at the latest."""
    terms: dict[int, int] = field(default_factory=dict)
    """Index -> the term of the entry that was committed there."""
    leaders: dict[int, str] = field(default_factory=dict)
    submissions: list[Submission] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    acked: dict[str, int] = field(default_factory=dict)
    """Request id -> index, of what a client was told to be done."""
    stamped_ms: int = 0
    """The time that the newest entry was stamped with."""
    on_violation: Callable[[str, str], object] = lambda _kind, _seen: None
    promises: Promises = field(init=False)
    changes: Changes = field(init=False)

    def __post_init__(self) -> None:
        """Let promises and changes of members be reported here."""
        self.promises = Promises(self)
        self.changes = Changes(self)

    def violated(self, kind: str, seen: str) -> None:
        """Remember the first violation of each kind."""
        if kind not in self.violations:
            self.violations[kind] = seen
            self.on_violation(kind, seen)

    # --- Told by the nodes

    def on_stamp(
        self, node: str, clock_s: float, clocks: Sequence[Collection[float]]
    ) -> None:
        """
        Check that a stamping clock agreed recently with the clocks of a quorum (T5).

        *clocks* are, for each machine, the recent offsets of its clock. A question that
        took a second leaves a doubt of a second.
        """
        allowed_s = MAX_CLOCK_OFFSET_S + ANSWER_S
        agreeing = sum(
            any(abs(clock_s - other) <= allowed_s for other in of_late)
            for of_late in clocks
        )
        self.comparisons[Comparison.STAMP] += 1
        if 2 * agreeing <= len(clocks):
            seen = f"{node} stamps {clock_s:.0f} s off; clocks: {clocks}"
            self.violated("clock of a quorum", seen)

    def on_apply(
        self,
        node: str,
        term: int,
        index: int,
        calls: Sequence[Call],
        entry_term: int | None = None,
    ) -> None:
        """
        Every node applies the same at an index, in every one of its lives.

        *term* is the node's, *entry_term* that of the entry.
        """
        self.committed_in.setdefault(index, term)
        if entry_term is not None:
            first_term = self.terms.setdefault(index, entry_term)
            if first_term != entry_term:
                seen = f"{node}: {index} of term {entry_term}, not {first_term}"
                self.violated("same entries", seen)
        self.comparisons[Comparison.APPLIED] += bool(calls) and index in self.applied
        first = self.applied.setdefault(index, tuple(calls))
        if first != tuple(calls):
            self.violated("same entries", f"{node} applied another entry {index}")

    def _check_error(self, outcome: object, request: object) -> None:
        """See that an error says whether something was applied, or that it may be."""
        known = NotAppliedError | OutcomeUnknownError
        if isinstance(outcome, BaseException) and not isinstance(outcome, known):
            self.violated("an error that tells", f"{request}")

    def on_outcome(self, submission: Submission, outcome: Outcome) -> None:
        """See that a proposal is answered once, and a request always alike."""
        submission.outcomes.append(outcome)
        self.comparisons[Comparison.ANSWERED] += 1
        self._check_error(outcome, submission)
        if len(submission.outcomes) > 1:
            self.violated("answered once", f"{submission}")
        if isinstance(outcome, Exception):
            return
        if submission.watch is not None:
            submission.watch(outcome)
        index = getattr(outcome, "index", None)
        if index is None or isinstance(outcome, BarrierPassed | SessionOpened):
            return  # Nothing that must be remembered.
        self.on_done(submission, index)

    def on_done(self, submission: Submission, index: int) -> None:
        """See that a request is done once, whatever clients are told of it."""
        before = self.acked.setdefault(submission.request_id, index)
        if before != index:
            self.violated("exactly once", f"{submission.request_id}: {before}, {index}")

    def on_read(self, read: Read, outcome: ReadOutcome) -> None:
        """See that a read covers all that was committed before it, or fails."""
        read.outcomes.append(outcome)
        self.comparisons[Comparison.ANSWERED] += 1
        self._check_error(outcome, read)
        if len(read.outcomes) > 1:
            self.violated("read answered once", f"{read}")
        if isinstance(outcome, ReadPoint):
            self.comparisons[Comparison.READ] += 1
            if outcome.index < read.floor:
                self.violated("stale read", f"{read}")

    def on_wish(self, wish: Wish, outcome: object) -> None:
        """Check that a requested membership change or hand-over is answered once."""
        wish.outcomes.append(outcome)
        self.comparisons[Comparison.ANSWERED] += 1
        self._check_error(outcome, wish)
        if len(wish.outcomes) > 1:
            self.violated("change answered once", f"{wish}")

    def applied_ms(self) -> int:
        """Return the state machine's time: the newest that was stamped."""
        calls = (call for calls in self.applied.values() for call in calls)
        return max((call.at_ms for call in calls), default=0)

    # --- Looked at while it runs

    def check_leader(self, node: Observed) -> None:
        """There is one leader in a term, and it has what was committed before (5.4)."""
        if not node.leads:
            return
        leader = self.leaders.get(node.term)
        if leader is None:
            self.leaders[node.term] = node.node_id
            self.comparisons[Comparison.LEADER] += 1
            for index, term in self.committed_in.items():
                known = index < node.journal.first_index or (
                    node.journal.has(index)
                    and node.journal.term_at(index) == self.terms.get(index, term)
                )
                self.comparisons[Comparison.COMPLETE] += term < node.term and known
                if term < node.term and not known:
                    self.violated(
                        "leader completeness", f"{node.node_id} lacks {index}"
                    )
        elif leader != node.node_id:
            self.violated("one leader", f"term {node.term}: {leader}, {node.node_id}")

    def check_logs(self, nodes: Sequence[Observed]) -> None:
        """Two logs that agree at an index agree before it (Raft, 5.3)."""
        # Without the base, of which a compacted log knows only index and term.
        logs = [{entry[1]: entry for entry in node.journal[1:]} for node in nodes]
        for i, one in enumerate(logs):
            for k, other in enumerate(logs[i + 1 :], i + 1):
                shared = sorted(one.keys() & other.keys())
                while shared and one[shared[-1]][2] != other[shared[-1]][2]:
                    shared.pop()
                self.comparisons[Comparison.LOGS] += bool(shared)
                if any(one[index] != other[index] for index in shared):
                    seen = f"{nodes[i].node_id}, {nodes[k].node_id}, up to {shared[-1]}"
                    self.violated("log matching", seen)

    @property
    def questions(self) -> Iterator[Submission | Read | Wish]:
        """Everything that was asked of a node."""
        return itertools.chain(self.submissions, self.reads, self.wishes)

    def on_stop(self, node: Living) -> None:
        """Expect no answers any more of the process that a machine has."""
        attempts = attempt_of(node)
        for each in self.questions:
            if each.attempt.startswith(attempts):
                each.node_died = True

    def check_answers(
        self, now: float, slack: float, paused: Mapping[str, float] | None = None
    ) -> None:
        """
        See that no caller waits for an answer beyond the deadline.

        *paused*: until when each node was, or is, paused. It answers after that.
        """
        paused = paused or {}
        for each in self.questions:
            due = max(each.deadline, paused.get(asked_node(each), 0.0))
            if now > due + slack and not each.outcomes and not each.node_died:
                self.violated("answered in time", f"{each}")

    def check_late(
        self,
        asked: Submission | Read,
        now: float,
        slack: float,
        paused_until: float = 0,
    ) -> None:
        """Check that an answer that has just come was not late."""
        due = max(asked.deadline, paused_until)
        if now > due + slack:
            self.violated("answered in time", f"{now - due:.2f} s late: {asked}")

    # --- When it is over

    def check_applied(self) -> None:
        """See that what was called not applied was never applied."""
        logged = {
            (call.session_id, call.request.request_id)
            for calls in self.applied.values()
            for call in calls
        }
        # Attempts of an administrator look alike: what is applied may be any of them.
        alike: dict[tuple[SessionId, RequestId], list[Submission]] = {}
        for each in self.submissions:
            shown = each.session, each.call.request.request_id
            alike.setdefault(shown, []).append(each)
        for shown, attempts in alike.items():
            if not all(each.is_denied for each in attempts):
                continue
            self.comparisons[Comparison.NOT_APPLIED] += len(attempts)
            if shown in logged:
                seen = ", ".join(map(str, attempts))
                self.violated("not applied", seen)
        self.changes.check(self.terms, self.wishes)

    def check_states(self, nodes: Sequence[Machine]) -> None:
        """Every node holds what was acknowledged, and all hold the same."""
        for node in nodes:
            applied = node.store.applied()
            for request_id, index in self.acked.items():
                if applied.get(request_id) != index:
                    seen = f"{request_id} at {index} on {node.node_id}"
                    self.violated("nothing lost", seen)
        self.check_digests(nodes)

    def check_digests(self, nodes: Sequence[Machine]) -> None:
        """All states are the same, hash by hash."""
        digests = {node.node_id: node.store.digest() for node in nodes}
        self.comparisons[Comparison.DIGEST] += len(digests) if len(digests) > 1 else 0
        if len({*digests.values()}) > 1 or DAMAGED in digests.values():
            self.violated("equal digests", f"{digests}")
