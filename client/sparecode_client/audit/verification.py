# SPDX-License-Identifier: Apache-2.0
"""
Verifies an export of the audit log without a node (U2).

Written after the contract alone (`AuditEvent` and `Checkpoint` in
`sparecode/v1/audit.proto`), so that it is a second opinion on what nodes compute.

The chain binds each event to all before it, so an edit, a gap or a reordering
shows in the file itself. Who can write the whole file anew can make a chain that
hangs together, and who cuts off its end leaves one: against that there are the
checkpoints, which only the cluster can sign. What they cover is proved, and
nothing else is.
"""

import enum
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparecode_client.audit.checkpoints import AuditFileError, canonical_form
from sparecode_client.values.audit import Checkpoint

GENESIS_HASH = bytes(32)
LINE_BYTES_MAX = 64 * 1024

_NUMBERS = ("at_ms", "sequence")
_WORDS = ("action", "actor", "detail", "node", "outcome", "reason", "target")
_HASHES = ("hash", "previous_hash")


class ProblemKind(enum.StrEnum):
    """What is wrong with an export."""

    DAMAGED = "damaged"
    """A line is no event."""
    EDITED = "edited"
    """An event does not say what it said."""
    MISSING = "missing"
    """Events are missing in the middle."""
    REORDERED = "reordered"
    """An event stands before an earlier one, or twice."""
    CUT = "cut"
    """Events are missing at the end."""
    NOT_SIGNED = "not_signed"
    """The chain is not the one that a checkpoint was signed for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditProblem:
    """The first thing that is wrong with an export."""

    kind: ProblemKind
    sequence: int
    """The event that it is about."""
    line: int
    """Of the file, from 1."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What a file proves."""

    first: int
    """Its first event; 0: it has none."""
    last: int
    """Up to here its events hang together."""
    proved_up_to: int
    """Up to here a signature of the cluster covers them; 0: none does."""
    problem: AuditProblem | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An event as the file has it."""

    number: int
    sequence: int
    canonical: bytes
    previous_hash: bytes
    hash: bytes

    @property
    def intact(self) -> bool:
        """Whether its hash is that of what it says."""
        computed = hashlib.sha256(self.previous_hash + self.canonical).digest()
        return computed == self.hash


def verify(path: Path, checkpoints: Sequence[Checkpoint]) -> AuditVerdict:
    """
    Compare an export with checkpoints, whose signatures have been checked.

    Raises:
        AuditFileError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _Verification(file, checkpoints).verdict()
    except OSError as error:
        raise AuditFileError(f"{path}: {error.strerror}") from error


class _Verification:
    """One reading of a file, from its beginning to the first problem."""

    def __init__(
        self, file: Iterable[bytes], checkpoints: Sequence[Checkpoint]
    ) -> None:
        self._lines = iter(enumerate(file, start=1))
        self._checkpoints = sorted(checkpoints, key=lambda each: each.sequence)
        self._first = 0
        self._last: _Line | None = None
        self._proved = 0
        self._number = 0

    def verdict(self) -> AuditVerdict:
        """Read on to the end, or to the first problem."""
        problem = None
        for number, text in self._lines:
            self._number = number
            line = _read(number, text)
            problem = self._damaged(text) if line is None else self._next(line)
            if problem is not None:
                break
        else:
            problem = self._end()
        return AuditVerdict(
            first=self._first,
            last=self._last.sequence if self._last else 0,
            proved_up_to=self._proved,
            problem=problem,
        )

    @property
    def _expected(self) -> int:
        return self._last.sequence + 1 if self._last else 1

    def _next(self, line: _Line) -> AuditProblem | None:
        """Take one more event, unless something is wrong with it or the one before."""
        problem = (
            self._out_of_order(line)
            or self._not_linked(line)
            or self._not_as_signed(line)
        )
        if problem is None:
            self._first = self._first or line.sequence
            self._last = line
        return problem

    def _out_of_order(self, line: _Line) -> AuditProblem | None:
        expected = self._expected
        if line.sequence == expected or self._last is None:
            return None
        if line.sequence < expected:
            return self._problem(
                ProblemKind.REORDERED,
                line.sequence,
                f"event {line.sequence} stands after event {expected - 1}",
            )
        if any(self._is_event(text, expected) for _, text in self._lines):
            return self._problem(
                ProblemKind.REORDERED,
                line.sequence,
                f"event {line.sequence} stands before event {expected}",
            )
        missing = line.sequence - expected
        return self._problem(
            ProblemKind.MISSING,
            expected,
            (
                f"event {expected} is missing"
                if missing == 1
                else f"events {expected} to {line.sequence - 1} are missing"
            )
            + " (only an export without a filter can be verified)",
        )

    @staticmethod
    def _is_event(text: bytes, sequence: int) -> bool:
        line = _read(0, text)
        return line is not None and line.sequence == sequence

    def _not_linked(self, line: _Line) -> AuditProblem | None:
        """Find out whether this event is what it was, or the one before is not."""
        previous = self._last
        if previous is None:
            linked = line.sequence > 1 or line.previous_hash == GENESIS_HASH
        else:
            linked = line.previous_hash == previous.hash
        if linked and line.intact:
            return None
        if previous is not None and not linked and line.intact:
            # This one still knows what the one before was.
            return AuditProblem(
                kind=ProblemKind.EDITED,
                sequence=previous.sequence,
                line=previous.number,
                words=f"event {previous.sequence} was changed, and its hash with it",
            )
        return self._problem(
            ProblemKind.EDITED, line.sequence, f"event {line.sequence} was changed"
        )

    def _not_as_signed(self, line: _Line) -> AuditProblem | None:
        """Compare with what was signed at this event, or before the first one."""
        for checkpoint in self._checkpoints:
            if checkpoint.sequence == line.sequence:
                head = line.hash
            elif self._last is None and checkpoint.sequence == line.sequence - 1:
                head = line.previous_hash
            else:
                continue
            if head != checkpoint.head:
                since = self._proved + 1 if self._proved else self._first or 1
                return self._problem(
                    ProblemKind.NOT_SIGNED,
                    line.sequence,
                    f"this is not the log that was signed at event {checkpoint.sequence}: "
                    f"event {since} or a later one up to there was changed, and every "
                    "hash after it",
                )
            self._proved = max(self._proved, checkpoint.sequence)
        return None

    def _end(self) -> AuditProblem | None:
        """Find out whether the cluster has signed more than there is."""
        newest = self._checkpoints[-1].sequence if self._checkpoints else 0
        if newest < self._expected:
            return None
        return self._problem(
            ProblemKind.CUT,
            self._expected,
            f"events {self._expected} to {newest} are missing at the end: there were "
            f"{newest} when the newest checkpoint was signed",
        )

    def _damaged(self, text: bytes) -> AuditProblem:
        words = f"line {self._number} is not an event"
        if self._number == 1 and text.startswith(b"sequence,"):
            words += ": this is CSV, and only JSON Lines can be verified"
        return self._problem(ProblemKind.DAMAGED, self._expected, words)

    def _problem(self, kind: ProblemKind, sequence: int, words: str) -> AuditProblem:
        return AuditProblem(
            kind=kind, sequence=sequence, line=self._number, words=words
        )


def _read(number: int, text: bytes) -> _Line | None:
    """Read a line; None if it is not an event, written as the contract says."""
    if len(text) > LINE_BYTES_MAX:
        return None
    try:
        content = json.loads(text)
        if not _is_form(content):
            return None
        # Two spellings of one event, or a name given twice, are not for us to weigh.
        if canonical_form(content) != text.removesuffix(b"\n"):
            return None
        return _Line(
            number=number,
            sequence=content["sequence"],
            canonical=canonical_form(
                {name: content[name] for name in (*_NUMBERS, *_WORDS)}
            ),
            previous_hash=bytes.fromhex(content["previous_hash"]),
            hash=bytes.fromhex(content["hash"]),
        )
    except (ValueError, RecursionError):
        return None


def _is_form(content: Any) -> bool:  # noqa: ANN401  Whatever JSON holds.
    return (
        isinstance(content, dict)
        and set(content) == {*_NUMBERS, *_WORDS, *_HASHES}
        and all(type(content[name]) is int and content[name] >= 0 for name in _NUMBERS)
        and content["sequence"] > 0
        and all(isinstance(content[name], str) for name in (*_WORDS, *_HASHES))
    )
