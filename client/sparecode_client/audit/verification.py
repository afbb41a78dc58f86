# SPDX-License-Identifier: Apache-2.0
"""
Verification of an exported audit log, without a node (U2).

This module follows only the API (`AuditEvent` and `Checkpoint` in
`sparecode/v1/audit.proto`) and shares no code with the nodes. So it is an independent
check of what they compute.

The hash of each event covers all earlier events. So an edited, missing or reordered
event shows in the file itself. A rewritten file can still have a consistent chain, and
so has a file without its end. Checkpoints reveal both, because only the cluster can
sign them. The log is proved up to the last checkpoint, and no further.

Events that an administrator declared lost are no problem if a signed checkpoint covers
the event that declares it, and that event records the hashes on both sides of the gap.
"""

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparecode_client.audit.checkpoints import AuditFileError, canonical_form
from sparecode_client.audit.lost_events import (
    ACTION,
    Declaration,
    LostEvents,
    cover,
    declaration,
)
from sparecode_client.audit.removed_events import ACTION as REMOVE
from sparecode_client.audit.removed_events import Removal, RemovedLog, removal
from sparecode_client.values.audit import Checkpoint

GENESIS_HASH = bytes(32)
LINE_BYTES_MAX = 4 * 1024 * 1024

_NUMBERS = ("at_ms", "sequence")
_WORDS = ("action", "actor", "detail", "node", "outcome", "reason", "target")
_HASHES = ("hash", "previous_hash")


class ProblemKind(enum.StrEnum):
    """Kinds of problems in an export."""

    DAMAGED = "damaged"
    """A line is not an event."""
    EDITED = "edited"
    """The content of an event was changed."""
    MISSING = "missing"
    """Events are missing in the middle."""
    REORDERED = "reordered"
    """Events are out of order, or an event is repeated."""
    CUT = "cut"
    """Events are missing at the end."""
    NOT_SIGNED = "not_signed"
    """The chain is not the one that a checkpoint signs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditProblem:
    """The first problem in an export."""

    kind: ProblemKind
    sequence: int
    """Number of the affected event."""
    line: int
    """Line of the file, from 1."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """Result of verifying a file."""

    first: int
    """Number of its first event; 0: it has no events."""
    last: int
    """The chain of events is consistent up to this event."""
    proved_up_to: int
    """A signature of the cluster covers the events up to here; 0: no event."""
    problem: AuditProblem | None
    lost: tuple[LostEvents, ...] = ()
    """What the file lacks because it was declared lost, by events that are proved."""
    removed: RemovedLog | None = None
    """What retention has removed before the first event, by an event that is proved."""
    hash_before: bytes = field(default=GENESIS_HASH, compare=False)
    """The hash of the event before the first one."""
    hash_after: bytes = field(default=GENESIS_HASH, compare=False)
    """The hash of the last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """Missing events that later events of the file declare lost."""

    first: int
    line: int
    proved: int
    """How far the log was proved before the gap."""
    declarations: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An event as read from the file."""

    number: int
    sequence: int
    canonical: bytes
    previous_hash: bytes
    hash: bytes
    declaration: Declaration | None
    removal: Removal | None

    @property
    def intact(self) -> bool:
        """Whether its hash matches its content."""
        computed = hashlib.sha256(self.previous_hash + self.canonical).digest()
        return computed == self.hash


def verify(path: Path, checkpoints: Sequence[Checkpoint]) -> AuditVerdict:
    """
    Verify an export against checkpoints. Check their signatures first.

    Raises:
        AuditFileError: The file cannot be read.
    """
    return verify_files([path], checkpoints)


def verify_files(
    paths: Sequence[Path], checkpoints: Sequence[Checkpoint]
) -> AuditVerdict:
    """
    Verify a log in several files, one after the other, as one.

    Raises:
        AuditFileError: A file cannot be read.
    """
    declarations, removals = _declarations(_lines_of(paths))
    return _Verification(
        _lines_of(paths), checkpoints, declarations, removals
    ).verdict()


def place_of(paths: Sequence[Path], line: int) -> tuple[Path, int]:
    """Return the file and its line of a line of several files together."""
    for path in paths[:-1]:
        lines = sum(1 for _ in _lines_of([path]))
        if line <= lines:
            return path, line
        line -= lines
    return paths[-1], line


def _lines_of(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            with path.open("rb") as file:
                # A longer line comes in parts, of which none is an event.
                while line := file.readline(LINE_BYTES_MAX + 1):
                    yield line
        except OSError as error:
            raise AuditFileError(f"{path}: {error.strerror}") from error


class _Verification:
    """One pass over a file, from its beginning to the first problem."""

    def __init__(
        self,
        file: Iterable[bytes],
        checkpoints: Sequence[Checkpoint],
        declarations: Sequence[Declaration],
        removals: Sequence[Removal],
    ) -> None:
        """Keep what events of the file declare, which is not verified yet."""
        self._lines = iter(enumerate(file, start=1))
        self._checkpoints = sorted(checkpoints, key=lambda each: each.sequence)
        self._first = 0
        self._hash_before_first = GENESIS_HASH
        self._last: _Line | None = None
        self._proved = 0
        self._number = 0
        self._declarations = declarations
        self._removals = removals
        self._accepted: set[Declaration] = set()
        """The declarations of events that were accepted."""
        self._removed: list[Removal] = []
        """The removals of events that were accepted."""
        self._gaps: list[_Gap] = []

    def verdict(self) -> AuditVerdict:
        """Read to the end or to the first problem, and return the verdict."""
        problem = None
        for number, text in self._lines:
            self._number = number
            line = _read(number, text)
            problem = self._damaged(text) if line is None else self._next(line)
            if problem is not None:
                break
        else:
            problem = self._end()
        unproved = self._withdraw_unproved()
        removed = self._removed_before_first()
        lost = self._before_first(removed) + tuple(
            each for gap in self._gaps for each in gap.declarations
        )
        return AuditVerdict(
            first=self._first,
            last=self._last.sequence if self._last else 0,
            proved_up_to=self._proved,
            problem=problem or unproved,
            lost=tuple(
                each.events for each in lost if each.events.declared_by <= self._proved
            ),
            removed=removed.log if removed else None,
            hash_before=self._hash_before_first,
            hash_after=self._last.hash if self._last else GENESIS_HASH,
        )

    def _withdraw_unproved(self) -> AuditProblem | None:
        """
        Prove nothing after a gap whose declaration is not proved; return the first one.

        The newest is judged first: without it, less is proved for the gaps before it.
        """
        problem = None
        for gap in reversed(self._gaps):
            if unproved := self._unproved(gap):
                problem, self._proved = unproved, gap.proved
        return problem

    def _removed_before_first(self) -> Removal | None:
        """Return the removal after which the file begins, perhaps after lost events."""
        for each in sorted(self._removed, key=lambda each: -each.log.last):
            if each.log.removed_by > self._proved or each.log.last >= self._first:
                continue
            ends_here = each.log.last == self._first - 1
            if ends_here and each.hash_after == self._hash_before_first:
                return each
            if not ends_here and self._before_first(each):
                return each
        return None

    def _before_first(self, removed: Removal | None) -> tuple[Declaration, ...]:
        """Return the lost events between what was *removed* and the first event."""
        return cover(
            (
                each
                for each in self._accepted
                if each.events.declared_by <= self._proved
            ),
            first=removed.log.last + 1 if removed else 1,
            last=self._first - 1,
            hash_before=removed.hash_after if removed else GENESIS_HASH,
            hash_after=self._hash_before_first,
        )

    def _unproved(self, gap: _Gap) -> AuditProblem | None:
        """Return the problem if no checkpoint covers what declares a gap lost."""
        for each in gap.declarations:
            events = each.events
            if each in self._accepted and events.declared_by <= self._proved:
                continue
            return AuditProblem(
                kind=ProblemKind.MISSING,
                sequence=gap.first,
                line=gap.line,
                words=f"events {events.first} to {events.last} are missing: event "
                f"{events.declared_by} declares them lost, but no checkpoint proves it",
            )
        return None

    @property
    def _expected(self) -> int:
        return self._last.sequence + 1 if self._last else 1

    def _next(self, line: _Line) -> AuditProblem | None:
        """Accept one more event; return a problem with it or with the previous event."""
        problem = (
            self._out_of_order(line)
            or self._not_linked(line)
            or self._not_as_signed(line)
        )
        if problem is None:
            if line.declaration is not None:
                self._accepted.add(line.declaration)
            if line.removal is not None:
                self._removed.append(line.removal)
            if self._last is None:
                self._first = line.sequence
                self._hash_before_first = line.previous_hash
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
                f"event {line.sequence} comes after event {expected - 1}",
            )
        if declared := cover(
            self._declarations,
            first=expected,
            last=line.sequence - 1,
            hash_before=self._last.hash,
            hash_after=line.previous_hash,
        ):
            self._gaps.append(
                _Gap(
                    first=expected,
                    line=line.number,
                    proved=self._proved,
                    declarations=declared,
                )
            )
            return None
        if any(self._is_event(text, expected) for _, text in self._lines):
            return self._problem(
                ProblemKind.REORDERED,
                line.sequence,
                f"event {line.sequence} comes before event {expected}",
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
            + self._cause_of_gap(line),
        )

    def _cause_of_gap(self, line: _Line) -> str:
        """Return why events may be missing before this line, as the file says itself."""
        for each in self._removals:
            log = each.log
            if log.last == line.sequence - 1 and each.hash_after == line.previous_hash:
                return (
                    f": retention removed events 1 to {log.last} on "
                    f"{log.time:%Y-%m-%d} (event {log.removed_by}), and they are in "
                    f"{log.copies} archives: {log.archives}. Verify with one of those"
                )
        return " (only an export without a filter can be verified)"

    @staticmethod
    def _is_event(text: bytes, sequence: int) -> bool:
        line = _read(0, text)
        return line is not None and line.sequence == sequence

    def _not_linked(self, line: _Line) -> AuditProblem | None:
        """Return the problem if this event or the previous one was edited."""
        previous = self._last
        if previous is None:
            linked = line.sequence > 1 or line.previous_hash == GENESIS_HASH
        elif self._after_gap(line):
            linked = True  # By the event that declares the gap.
        else:
            linked = line.previous_hash == previous.hash
        if linked and line.intact:
            return None
        if previous is not None and not linked and line.intact:
            # This event still has the original hash of the previous one.
            return AuditProblem(
                kind=ProblemKind.EDITED,
                sequence=previous.sequence,
                line=previous.number,
                words=f"event {previous.sequence} was changed, and its hash with it",
            )
        return self._problem(
            ProblemKind.EDITED, line.sequence, f"event {line.sequence} was changed"
        )

    def _after_gap(self, line: _Line) -> bool:
        """Return whether the events just before this one were declared lost."""
        return bool(self._gaps) and self._gaps[-1].line == line.number

    def _not_as_signed(self, line: _Line) -> AuditProblem | None:
        """Compare with the checkpoint at this event, or just before the first event."""
        for checkpoint in self._checkpoints:
            if checkpoint.sequence == line.sequence:
                head = line.hash
            elif checkpoint.sequence == line.sequence - 1 and (
                self._last is None or self._after_gap(line)
            ):
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
        """Return the problem if the newest checkpoint covers more events than the file has."""
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


def _declarations(
    file: Iterable[bytes],
) -> tuple[tuple[Declaration, ...], tuple[Removal, ...]]:
    """Return what events of a file declare lost or removed; unchecked."""
    names = ACTION.encode(), REMOVE.encode()
    lost: list[Declaration] = []
    removed: list[Removal] = []
    for text in file:
        if not any(name in text for name in names) or (line := _read(0, text)) is None:
            continue
        if line.declaration is not None:
            lost.append(line.declaration)
        if line.removal is not None:
            removed.append(line.removal)
    return tuple(lost), tuple(removed)


def _read(number: int, text: bytes) -> _Line | None:
    """Return the event in a line; None if it does not have the form of the API."""
    if len(text) > LINE_BYTES_MAX:
        return None
    try:
        content = json.loads(text)
        if not _is_form(content):
            return None
        # Refuse another spelling of the same event, and a name that occurs twice.
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
            declaration=declaration(
                content["sequence"],
                action=content["action"],
                outcome=content["outcome"],
                detail=content["detail"],
            ),
            removal=removal(
                content["sequence"],
                at_ms=content["at_ms"],
                action=content["action"],
                outcome=content["outcome"],
                detail=content["detail"],
            ),
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
