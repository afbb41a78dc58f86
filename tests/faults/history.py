# SPDX-License-Identifier: Apache-2.0
"""
The operations of clients and their answers, on one monotonic clock.

An invocation is written before the request is sent, its outcome after the answer
has come. An unknown outcome stays open forever: such an operation may take effect
at any time after its invocation, or never.
"""

import enum
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Kind(enum.StrEnum):
    """The kind of an operation on one code."""

    ISSUE = "issue"
    CONSUME = "consume"
    """One attempt to authenticate with the code."""
    REVOKE = "revoke"
    """Emergency access turned off, or replaced by another set."""
    READ = "read"


class Result(enum.StrEnum):
    """The answer to an operation."""

    ISSUED = "issued"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    REVOKED = "revoked"
    NOT_LIVE = "not live"
    """Of a revocation: there was no live code."""
    ABSENT = "absent"
    """This and the following are results of a read."""
    LIVE = "live"
    SPENT = "spent"
    DEAD = "dead"


class Outcome(enum.StrEnum):
    """How an operation ended."""

    OPEN = "open"
    """Not yet, or unknown: it may take effect at any later time."""
    ANSWERED = "answered"
    NOT_DONE = "not done"
    """The caller was told that nothing was applied, and the checker enforces that."""


@dataclass(slots=True)
class Operation:
    """One operation on one code."""

    kind: Kind
    code: str
    request_id: str
    """Of a consume or revoke: operations with the same id are one request."""
    node: str
    invoked_ns: int
    returned_ns: int | None = None
    outcome: Outcome = Outcome.OPEN
    result: Result | None = None
    words: str = ""
    """The reason of a missing answer."""
    index: int = 0
    """The log index in the answer: of the change, or of the state that was read."""
    protocol: str = ""
    """Of a consume by another way than gRPC: `HTTP` or `RADIUS`."""
    unserved: bool = False
    """Whether no node served the call for as long as the client tried."""


class History:
    """Records operations in memory, and in a file as lines of JSON if there is one."""

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
        """Record that an operation is about to be sent."""
        operation = Operation(kind, code, request_id, node, self._now_ns())
        self.operations.append(operation)
        self._write(operation)
        return operation

    def answer(self, operation: Operation, result: Result, index: int = 0) -> None:
        """Record the answer."""
        operation.index = index
        operation.returned_ns = self._now_ns()
        operation.outcome = Outcome.ANSWERED
        operation.result = result
        self._write(operation)

    def not_done(self, operation: Operation, words: str) -> None:
        """Record that the caller was told that nothing was applied."""
        operation.returned_ns = self._now_ns()
        operation.outcome = Outcome.NOT_DONE
        operation.words = words
        self._write(operation)

    def unknown(self, operation: Operation, words: str) -> None:
        """Record that the outcome is unknown; the operation stays open."""
        operation.words = words or "unknown"
        self._write(operation)

    def of_codes(self) -> dict[str, list[Operation]]:
        """Return the operations of each code, in the order of their invocations."""
        result = defaultdict(list)
        for operation in self.operations:
            result[operation.code].append(operation)
        return dict(result)

    def first_success(self, after_ns: int, but: str) -> float | None:
        """
        Return the seconds from *after_ns* to the first change on a node other than *but*.

        Only changes invoked after *after_ns* count: earlier ones may have been decided
        before. Any thread may call this.
        """
        result = None
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
                result = waited_s if result is None else min(result, waited_s)
        return result

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
            "protocol": operation.protocol,
            "unserved": operation.unserved,
        }
        self._file.write(json.dumps(line) + "\n")
