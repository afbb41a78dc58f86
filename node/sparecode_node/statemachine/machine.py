# SPDX-License-Identifier: Apache-2.0
"""
The state that every replica holds, and the only way to change it.

Rule 1: every decision is made below this module and is a function of the log only. It
uses no clock, no randomness, no configuration and no other thread. The command carries
everything else that a decision needs.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.keys import KeysInState
from sparecode_node.domain.membership import MemberKey
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.personal_notices import Wanted
from sparecode_node.domain.policy import TIME_MS_MAX, Policy
from sparecode_node.fault_points import Point, reach
from sparecode_node.statemachine import (
    checkpoints,
    commands,
    dispatch,
    etags,
    feature_level,
    slot_standing,
    snapshots,
)
from sparecode_node.statemachine.admission import check_session
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.audit import AuditLog, Stored
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.expiry import forget_ended
from sparecode_node.statemachine.handlers import (
    allowances,
    approvals,
    authentication,
    epochs,
    sessions,
)
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.recording import record
from sparecode_node.statemachine.requests import (
    MONOTONIC,
    REQUESTS_TIME,
    REUSED,
    SIGN_IN_REPEATED,
    Requests,
)
from sparecode_node.statemachine.results import (
    Authenticated,
    Decision,
    Result,
)
from sparecode_node.statemachine.skipping import (
    SkippedEntry,
    Skipping,
    skipped_entries,
)
from sparecode_node.statemachine.tables import (
    archives,
    formats,
    meta,
    request_counts,
    schema,
)
from sparecode_node.statemachine.tables import keys as key_tables
from sparecode_node.statemachine.tables import membership as membership_tables
from sparecode_node.statemachine.tables.agents import certificate_denied
from sparecode_node.statemachine.targets import person_of, target_of

CHANGES_BEGINNING = (
    commands.InitializeCluster,
    commands.UpdatePolicy,
    commands.ActivateDueKey,
    commands.ActivateKey,
    commands.ReplaceSeals,
    commands.RetireKey,
    commands.RaiseFeatureLevel,
    commands.BeginEpoch,
    commands.NoteMemberKey,
    commands.AdmitNode,
    commands.RemoveSegments,
)
"""
Commands after which the policy, the keys of the ring and of the members, the feature
level, and the end of the removed segments are read again.
"""

UNRECORDED = (
    commands.PassBarrier,
    commands.TouchSessions,
    commands.StartBrowserLogin,
    commands.AcknowledgeNotices,
    commands.NoteSegments,
)
"""Commands that are neither remembered nor audited, and need no session."""

LOG_BYTES_KEPT = 16 * 1024 * 1024
"""Of SQLite's write-ahead log: a longer file is cut when the log starts over."""


class StateMachine:
    """
    The replicated state in SQLite. One thread applies entries to it.

    The database is in WAL mode with `synchronous=NORMAL`. A power cut may take it back
    to an earlier index; the rest is then applied again from the journal. Only
    `checkpoint` runs checkpoints: SQLite's automatic ones discard their errors.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        """
        Take over a database.

        Raises `SchemaError` if its format is unknown, and `sqlite3.Error`.
        """
        self._db = db
        self._file: str = db.execute("PRAGMA database_list").fetchone()[2]
        db.isolation_level = None  # Transactions are begun and ended here, by name.
        db.execute(checkpoints.OFF)
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
        checkpoints.write_ahead(db)
        db.execute("PRAGMA synchronous = NORMAL")
        formats.prepare(db)
        db.execute("PRAGMA foreign_keys = ON")
        self.stored: Stored | None = None
        """
        The sealed events of the state that this node's file has.

        Another thread sets it. It decides nothing: sealed events are no state.
        """
        self._load()

    def _load(self) -> None:
        """Read the values that are kept in memory for speed."""
        self._applied_index: int = meta.read(self._db, "applied_index", 0)
        self._requests = Requests(self._db, self._applied_index)
        self._audit = AuditLog(self._db)
        self._now_ms: int = meta.read(self._db, "now_ms", 0)
        self._monotonic_ms: int = meta.read(self._db, MONOTONIC, 0)
        self._requests_ms: int = meta.read(self._db, REQUESTS_TIME, self._now_ms)
        self._skipped = skipped_entries(self._db)
        self._load_beginning()

    @property
    def monotonic_ms(self) -> int:
        """The monotonic time of the last call (Q3), 0 below feature level 2."""
        return self._monotonic_ms

    @property
    def applied_index(self) -> int:
        """The index of the last applied entry."""
        return self._applied_index

    @property
    def now_ms(self) -> int:
        """The newest time of any applied call. It never goes back (T5)."""
        return self._now_ms

    @property
    def member_keys(self) -> Mapping[NodeId, MemberKey]:
        """The public keys that members may show (P5a); replaced, never changed."""
        return self._member_keys

    @property
    def keys(self) -> KeysInState:
        """The keys that the state uses."""
        return self._keys

    @property
    def skipped(self) -> tuple[SkippedEntry, ...]:
        """The entries that were skipped, oldest first (E3)."""
        return self._skipped

    @property
    def feature_level(self) -> int:
        """The level that all members know: what newer ones add is not done yet."""
        return self._feature_level

    @property
    def initialized(self) -> bool:
        """Whether the cluster has its first administrator."""
        return self._initialized

    def checkpoint(self) -> int:
        """Checkpoint the database; return the index that survives a power cut, or 0."""
        frames, copied = checkpoints.checkpoint(self._db)
        return self._applied_index if frames == copied else 0

    def check(self) -> None:
        """Raise an error if the database can no longer be relied on."""

    def install(self, snapshot: str) -> None:
        """
        Replace what is stored by the file *snapshot*, durably, completely or not at all.

        In any thread, if the database is a file. Nothing is applied meanwhile, and
        `reload` follows.
        """
        if self._file:
            snapshots.replace_state(Path(self._file), Path(snapshot))
        else:
            snapshots.install_snapshot(self._db, Path(snapshot))

    def reload(self) -> None:
        """Go on in the state that `install` has stored."""
        self._load()

    def rest(self) -> None:
        """
        Give the database the format of the cluster's feature level, when a node stops.

        So until the level is raised, the node can go back to the older release.
        """
        self._db.execute("PRAGMA foreign_keys = OFF")
        # Not as it was loaded: a snapshot may have been installed a moment ago.
        level = feature_level.read(self._db)
        if level < schema.VERSION:
            request_counts.drop(self._db)
        formats.convert(self._db, level)

    def digest(self) -> str:
        """Return the hash of the state; replicas at the same index have the same."""
        return digest(self._db)

    def apply(self, index: int, calls: Sequence[commands.Call]) -> tuple[Result, ...]:
        """
        Apply one committed entry: one transaction, one savepoint for each call.

        Every command gives a result: `Rejected` if the rules forbid it. An exception
        means that this replica is broken, and stops it.
        """
        self._requests.begin_entry()

        def decide_all() -> tuple[Result, ...]:
            results = tuple(self._apply(index, call) for call in calls)
            if calls:
                meta.write(self._db, "now_ms", self._now_ms)
                self._write_ages()
            return results

        return self._commit(index, decide_all)

    def skip(
        self, entry: SkippedEntry, calls: Sequence[commands.Call]
    ) -> tuple[Result, ...]:
        """Apply a committed entry as refused, because the operators have decided so (E3)."""
        if self._feature_level < feature_level.SKIPPED_ENTRIES:
            raise ValueError("the cluster's feature level knows no skipped entries")
        skipping = Skipping(
            db=self._db,
            requests=self._requests,
            audit=self._audit,
            policy=self._policy,
            now_ms=self._now_ms,
            requests_ms=self._requests_ms,
        )
        results = self._commit(entry.index, lambda: skipping.skip(entry, calls))
        self._skipped = skipped_entries(self._db)
        return results

    def denies(self, certificate: Certificate) -> bool:
        """Return whether a certificate is on the deny list."""
        return certificate_denied(self._db, certificate)

    def _commit(
        self, index: int, work: Callable[[], tuple[Result, ...]]
    ) -> tuple[Result, ...]:
        """Do the work of an entry in one transaction, which also counts it as applied."""
        if index <= self._applied_index:
            raise ValueError(f"index {index} is applied already")
        self._audit.begin_entry(index)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = work()
            self._audit.discard(self.stored)
            self._requests.end_entry(index)
            meta.write(self._db, "applied_index", index)
            reach(Point.APPLY_COMMIT)
            self._db.execute("COMMIT")
        except BaseException:
            # After some disk failures SQLite has already rolled back.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._load()  # Values in memory must not be ahead of the database.
            raise
        reach(Point.APPLIED)
        self._applied_index = index
        return results

    def _apply(self, index: int, call: commands.Call) -> Result:
        reach(Point.APPLY_CALL)
        self._advance(call)
        person = person_of(self._db, call.command)
        applying = Applying(
            db=self._db,
            call=call,
            index=index,
            now_ms=self._now_ms,
            policy=self._policy,
            keys=self._keys,
            feature_level=self._feature_level,
            target=target_of(self._db, call.command, person),
            person=person,
        )
        if isinstance(call.command, UNRECORDED):
            return self._decide(applying)
        remembered = self._requests.find(call.request)
        if remembered is not None:
            return self._repeat(applying, remembered)
        self._db.execute("SAVEPOINT call")
        result = self._refuse_early(applying) or self._hold_or_decide(applying)
        if isinstance(result, Rejected) and not applying.keep_writes:
            self._db.execute("ROLLBACK TO call")
            applying.events.clear()
            applying.told.clear()
        self._db.execute("RELEASE call")
        self._requests.remember(applying, result)
        record(self._audit, applying, result)
        return result

    def _repeat(self, applying: Applying, remembered: Result) -> Result:
        """Return the answer of the first try, unless it may not be repeated (Q2)."""
        command, first = applying.call.command, remembered
        if self._feature_level >= feature_level.STALE_REPEATS and (
            authentication.is_under_replaced_tag(applying)
        ):
            return Rejected(Reason.STALE_PARAMETERS)
        if (
            isinstance(remembered, Authenticated)
            and remembered.decision is Decision.ACCEPTED
            and isinstance(
                command, commands.Authenticate | commands.ContinueAuthentication
            )
            and authentication.no_longer_stands(applying, command)
        ):
            refused = replace(remembered, decision=Decision.REFUSED)
            record(self._audit, applying, refused)
            return refused
        if (
            isinstance(command, commands.OpenSession | commands.CollectBrowserLogin)
            and self._feature_level >= feature_level.REPEATED_SIGN_INS
            and sessions.is_repeated(applying, command, remembered)
        ):
            remembered = SIGN_IN_REPEATED
        if (
            isinstance(command, commands.Reauthenticate)
            and self._feature_level >= feature_level.REPEATED_SIGN_INS
        ):
            remembered = check_session(applying) or sessions.repeated_confirmation(
                applying, remembered, is_other=remembered == REUSED
            )
        if remembered in (REUSED, SIGN_IN_REPEATED) or remembered != first:
            record(self._audit, applying, remembered)
        return remembered

    def _refuse_early(self, applying: Applying) -> Rejected | None:
        """Refuse a call before the rules of its command are checked, or return None."""
        command = applying.call.command
        if isinstance(command, commands.InitializeCluster):
            if self._initialized:
                return Rejected(
                    Reason.ALREADY_INITIALIZED, "this cluster is already initialized"
                )
            return None
        if not self._initialized:
            return Rejected(
                Reason.NOT_INITIALIZED,
                "this cluster is not initialized yet: run `sparecode-node init` on one "
                "node",
            )
        if isinstance(command, commands.BeginEpoch):
            return None  # It empties the table of request ids, which may be full.
        if isinstance(
            command, commands.Authenticate | commands.ContinueAuthentication
        ) and (not epochs.is_open(self._db)):
            return epochs.NOT_OPEN
        return self._requests.shed(applying) or check_session(applying)

    def _hold_or_decide(self, applying: Applying) -> Result:
        """Decide a command; undo its writes if it needs an approval first (P3)."""
        held = approvals.hold(applying)
        use = allowances.use_of(applying)
        result = self._decide(applying)
        if isinstance(result, Rejected):
            return result
        if held is None:
            allowances.count(applying, use)
            return result
        if held.permit is None:
            self._db.execute("ROLLBACK TO call")
            applying.events.clear()
            applying.told.clear()
            self._load_beginning()
        return approvals.pass_or_keep(applying, held) or result

    def _decide(self, applying: Applying) -> Result:
        refused = slot_standing.refusal(applying) or etags.refusal(applying)
        result = refused or dispatch.decide(applying, self._decide)
        command = applying.call.command
        if isinstance(command, CHANGES_BEGINNING):
            self._load_beginning()  # The next command uses the new values.
        if isinstance(command, commands.BeginEpoch | commands.OpenCluster):
            self._requests.count()  # A new epoch begins without request ids.
        return result

    def _advance(self, call: commands.Call) -> None:
        """Move the log's time forward, and forget what has ended (Q3, T5)."""
        # Before the request id is looked up: only time decides if it is remembered.
        now_ms = min(max(call.at_ms, self._now_ms), TIME_MS_MAX)
        passed_ms, self._now_ms = now_ms - self._now_ms, now_ms
        self._age_requests(call, passed_ms)
        self._requests.purge(self._requests_ms, self._policy)
        if passed_ms:
            forget_ended(
                self._db,
                self._audit,
                call.node_id,
                now_ms,
                self._policy,
                self._feature_level,
            )

    def _age_requests(self, call: commands.Call, passed_ms: int) -> None:
        """
        Move the time by which request ids age: no faster than either clock (Q3).

        The stamped time may jump: *passed_ms* may be an hour within a second. The
        monotonic time of primaries does not, and stands while there is none.
        """
        if self._feature_level < feature_level.STEADY_REQUESTS:
            self._requests_ms = self._now_ms
            return
        if call.monotonic_ms:
            before_ms = self._monotonic_ms or call.monotonic_ms
            self._monotonic_ms = max(before_ms, call.monotonic_ms)
            passed_ms = self._monotonic_ms - before_ms
        self._requests_ms = min(self._requests_ms + passed_ms, self._now_ms)

    def _write_ages(self) -> None:
        if self._feature_level >= feature_level.STEADY_REQUESTS:
            meta.write(self._db, MONOTONIC, self._monotonic_ms)
            meta.write(self._db, REQUESTS_TIME, self._requests_ms)

    def _load_beginning(self) -> None:
        """Read the policy, the keys of ring and members, and the feature level."""
        policy = find_policy(self._db)
        self._initialized = policy is not None
        self._policy = policy or Policy()
        self._keys = key_tables.keys_of(self._db)
        self._member_keys = membership_tables.member_keys(self._db)
        self._feature_level = feature_level.read(self._db)
        self._audit.wanted = Wanted(
            silent=frozenset(self._policy.silent_notices.split()),
            to_managers=frozenset(self._policy.manager_notices.split()),
        )
        self._audit.bounds = self._feature_level >= feature_level.BRIEF_EVENTS
        self._audit.seals = self._feature_level >= feature_level.AUDIT_SEGMENTS
        self._audit.removed = archives.removed(self._db).last_sequence
