# SPDX-License-Identifier: Apache-2.0
"""
What clients asked and what they were told, on one monotonic clock.

An invocation is written before the request is sent, its outcome after the answer
has come. An outcome that nobody knows stays open for ever: such an operation may
take effect at any time after its invocation, or never.
"""

import enum
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Kind(enum.StrEnum):
    """What was asked about one code."""

    ISSUE = "issue"
    CONSUME = "consume"
    """One try to authenticate with it."""
    REVOKE = "revoke"
    """Emergency access turned off, or another set issued in its place."""
    READ = "read"


class Result(enum.StrEnum):
    """What was answered."""

    ISSUED = "issued"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    REVOKED = "revoked"
    NOT_LIVE = "not live"
    """Of a revocation: there was nothing to revoke."""
    ABSENT = "absent"
    """Here and below: what a read saw."""
    LIVE = "live"
    SPENT = "spent"
    DEAD = "dead"


class Outcome(enum.StrEnum):
    """How an operation ended."""

    OPEN = "open"
    """Not yet, or nobody knows how: it may take effect at any later time."""
    ANSWERED = "answered"
    NOT_DONE = "not done"
    """The caller was told that nothing was applied, and we hold the cluster to it."""


@dataclass(slots=True)
class Operation:
    """One operation on one code."""

    kind: Kind
    code: str
    request_id: str
    """Of a consume and a revocation: the same one is the same request."""
    node: str
    invoked_ns: int
    returned_ns: int | None = None
    outcome: Outcome = Outcome.OPEN
    result: Result | None = None
    words: str = ""
    """Why it was not answered."""
    index: int = 0
    """The log index that the answer named: of the change, or of the state read."""
    unserved: bool = False
    """No node could do it, or say that it had, for as long as the client tried."""


class History:
    """Records operations, in memory and (if given a file) as lines of JSON."""

    def __init__(
        self,
        file: Path | None = None,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.operations: list[Operation] = []
        self._now_ns = now_ns
        self._file = None if file is None else file.open("w")

    def invoke(self, kind: Kind, code: str, *, request_id: str, node: str) -> Operation:
        """Write that an operation is about to be sent."""
        operation = Operation(kind, code, request_id, node, self._now_ns())
        self.operations.append(operation)
        self._write(operation)
        return operation

    def answer(self, operation: Operation, result: Result, index: int = 0) -> None:
        """Write the answer."""
        operation.index = index
        operation.returned_ns = self._now_ns()
        operation.outcome = Outcome.ANSWERED
        operation.result = result
        self._write(operation)

    def not_done(self, operation: Operation, words: str) -> None:
        """Write that the caller was told that nothing was applied."""
        operation.returned_ns = self._now_ns()
        operation.outcome = Outcome.NOT_DONE
        operation.words = words
        self._write(operation)

    def unknown(self, operation: Operation, words: str) -> None:
        """Write that the caller does not know; the operation stays open."""
        operation.words = words or "unknown"
        self._write(operation)

    def of_codes(self) -> dict[str, list[Operation]]:
        """Return the operations of each code, in the order of their invocations."""
        found = defaultdict(list)
        for operation in self.operations:
            found[operation.code].append(operation)
        return dict(found)

    def first_success(self, after_ns: int, but: str) -> float | None:
        """
        Return after how many seconds others than the node *but* had done something new.

        Only changes count that were asked for later than *after_ns*: what comes
        back sooner may have been decided before. Another thread may ask.
        """
        found = None
        for operation in reversed(self.operations[:]):
            if operation.invoked_ns <= after_ns:
                break
            if (
                operation.outcome is Outcome.ANSWERED
                and operation.kind is not Kind.READ
                and operation.node != but
                and operation.returned_ns is not None
            ):
                waited_s = (operation.returned_ns - after_ns) / 1e9
                found = waited_s if found is None else min(found, waited_s)
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, operation: Operation) -> None:
        if self._file is None:
            return
        line = {
            "at_ns": self._now_ns(),
            "outcome": operation.outcome,
            "kind": operation.kind,
            "code": operation.code,
            "request_id": operation.request_id,
            "node": operation.node,
            "result": operation.result,
            "index": operation.index,
            "words": operation.words,
            "unserved": operation.unserved,
        }
        self._file.write(json.dumps(line) + "\n")
