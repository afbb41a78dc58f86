# SPDX-License-Identifier: Apache-2.0
"""
Whether this node applies an entry, skips it, or stops at it (E3).

An entry whose apply raises an exception stops every node, and stops it again at each
start. So operators on a majority of the members can decide to skip it: each signs a
statement on a stopped node (`skip_statements`), and all nodes get the statements. A node
skips the entry only if a majority of the voters at its index have signed. With fewer it
stops at the entry, even if it could apply it by now: another node may skip it.

An answer needs a node that has applied the entry, and no such node signs. So a change
that was acknowledged is lost only if that node was not asked, because no operator could
reach it.
"""

import json
import logging
import sqlite3
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.log.skip_statements import (
    SkipStatement,
    StatementError,
    digest_of,
    from_text,
    verify,
)
from sparecode_node.replication.members import key_in
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.feature_level import FeatureLevelError
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.skipping import NEVER_SKIPPED, SkippedEntry, kinds_of

log = logging.getLogger(__name__)

STATEMENTS = "*.statement"
STOPPED = "stopped.json"
"""Names the entry that has stopped this node; for the operator's tools."""
SHOWN_MAX = 16
"""Skipped entries that a node shows when a link begins: the newest ones."""
RUNBOOK = "docs/runbooks/poison-entry.md"

EARLIER_MS = 24 * 3600 * 1000
"""
A statement may be older than the state by this much: clocks differ.

It names the digest of the entry, so it cannot be older than the entry. But a thief of a
key whose certificate has expired could tell an earlier time.
"""

_OF_THE_MACHINE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
"""Primary codes of failures of disk, memory or files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The entry that has stopped this node, without anything secret."""

    index: int
    term: int
    digest: str
    commands: str
    """Its commands, such as `2 CreateUser`."""
    cause: str
    """Type and place of the exception; its message may be about a user."""

    @classmethod
    def of(cls, entry: Entry, calls: Sequence[Call], error: BaseException) -> "Stop":
        """Return the stop by an exception in applying an entry."""
        command, index, term = entry
        return cls(
            index=index,
            term=term,
            digest=digest_of(command),
            commands=kinds_of(calls),
            cause=cause_of(error),
        )

    @property
    def advice(self) -> str:
        """The command with which an operator signs that the entry is to be skipped."""
        return (
            f"sparecode-node --config FILE skip-entry --index {self.index} "
            f"--digest {self.digest} --reason TEXT"
        )

    def words(self) -> str:
        """Return one line: what stops the node, and what to do."""
        return (
            f"applying entry {self.index} failed: {self.cause}. It is an entry of term "
            f"{self.term} with {self.commands}, and SHA-256 {self.digest}. Every node "
            f"stops at it, at each start. See {RUNBOOK}. To let the nodes skip it, run "
            f"this on a majority of the members: {self.advice}"
        )


@dataclass(frozen=True, slots=True)
class SkipFolder:
    """The files of one node about skipped entries. The tool writes the statements."""

    path: Path

    def statements(self) -> tuple[SkipStatement, ...]:
        """Return all statements that can be read; nothing is verified."""
        statements = []
        for file in sorted(self.path.glob(STATEMENTS)):
            try:
                statements.append(from_text(file.read_text()))
            except (OSError, ValueError, StatementError) as error:
                log.error(  # noqa: TRY400 - the cause is enough.
                    "skip_statement_ignored",
                    extra={"file": str(file), "cause": str(error)},
                )
        return tuple(statements)

    def file_of(self, statement: SkipStatement) -> Path:
        """Return where a statement is kept: a member signs once for each entry."""
        name = f"{statement.index}-{statement.digest[:16]}-{statement.member}"
        return self.path / f"{name}.statement"

    def note_stop(self, stop: Stop) -> None:
        """Tell the tools which entry has stopped this node; without it they still work."""
        content = {name: getattr(stop, name) for name in Stop.__slots__}
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / STOPPED).write_text(json.dumps(content) + "\n")
        except OSError as error:
            log.warning("stop_not_noted", extra={"cause": str(error)})

    def stop(self) -> Stop | None:
        """Return the entry that has stopped this node last, if that is known."""
        try:
            return Stop(**json.loads((self.path / STOPPED).read_text()))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSettings:
    """Where this node's statements are, and who can have signed them."""

    folder: SkipFolder | None = None
    """None: this node skips nothing."""
    authorities: Callable[[], bytes] = bytes
    """Returns the certificates of the members' authorities that are trusted now, PEM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who can have signed, by the state and the configuration before an entry."""

    authorities: bytes
    voters: Collection[str]
    denies: Callable[[Certificate], bool]
    member_keys: Mapping[NodeId, MemberKey]
    state_ms: int

    def problem(self, statement: SkipStatement, entry: SkippedEntry) -> str:
        """Return why a statement does not count for an entry; empty if it does."""
        wanted = entry.cluster_id, entry.index, entry.term, entry.digest
        if statement.entry != wanted:
            return "it is about another entry"
        try:
            certificate = verify(statement, self.authorities)
        except StatementError as error:
            return str(error)
        if self.denies(certificate):
            return "its certificate is denied"
        recorded = self.member_keys.get(NodeId(statement.member))
        if recorded is not None and not recorded.accepts(
            key_in(statement.certificate.encode())
        ):
            return "its certificate has another key than the recorded one"
        if statement.member not in self.voters:
            return f"{statement.member} is no voter at this entry"
        if statement.at_ms < self.state_ms - EARLIER_MS:
            return "it was signed before the entry was made"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How far the decision to skip an entry is."""

    entry: SkippedEntry
    signed: frozenset[str]
    """The voters whose statements count."""
    voters: frozenset[str]

    @property
    def needed(self) -> int:
        """How many voters have to sign: a majority."""
        return len(self.voters) // 2 + 1

    @property
    def is_made(self) -> bool:
        """Whether the entry is skipped."""
        return len(self.signed) >= self.needed

    def words(self) -> str:
        """Return what is missing, in one line."""
        missing = ", ".join(sorted(self.voters - self.signed))
        return (
            f"{len(self.signed)} of {self.needed} statements to skip entry "
            f"{self.entry.index} are here ({', '.join(sorted(self.signed)) or 'none'}), "
            "and until the others are, this node stops at it. Sign on more of "
            f"{missing}, and give every node all statements: sparecode-node --config "
            f"FILE skip-entry --add STATEMENT (see {RUNBOOK})"
        )


class Skips:
    """The decisions of this node. Belongs to the engine's thread."""

    def __init__(
        self, settings: SkipSettings, journal: Journal, state: AppliedState
    ) -> None:
        """Read the statements: a node takes new ones at its next start."""
        self._settings = settings
        self._journal = journal
        self._state = state
        self._statements: dict[int, list[SkipStatement]] = {}
        self._skipped_elsewhere: dict[str, dict[int, str]] = {}
        """
        Index and digest of the newest entries that each node has shown as skipped: not
        to be applied here.
        """
        if settings.folder is not None:
            for statement in settings.folder.statements():
                if statement.cluster_id == journal.identity.cluster_id:
                    self._statements.setdefault(statement.index, []).append(statement)

    def apply(self, entry: Entry, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        """Apply a committed entry, or skip it. Raises `Fatal` if it can do neither."""
        _, index, _ = entry
        reach(Point.APPLY)
        if index in self._statements:
            decision = self.decision(entry)
            if decision.is_made:
                return self._skip(decision.entry, calls)
            if decision.signed:
                raise Fatal(decision.words())
        if self._skipped_elsewhere and may_be_skipped(calls):
            self._stop_if_skipped_elsewhere(entry)
        try:
            return self._state.apply(index, calls)
        except Exception as error:
            if is_of_the_machine(error) or not may_be_skipped(calls):
                raise
            stop = Stop.of(entry, calls, error)
            if self._settings.folder is not None:
                self._settings.folder.note_stop(stop)
            raise Fatal(stop.words()) from error

    def _skip(self, entry: SkippedEntry, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        if not may_be_skipped(calls):
            raise Fatal(f"entry {entry.index} can never be skipped: {kinds_of(calls)}")
        results = self._state.skip(entry, calls)
        log.warning("entry_skipped", extra={"index": entry.index})
        return results

    def _stop_if_skipped_elsewhere(self, entry: Entry) -> None:
        """
        Raise `Fatal` if another node has shown that it skips this entry.

        No proof is shown. But only a node that has the entry knows its digest: calls have
        random ids. The bytes of an entry without calls can be guessed, and no node skips
        such an entry.
        """
        command, index, _ = entry
        for member, shown in self._skipped_elsewhere.items():
            if index in shown and shown[index] == digest_of(command):
                raise Fatal(
                    f"{member} skips entry {index}, so this node must not apply it: give"
                    " it the statements of a majority: sparecode-node --config FILE "
                    f"skip-entry --add STATEMENT (see {RUNBOOK})"
                )

    # --- Other members

    def skipped(self) -> tuple[tuple[int, str], ...]:
        """Return index and digest of what this node has skipped, and of what it will."""
        cluster_id = self._journal.identity.cluster_id
        skipped = [
            (each.index, each.digest)
            for each in self._state.skipped
            if each.cluster_id == cluster_id
        ]
        for index in sorted(self._statements):
            if index > self._state.applied_index and self._journal.has(index):
                decision = self.decision(self._journal.entry(index))
                if decision.is_made:
                    skipped.append((index, decision.entry.digest))
        return tuple(skipped)

    def differ(
        self, peer: str, applied_index: int, skipped: Sequence[tuple[int, str]]
    ) -> bool:
        """
        Return whether a member has applied what this node skips, or the other way round.

        *applied_index* and *skipped* are what it shows when a link begins. Remember what
        it skips and this node has not reached yet: this node must stop there, even if it
        could apply the entry.
        """
        own = self.skipped()
        for index, digest in skipped:
            if (index, digest) in own:
                continue
            if index <= self._state.applied_index:
                return True
            self._note_elsewhere(peer, index, digest)
        # It may have skipped more than it shows.
        oldest = skipped[0][0] if len(skipped) >= SHOWN_MAX else 0
        return any(
            oldest < index <= applied_index and (index, digest) not in skipped
            for index, digest in own
        )

    def _note_elsewhere(self, peer: str, index: int, digest: str) -> None:
        """Remember what a node shows: of each node no more than one `Hello` has."""
        shown = self._skipped_elsewhere.setdefault(peer, {})
        shown[index] = digest
        if len(shown) > SHOWN_MAX:
            del shown[min(shown)]

    def decision(self, entry: Entry) -> Decision:
        """Return how far the decision to skip an entry is, by the state before it."""
        command, index, term = entry
        skipped = SkippedEntry(
            index=index,
            term=term,
            digest=digest_of(command),
            cluster_id=self._journal.identity.cluster_id,
        )
        signers = Signers(
            authorities=self._settings.authorities(),
            voters=self._journal.configuration_at(index).voters,
            denies=self._state.denies,
            member_keys=self._state.member_keys,
            state_ms=self._state.now_ms,
        )
        signed = set()
        for statement in self._statements.get(index, ()):
            if problem := signers.problem(statement, skipped):
                log.error(
                    "skip_statement_ignored",
                    extra={"member": statement.member, "cause": problem},
                )
            else:
                signed.add(statement.member)
        return Decision(
            entry=skipped, signed=frozenset(signed), voters=frozenset(signers.voters)
        )


def is_of_the_machine(error: BaseException) -> bool:
    """Return whether an exception comes from disk, memory or files, not from the entry."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return code is None or code & 0xFF in _OF_THE_MACHINE
    return isinstance(error, MemoryError | OSError | FeatureLevelError)


def may_be_skipped(calls: Sequence[Call]) -> bool:
    """Return whether the log after these calls means the same without them."""
    return bool(calls) and not any(
        isinstance(call.command, NEVER_SKIPPED) for call in calls
    )


def cause_of(error: BaseException) -> str:
    """Return type and place of a caught exception; its message may name users."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
