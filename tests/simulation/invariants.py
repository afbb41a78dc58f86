# SPDX-License-Identifier: Apache-2.0
"""What must hold in every moment of every run, whatever the faults."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sparecode_node.replication.errors import NotAppliedError
from sparecode_node.replication.journal import Journal
from sparecode_node.replication.proposals import Outcome
from sparecode_node.replication.read_index import ReadOutcome, ReadPoint
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.results import BarrierPassed, SessionOpened


class Observed(Protocol):
    """A node that runs, as the invariants see it."""

    node_id: str

    @property
    def journal(self) -> Journal: ...
    @property
    def term(self) -> int: ...
    @property
    def leads(self) -> bool: ...


@dataclass
class Submission:
    """A call that was proposed once, to one life of one node."""

    request_id: str
    attempt: str
    deadline: float
    outcomes: list[Outcome] = field(default_factory=list)
    node_died: bool = False
    watch: Callable[[Outcome], object] | None = None


@dataclass
class Read:
    """A linearizable read that one life of one node was asked for."""

    asked: str
    deadline: float
    floor: int
    """What was committed somewhere when the read began."""
    outcomes: list[ReadOutcome] = field(default_factory=list)
    node_died: bool = False


@dataclass
class Invariants:
    """Collects violations: kind, and what was seen."""

    violations: dict[str, str] = field(default_factory=dict)
    applied: dict[int, tuple[Call, ...]] = field(default_factory=dict)
    committed_in: dict[int, int] = field(default_factory=dict)
    """Index -> a term in which it was committed at the latest."""
    leaders: dict[int, str] = field(default_factory=dict)
    submissions: list[Submission] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    acked: dict[str, int] = field(default_factory=dict)
    """Request id -> index, of what a client was told to be done."""

    def violated(self, kind: str, seen: str) -> None:
        """Remember the first violation of each kind."""
        self.violations.setdefault(kind, seen)

    # --- Told by the nodes

    def on_apply(self, node: str, term: int, index: int, calls: Sequence[Call]) -> None:
        """Every node applies the same at an index, in every one of its lives."""
        self.committed_in.setdefault(index, term)
        first = self.applied.setdefault(index, tuple(calls))
        if first != tuple(calls):
            self.violated("same entries", f"{node} applied another entry {index}")

    def on_outcome(self, submission: Submission, outcome: Outcome) -> None:
        """See that a proposal is answered once, and a request always alike."""
        submission.outcomes.append(outcome)
        if len(submission.outcomes) > 1:
            self.violated("answered once", f"{submission}")
        if isinstance(outcome, Exception):
            return
        if submission.watch is not None:
            submission.watch(outcome)
        index = getattr(outcome, "index", None)
        if index is None or isinstance(outcome, BarrierPassed | SessionOpened):
            return  # Nothing that must be remembered.
        before = self.acked.setdefault(submission.request_id, index)
        if before != index:
            self.violated("exactly once", f"{submission.request_id}: {before}, {index}")

    def on_read(self, read: Read, outcome: ReadOutcome) -> None:
        """See that a read covers all that was committed before it, or fails."""
        read.outcomes.append(outcome)
        if len(read.outcomes) > 1:
            self.violated("read answered once", f"{read}")
        if isinstance(outcome, ReadPoint) and outcome.index < read.floor:
            self.violated("stale read", f"{read}")

    # --- Looked at while it runs

    def check_leader(self, node: Observed) -> None:
        """There is one leader in a term, and it has what was committed before (5.4)."""
        if not node.leads:
            return
        leader = self.leaders.get(node.term)
        if leader is None:
            self.leaders[node.term] = node.node_id
            for index, term in self.committed_in.items():
                if term < node.term and not node.journal.has(index):
                    self.violated(
                        "leader completeness", f"{node.node_id} lacks {index}"
                    )
        elif leader != node.node_id:
            self.violated("one leader", f"term {node.term}: {leader}, {node.node_id}")

    def check_logs(self, nodes: Sequence[Observed]) -> None:
        """Two logs that agree at an index agree before it (Raft, 5.3)."""
        for i, one in enumerate(nodes):
            for other in nodes[i + 1 :]:
                a, b = one.journal[:], other.journal[:]
                last = min(len(a), len(b))
                while last and a[last - 1][2] != b[last - 1][2]:
                    last -= 1
                if a[:last] != b[:last]:
                    seen = f"{one.node_id}, {other.node_id}, up to {last}"
                    self.violated("log matching", seen)

    def check_answers(self, now: float, slack: float) -> None:
        """Nobody waits for an answer beyond the deadline."""
        for submission in self.submissions:
            late = now > submission.deadline + slack
            if late and not submission.outcomes and not submission.node_died:
                self.violated("answered in time", f"{submission}")
        for read in self.reads:
            late = now > read.deadline + slack
            if late and not read.outcomes and not read.node_died:
                self.violated("answered in time", f"{read}")

    # --- When it is over

    def check_applied(self) -> None:
        """See that what was called not applied was never applied."""
        attempts = {
            call.session_id: index
            for index, calls in self.applied.items()
            for call in calls
        }
        for submission in self.submissions:
            for outcome in submission.outcomes:
                if (
                    isinstance(outcome, NotAppliedError)
                    and submission.attempt in attempts
                ):
                    self.violated("not applied", f"{submission}: {outcome!r}")

    def check_states(self, states: Iterable[tuple[str, dict[str, int], str]]) -> None:
        """Every node holds what was acknowledged, and all hold the same."""
        digests = {}
        for node, applied, digest in states:
            digests[node] = digest
            for request_id, index in self.acked.items():
                if applied.get(request_id) != index:
                    self.violated("nothing lost", f"{request_id} at {index} on {node}")
        if len(set(digests.values())) > 1:
            self.violated("equal digests", f"{sorted(digests)}")
