# SPDX-License-Identifier: Apache-2.0
"""
Rules about users and their codes, judged by the answers that clients got.

Nothing here asks the product whether a code may be accepted: that follows from the
answers, the order of the log, and its time stamps. The product is used for one thing:
the state that a machine without failures makes of the same log. All nodes must have
that state. (And what release 0.1.0 could read is in a file: `replication/levels`.)
"""

import collections
import contextlib
import itertools
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sparecode_node.domain.challenges import Challenge
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import Policy
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.levels import BEGINNINGS, needed
from sparecode_node.statemachine.commands import Call, UnstampedCall
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.feature_level import NEWEST, STALE_REPEATS
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import (
    Authenticated,
    Decision,
    EmergencyAccessSaved,
    Result,
)
from sparecode_node.statemachine.tables import archives
from sparecode_node.statemachine.tables.users import find_user_by_tag
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Machine, Submission
from tests.simulation.people import GUESSED, IssuedSet
from tests.simulation.sealed import Row, rows_of, whole_log
from tests.simulation.sqlite_store import SqliteStore

CHALLENGE_OF_EVENT = re.compile("challenge ([^,;]+)")
"""In the detail of an audit event."""
RETENTION_MS = Policy().request_retention_ms

Request = tuple[str, str, str]
"""Its caller, method and id."""


class Reference:
    """The agreed log, on a machine that never failed."""

    def __init__(self, applied: dict[int, tuple[Call, ...]]) -> None:
        self._db = sqlite3.connect(":memory:")
        self.last_index = max(applied, default=0)
        self.results: dict[int, tuple[Result, ...]] = {}
        self.times_ms: dict[int, int] = {}
        self.levels: dict[int, int] = {}
        """Entry -> the feature level before it, if that was an older one."""
        self.misnamed: set[Request] = set()
        """Sign-ins of that time that name their user by a tag that was replaced (Q1)."""
        self._events: list[Row] = []
        try:
            self.digest = self._apply(applied)
        except BaseException:
            self.close()
            raise

    def _apply(self, applied: dict[int, tuple[Call, ...]]) -> str:
        """Apply the log, and return the digest of the state it makes."""
        machine = StateMachine(self._db)
        now_ms = 0
        for index in range(1, self.last_index + 1):
            calls = applied.get(index, ())
            now_ms = max([now_ms, *(call.at_ms for call in calls)])
            self.times_ms[index] = now_ms
            level = machine.feature_level
            self.results[index] = machine.apply(index, calls)
            if level < NEWEST:
                self._look_back(index, level, calls)
            # Apply discards what retention has removed.
            self._events += rows_of(self._db, after=len(self._events))
        return machine.digest()

    def _look_back(self, index: int, level: int, calls: tuple[Call, ...]) -> None:
        """
        Keep what the judges must know of an older feature level.

        After the entry: a tag may be replaced by another call in it.
        """
        self.levels[index] = level
        for call in calls if level < STALE_REPEATS else ():
            command = call.command
            named = not isinstance(command, Authenticate) or not command.user_id
            if not (named or find_user_by_tag(self._db, command.name_tag)):
                self.misnamed.add(request_of(call))

    def audit_log(self) -> list[Row]:
        """Return all audit events, oldest first, also those that are removed."""
        return self._events

    def close(self) -> None:
        self._db.close()


def request_of(call: Call | UnstampedCall) -> Request:
    """Return what a call is remembered by (Q1)."""
    key = call.request
    return key.caller, key.method, key.request_id


def _refused_again(one: object, other: object) -> bool:
    """Return whether two answers differ in this alone: one accepts, the other refuses."""
    if not (isinstance(one, Authenticated) and isinstance(other, Authenticated)):
        return False
    decisions = {one.decision, other.decision}
    return decisions == {Decision.ACCEPTED, Decision.REFUSED} and (
        replace(one, decision=other.decision) == other
    )


@dataclass(frozen=True)
class Accepted:
    """An accepted attempt."""

    request_id: str
    what: str
    set_id: str
    index: int


@dataclass
class CodeRules(Invariants):
    """The invariants of the log, and those of the codes."""

    sets: dict[str, IssuedSet] = field(default_factory=dict)
    accepted: dict[str, dict[str, Accepted]] = field(
        default_factory=lambda: collections.defaultdict(dict)
    )
    """What was spent -> request id -> who was let in by it."""
    done: dict[Request, set[int]] = field(
        default_factory=lambda: collections.defaultdict(set)
    )
    """Caller, method, request id -> indexes that clients were told."""
    answers: dict[tuple[Request, int], object] = field(default_factory=dict)
    """The same, and an index -> what a client was told first."""
    refused_again: list[tuple[Request, str]] = field(default_factory=list)
    """Requests that were accepted at one time and refused at another, and what was seen."""

    challenges: list[Challenge] = field(default_factory=list)
    """Those that agents were given."""
    spent_before: frozenset[str] = frozenset()
    """What was spent in the old cluster, if this one is a new one."""
    serves_agents: bool = True
    """Whether it was opened, if it is a new one."""
    check_archives: Callable[[Sequence[Row], int], object] | None = None
    """Look in the archives for the given number of events, the first of the log."""

    def on_done(self, submission: Submission, index: int) -> None:
        """Look at what a client was told; a retry may come after it was forgotten."""
        self.acked[submission.request_id] = index
        request = request_of(submission.call)
        self.done[request].add(index)
        command, outcome = submission.call.command, submission.outcomes[-1]
        place = request, index
        self.comparisons[Comparison.REPEATED] += place in self.answers
        if (first := self.answers.setdefault(place, outcome)) != outcome:
            seen = f"{submission.request_id}: {first}, and then {outcome}"
            if _refused_again(first, outcome):
                self.refused_again.append((request, seen))
            else:
                self.violated("one answer", seen)
        if isinstance(command, ContinueAuthentication):
            self._answered(submission, command)
        if not isinstance(command, Authenticate):
            return
        if not isinstance(outcome, Authenticated):
            self.violated("an answer of its kind", f"{submission}")
            return
        if outcome.authentication_id != command.authentication_id:
            seen = f"{submission.request_id} was answered about another passcode"
            self.violated("an answer of its own", seen)
        if outcome.challenge is not None and outcome.challenge not in self.challenges:
            self.challenges.append(outcome.challenge)
        if outcome.decision is Decision.ACCEPTED:
            self._let_in(submission, command, index)
        elif command.user_id == GUESSED:
            self.comparisons[Comparison.WRONG] += 1

    def _let_in(
        self, submission: Submission, command: Authenticate, index: int
    ) -> None:
        what = command.authentication_id
        codes = [code for reading in command.readings for code in reading.codes]
        who = self.accepted[what]
        who[submission.request_id] = Accepted(
            submission.request_id, what, codes[0].set_id if codes else "", index
        )
        self.comparisons[Comparison.SPENT] += len(who) == 1
        if len(who) > 1:
            self.violated("spent once", f"{what} by {sorted(who)}")
        if what in self.spent_before:
            self.violated("spent once", f"{what}, once in the old cluster")
        if not self.serves_agents:
            self.violated("no agent before the opening", f"{submission}")
        if command.user_id == GUESSED:
            self.violated("no guess is right", f"{what} by {submission.request_id}")

    def _answered(
        self, submission: Submission, command: ContinueAuthentication
    ) -> None:
        """See that a challenge is answered by its own agent (K3)."""
        outcome, challenge = submission.outcomes[-1], command.challenge
        if not isinstance(outcome, Authenticated) or challenge is None:
            self.violated("an answer of its kind", f"{submission}")
            return
        accepted = outcome.decision is Decision.ACCEPTED
        if accepted and command.agent != challenge.agent:
            self.violated("a challenge of its agent", f"{submission}")

    def check_works(self, what: str, tried: Submission | None) -> None:
        """See that a live code, which no one has tried before, was accepted."""
        self.comparisons[Comparison.WORKS] += 1
        if not any(
            isinstance(each, Authenticated) and each.decision is Decision.ACCEPTED
            for each in (tried.outcomes if tried else ())
        ):
            self.violated("live codes work", f"{what}: {tried}")

    # --- When it is over

    def check_states(self, nodes: Sequence[Machine]) -> None:
        """See that every node is where the log leads, and that clients heard that."""
        self.check_digests(nodes)
        try:
            reference = Reference(self.applied)
        except Exception as error:  # noqa: BLE001 - any of them is a finding.
            self.violated("no exception", f"applying the log again: {error!r}")
            return
        with contextlib.closing(reference):
            self._check_places(nodes, reference)
            self._check_done(reference)
            self.check_repeats(reference)
            self._check_words(reference)
            self.check_challenges(reference.audit_log())
            self._check_accepted(reference)

    def _check_places(self, nodes: Sequence[Machine], reference: Reference) -> None:
        for node in nodes:
            applied = node.store.state.applied_index
            if applied < max(self.acked.values(), default=0):
                seen = f"{node.node_id} ends at {applied}, before what was acknowledged"
                self.violated("nothing lost", seen)
            if applied != reference.last_index:
                continue
            self.comparisons[Comparison.REFERENCE] += 1
            if node.store.digest() != reference.digest:
                self.violated("equal digests", f"{node.node_id} and the log again")
            if isinstance(node.store, SqliteStore):
                with whole_log(node.store.committed(), node.store.sealed) as db:
                    self.check_audit_log(node.node_id, db, reference.audit_log())

    def check_audit_log(
        self, node: str, db: sqlite3.Connection, expected: Sequence[Row]
    ) -> None:
        """
        See that a machine has every event of the log, sealed or not (U1).

        Those that retention has removed are in archives (U4).
        """
        removed = archives.removed(db).last_sequence
        found = [row for row in rows_of(db) if int(str(row[0])) > removed]
        if self.check_archives is not None and removed:
            self.check_archives(expected, removed)
        expected = expected[removed:]
        (first,) = db.execute("SELECT min(sequence) FROM main.audit_events").fetchone()
        self.comparisons[Comparison.SEALED] += max((first or 1) - 1, 0)
        if found != expected:
            different = set(found) ^ set(expected)
            seen = f"{node}: {len(found)} of {len(expected)} events, {different}"
            self.violated("a whole audit log", seen)

    def check_challenges(self, log: Sequence[Row]) -> None:
        """
        See that what is judged first uses a challenge up, right or wrong (K3).

        An answer while the user is locked out is not judged (L5). The event alone says
        that: an agent hears only that the user was refused.
        """
        used = set()
        for _, _, _, _, action, _, outcome, reason, detail, _ in log:
            if action != ContinueAuthentication.__name__:
                continue
            challenge = CHALLENGE_OF_EVENT.search(str(detail))
            judged = (
                outcome == Decision.ACCEPTED.value or reason == Reason.WRONG_PASSCODE
            )
            if challenge is None or not judged:
                continue
            self.comparisons[Comparison.CHALLENGED] += 1
            if outcome == Decision.ACCEPTED.value and challenge[1] in used:
                self.violated("a challenge is answered once", detail)
            used.add(challenge[1])

    def _check_done(self, reference: Reference) -> None:
        """See that what was told is in the log there, and was decided once (Q2, Q3)."""
        logged = {i: set(map(request_of, calls)) for i, calls in self.applied.items()}
        for key, indexes in self.done.items():
            for index in indexes:
                self.comparisons[Comparison.TOLD] += 1
                if key not in logged.get(index, ()):
                    self.violated("nothing lost", f"{key} is not at {index}")
            times = sorted(reference.times_ms.get(index, 0) for index in indexes)
            for one, next_one in itertools.pairwise(times):
                if next_one - one <= RETENTION_MS:
                    seen = f"{key} was decided at {sorted(indexes)}"
                    self.violated("exactly once", seen)

    def check_repeats(self, reference: Reference) -> None:
        """
        See that no sign-in was accepted and then refused (Q2).

        Release 0.1.0 refuses a repeat that names its user by a tag that was replaced.
        """
        for request, seen in self.refused_again:
            if request not in reference.misnamed:
                self.violated("one answer", seen)

    def _check_words(self, reference: Reference) -> None:
        """See that members of an older release could read all that came to them."""
        for index, level in reference.levels.items():
            for call in self.applied.get(index, ()):
                if isinstance(call.command, BEGINNINGS):
                    continue
                self.comparisons[Comparison.READABLE] += 1
                if needed(encode_call(call)) > level:
                    seen = f"{index}, at level {level}: {call.command}"
                    self.violated("older members can read the log", seen)

    def _check_accepted(self, reference: Reference) -> None:
        """No code was accepted after its set was void (I8), or had ended (I7)."""
        saved: dict[str, int] = {}
        for index, results in reference.results.items():
            for result in results:
                if isinstance(result, EmergencyAccessSaved) and result.index == index:
                    saved[result.set_id] = index
        for who in self.accepted.values():
            for accepted in who.values():
                if accepted.set_id:
                    self._check_use(accepted, saved, reference)

    def _check_use(
        self, accepted: Accepted, saved: dict[str, int], reference: Reference
    ) -> None:
        issued = self.sets[accepted.set_id]
        since = saved.get(accepted.set_id)
        if since is None or since > accepted.index:
            self.violated("only issued codes", f"{accepted}")
            return
        self.comparisons[Comparison.ISSUED] += 1
        for other_id, index in saved.items():
            later = since < index < accepted.index
            if later and self.sets[other_id].user == issued.user:
                seen = f"{accepted}: {other_id} was issued at {index}"
                self.violated("no void code", seen)
        if issued.lifetime_ms is not None:
            self.comparisons[Comparison.ENDING] += 1
            end = reference.times_ms[since] + issued.lifetime_ms
            if reference.times_ms[accepted.index] >= end:
                self.violated("no code after its end", f"{accepted}, issued at {since}")
