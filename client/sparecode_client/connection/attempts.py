# SPDX-License-Identifier: Apache-2.0
"""
The tries of one call: which node is next, when, and what is known at the end.

Each try has one of three results:

* The node answered. The call is over.
* The node certainly did nothing. The next try starts afresh.
* The node perhaps applied the request. Then only the answer to a later try with the same
  request id can tell. Without such an answer, the call ends with `OutcomeUnknown`,
  whatever the last node reported.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import grpc
import tenacity

from sparecode_client.connection.statuses import (
    NOT_CONNECTED,
    Status,
    final_error,
    reason_not_connected,
    too_large,
)
from sparecode_client.errors import (
    InvalidArgument,
    OutcomeUnknown,
    Overloaded,
    SparecodeError,
    Unavailable,
)

OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
UNREACHABLE = "UNREACHABLE"
NO_ANSWER = "NO_ANSWER"
REMOVED = "REMOVED"
"""A node that was removed from its cluster answers no call any more."""
NO_QUORUM = "NO_QUORUM"
"""A node says so after it has waited for an election."""
ROUNDS_WITHOUT_QUORUM_MAX = 2
"""
After this many rounds in which every node lacked a quorum or was down, the call ends.

An election is over by then: each node that says `NO_QUORUM` has waited for one, and has
told the caller how long to wait before the next round.
"""
TRY_S_MIN = 0.02
"""Minimum time for a try: a shorter one would hardly reach the node."""
ROUNDS_DOUBLED_MAX = 20
"""After this many rounds a try already has all the remaining time."""

_UNANSWERED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
NO_CONNECTION = Status(code=grpc.StatusCode.UNAVAILABLE, words="no connection in time")
_UNASKED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
"""A node refuses with these before it looks for an earlier try with the request id."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a call, on the clock of the running event loop."""

    at_s: float

    @classmethod
    def after(cls, timeout: timedelta) -> Self:
        """Return the deadline that is *timeout* from now. Raises `TypeError`."""
        if not isinstance(timeout, timedelta):
            raise TypeError(f"a timeout is a datetime.timedelta, not {timeout!r}")
        return cls(asyncio.get_running_loop().time() + timeout.total_seconds())

    def remaining_s(self) -> float:
        """Return the seconds left; zero or negative once the deadline has passed."""
        return self.at_s - asyncio.get_running_loop().time()

    def remaining(self) -> timedelta:
        """Return the time left, at least zero."""
        return timedelta(seconds=max(0.0, self.remaining_s()))


class NoAnswerError(Exception):
    """A try got no answer. Used only inside the library."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.words)
        self.status = status


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try."""

    position: int
    """Position of the node in the caller's list."""
    address: str
    deadline: Deadline


class Attempts:
    """The tries of one call so far."""

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        first: int,
        request_id: str,
        deadline: Deadline,
        try_timeout_s: float | None,
        backoff: Callable[[tenacity.RetryCallState], float],
    ) -> None:
        self._addresses = addresses
        self._first = first
        self._request_id = request_id
        self._deadline = deadline
        self._try_timeout_s = try_timeout_s
        self._backoff = backoff
        self._begun = 0
        self._in_doubt: set[str] = set()
        """Nodes that perhaps applied the request."""
        self._problems: dict[str, Status] = {}
        self._without_quorum: Counter[str] = Counter()
        """How often in succession each node lacked a quorum, or was down."""
        self.removed: set[str] = set()
        """Nodes that are not tried again, because they were removed from the cluster."""

    def begin(self) -> Attempt:
        """
        Return the next try.

        If there are other nodes, a try gets only part of the time: a paused node must
        not use up the deadline. Each round over all nodes doubles that part, so that
        a slow cluster can still answer.
        """
        rounds, position = self._next()
        while self._addresses[position] in self.removed:
            rounds, position = self._next()
        deadline = self._deadline
        if self._try_timeout_s is not None and len(self._addresses) > 1:
            own_s = self._try_timeout_s * 2 ** min(rounds, ROUNDS_DOUBLED_MAX)
            excess_s = max(0.0, self._deadline.remaining_s() - own_s)
            deadline = Deadline(self._deadline.at_s - excess_s)
        return Attempt(position, self._addresses[position], deadline)

    def _next(self) -> tuple[int, int]:
        """Return the number of complete rounds, and the position of the next node."""
        rounds, step = divmod(self._begun, len(self._addresses))
        self._begun += 1
        return rounds, (self._first + step) % len(self._addresses)

    def record_no_connection(
        self, attempt: Attempt, status: Status = NO_CONNECTION
    ) -> NoAnswerError:
        """Record that no connection was made, so nothing sent, and return the error."""
        return self._no_answer(attempt, status)

    def record_dead_connection(self, attempt: Attempt) -> NoAnswerError:
        """Record that the connection died during the try, and return the error."""
        return self._no_answer(
            attempt,
            Status(code=grpc.StatusCode.UNAVAILABLE, words="no answer in time"),
            perhaps=True,
        )

    def record_failure(
        self, attempt: Attempt, status: Status
    ) -> NoAnswerError | SparecodeError:
        """Record a try that failed over a connection, and return its error."""
        if too_large(status):
            return InvalidArgument("", "the request is larger than a node accepts")
        if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self._no_answer(attempt, status)
        if status.code in _UNANSWERED:
            if status.reason == REMOVED:
                return self._record_removed(attempt, status)
            # If gRPC reports no connection, it was lost perhaps after the request left.
            perhaps = status.reason in ("", OUTCOME_UNKNOWN)
            return self._no_answer(attempt, status, perhaps=perhaps)
        if status.code in _UNASKED and self._in_doubt and self._request_id:
            return self._outcome_unknown()
        return final_error(status)

    def _record_removed(
        self, attempt: Attempt, status: Status
    ) -> NoAnswerError | SparecodeError:
        """Record a removed node; the call ends if there is no other node."""
        failure = self._no_answer(attempt, status)
        self.removed.add(attempt.address)
        if self.removed < set(self._addresses):
            return failure
        return self.error(failure)

    def wait_s(self, state: tenacity.RetryCallState) -> float:
        """Return the wait before the next try: none if the next node is untried this round."""
        status = _failure(state).status
        shed = status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if self._begun % len(self._addresses) and not shed:
            return 0.0
        asked_s = status.retry_after_s or 0.0
        # Always wait as long as the node asks. Add jitter only as far as it leaves time
        # for another try.
        left_s = max(0.0, self._deadline.remaining_s() - asked_s)
        return asked_s + min(self._backoff(state), left_s / 2)

    def is_over(self, state: tenacity.RetryCallState) -> bool:
        """Return whether no time for another try is left after the wait, or no hope."""
        left_s = self._deadline.remaining_s() - state.upcoming_sleep
        return left_s < TRY_S_MIN or self._quorum_is_lost()

    def _quorum_is_lost(self) -> bool:
        """Return whether the call ends before its deadline, because no quorum is there."""
        if self._in_doubt and self._request_id:
            return False  # A later answer settles what an earlier try did.
        others = set(self._addresses) - self.removed
        return all(
            self._without_quorum[address] >= ROUNDS_WITHOUT_QUORUM_MAX
            for address in others
        ) and any(self._problems[address].reason == NO_QUORUM for address in others)

    def error(self, last: NoAnswerError) -> SparecodeError:
        """Return the error for the caller when no node has answered."""
        if self._in_doubt and self._request_id:
            return self._outcome_unknown()
        if last.status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(
                last.status.reason or "OVERLOADED",
                last.status.words or "the cluster is overloaded",
                last.status.retry_after_s or 1.0,
            )
        reasons = [s.reason for s in self._problems.values() if s.reason]
        fallback = NO_ANSWER if self._in_doubt else UNREACHABLE
        if self.removed < set(self._addresses):
            # What keeps the others from answering is more important.
            reasons = [reason for reason in reasons if reason != REMOVED]
        reason = next(iter(reasons), fallback)
        return Unavailable(reason, f"no node could answer: {self._summary()}")

    def _no_answer(
        self, attempt: Attempt, status: Status, *, perhaps: bool = False
    ) -> NoAnswerError:
        # A later answer of the same node does not settle an earlier try that is in doubt.
        settles_nothing = attempt.address in self._in_doubt or (
            status is NO_CONNECTION and self._has_cause(attempt.address)
        )
        if perhaps or not settles_nothing:
            self._problems[attempt.address] = status
        if perhaps:
            self._in_doubt.add(attempt.address)
        if status.reason == NO_QUORUM or not (status.reason or perhaps):
            self._without_quorum[attempt.address] += 1
        else:
            self._without_quorum.clear()
        return NoAnswerError(status)

    def _has_cause(self, address: str) -> bool:
        """Return whether an earlier try says why there is no connection to a node."""
        earlier = self._problems.get(address)
        return earlier is not None and not earlier.reason

    def _outcome_unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            self._request_id,
            f"the outcome is unknown: {self._summary()}",
        )

    def _summary(self) -> str:
        return "; ".join(
            f"{address}: {_words(status)}" for address, status in self._problems.items()
        )


def _failure(state: tenacity.RetryCallState) -> NoAnswerError:
    failure = None if state.outcome is None else state.outcome.exception()
    assert isinstance(failure, NoAnswerError)  # noqa: S101  Nothing else is retried.
    return failure


def _words(status: Status) -> str:
    """Return a readable message for a status, instead of gRPC's wording if possible."""
    if status.reason:
        return status.words or status.reason
    if status.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    if status.words.startswith(NOT_CONNECTED):
        return reason_not_connected(status.words)
    return status.words or status.code.name
