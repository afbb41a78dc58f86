# SPDX-License-Identifier: Apache-2.0
"""The state's SQLite file: opened by its only writer, and read at a moment."""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sparecode_node.domain.audit import GENESIS_HASH
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.keys import KeysInState
from sparecode_node.domain.membership import MemberKey
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.replicator import Stamper
from sparecode_node.services.ambient import Clock, monotonic_ms
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.checkpointer import Checkpointer
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.statemachine import free_pages, sealed_events
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.checkpoints import CheckpointError, Checkpoints
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.page_sums import LostWriteError, open_page_sums
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.snapshots import SnapshotFacts
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables.membership import ticket_certificates
from sparecode_node.statemachine.tables.schema import read_only_uri

log = logging.getLogger(__name__)


class StateFile:
    """The state's SQLite file. The engine's thread opens it."""

    def __init__(
        self,
        path: Path,
        *,
        sealing: Sealing,
        clock: Clock,
        processes: StateProcesses,
        on_applied: Callable[[float], object] | None = None,
        on_keys: Callable[[KeysInState], object] | None = None,
        on_member_keys: Callable[[Mapping[NodeId, MemberKey]], object] | None = None,
        on_long_start: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Keep the callbacks, which run in the engine's thread.

        *on_applied* gets the seconds that each entry took. *on_keys* gets the keys of
        the ring that the state uses, and *on_member_keys* those of the members (P5a): at
        the start and after each change, before an entry counts as applied. *on_long_start* is
        called before each part of a start that may take minutes. *processes* read the whole
        state.
        """
        self._path = path
        self._sealing = sealing
        self._clock = clock
        self._processes = processes
        self._on_applied = on_applied
        self._on_keys = on_keys
        self._on_member_keys = on_member_keys
        self._on_long_start = on_long_start
        self._state: StateMachine | None = None

    @property
    def initialized(self) -> bool:
        """Whether the cluster has its first administrator. Safe in any thread."""
        return self._state is not None and self._state.initialized

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[StateMachine, Stamper]]:
        """
        Open the state for its only writer.

        Raises `SchemaError`, and `StartRefusedError` if the disk has lost a part of it.
        """
        try:
            sums = open_page_sums(self._path)
        except (LostWriteError, OSError, sqlite3.Error) as error:
            raise StartRefusedError(f"{self._path}: {error}") from error
        try:
            sealed_events.create(self._path)
        except (OSError, sqlite3.Error) as error:
            sums.close()
            raise StartRefusedError(
                f"{sealed_events.file_of(self._path)}: {error}"
            ) from error
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(sums.close)
            db = sqlite3.connect(self._path)
            # Closed twice if all goes well: `Checkpoints` must be closed after it.
            cleanup.callback(db.close)
            state = _WatchedStateMachine(
                db,
                self._sealing.cluster_id,
                self._clock,
                self._on_applied,
                self._on_keys,
                self._on_member_keys,
            )
            try:
                checkpoints = Checkpoints(self._path, sums)
            except (OSError, sqlite3.Error) as error:
                raise StartRefusedError(f"{self._path}: {error}") from error
            cleanup.callback(checkpoints.close)
            cleanup.callback(db.close)
            try:
                self._shrink(checkpoints)
                state.checkpointer = Checkpointer(checkpoints)
            except CheckpointError as error:
                raise StartRefusedError(str(error)) from error
            cleanup.callback(state.checkpointer.end)
            seeds = cleanup.enter_context(contextlib.closing(SeedReader(self._path)))
            self._state = state
            stamper = PrimaryStamper(
                seeds=seeds,
                sealing=self._sealing,
                clock=self._clock,
                monotonic_ms=monotonic_ms,
            )
            state.on_monotonic = stamper.follow
            yield state, stamper
            reach(Point.STOP_ENGINE)
            state.rest()
            state.checkpointer.finish()  # Not after an error: that is the news then.

    def _shrink(self, checkpoints: Checkpoints) -> None:
        """Give the free pages of the database back. Raises `CheckpointError`."""
        began_s = self._clock.monotonic_s()
        try:
            shrunk = free_pages.shrink(self._path, checkpoints, self._on_long_start)
        except free_pages.ShrinkError as error:
            log.warning(
                "state_not_shrunk",
                extra={"file": str(self._path), "cause": str(error)},
            )
            return
        if shrunk is not None:
            log.info(
                "state_shrunk",
                extra={
                    "file": str(self._path),
                    "bytes_before": shrunk.bytes_before,
                    "bytes_after": shrunk.bytes_after,
                    "seconds": round(self._clock.monotonic_s() - began_s, 1),
                },
            )

    def stored(self, stored: Stored | None) -> None:
        """
        Let apply discard these sealed events: the files of all voters have them.

        Safe in any thread.
        """
        if self._state is not None:
            self._state.stored = stored

    def write(self, target: Path) -> SnapshotFacts:
        """Write a snapshot of the current state."""
        return self._processes.write(self._path, target)

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        """Read a whole snapshot. Raises `SnapshotError`."""
        return self._processes.check_snapshot(snapshot)

    def read_digest(self) -> tuple[int, str]:
        """Return the applied index and the state's digest at it. Safe in any thread."""
        facts = self._processes.look(self._path)
        return facts.index, facts.digest

    def read_head(self) -> tuple[int, str]:
        """Return the number of audit events and the hash of the last, in hex (U1)."""
        with self._reading() as db:
            row = db.execute(
                "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
        return (row[0], row[1].hex()) if row else (0, GENESIS_HASH.hex())

    def read_doors(self) -> tuple[bytes, ...]:
        """Return the certificates (DER) that joiners show, of all known tickets (P5)."""
        with self._reading() as db:
            return ticket_certificates(db)

    def _reading(self) -> "contextlib.closing[sqlite3.Connection]":
        """Open the file read-only."""
        uri = read_only_uri(self._path)
        return contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None))


class _WatchedStateMachine(StateMachine):
    """Reports the duration of entries and the keys in use. Neither affects a decision."""

    def __init__(
        self,
        db: sqlite3.Connection,
        cluster_id: str,
        clock: Clock,
        on_applied: Callable[[float], object] | None,
        on_keys: Callable[[KeysInState], object] | None,
        on_member_keys: Callable[[Mapping[NodeId, MemberKey]], object] | None,
    ) -> None:
        super().__init__(db)
        self._cluster_id = cluster_id
        self._is_of_this_cluster = False
        self._clock = clock
        self._on_applied = on_applied
        self._on_keys = on_keys
        self._on_member_keys = on_member_keys
        self._reported: KeysInState | None = None
        self._reported_members: Mapping[NodeId, MemberKey] | None = None
        self.checkpointer: Checkpointer | None = None
        self.on_monotonic: Callable[[int], object] | None = None
        """Gets the monotonic time that the state has reached, after each entry."""
        self._report()

    def apply(self, index: int, calls: Sequence[Call]) -> tuple[Result, ...]:
        """Apply one committed entry."""
        began_s = self._clock.monotonic_s()
        results = super().apply(index, calls)
        self._report()
        if self.checkpointer is not None:
            self.checkpointer.applied(len(calls))
        if self.on_monotonic is not None and self.monotonic_ms:
            self.on_monotonic(self.monotonic_ms)
        if self._on_applied is not None:
            self._on_applied(self._clock.monotonic_s() - began_s)
        return results

    def reload(self) -> None:
        """Go on in the state that a snapshot has replaced."""
        super().reload()
        self._is_of_this_cluster = False
        self._report()

    def checkpoint(self) -> int:
        """Return the durable index; request a checkpoint if it is not the applied one."""
        if self.checkpointer is None:
            return super().checkpoint()
        durable = self.checkpointer.durable_index
        if durable < self.applied_index:
            self.checkpointer.request()
        return durable

    def check(self) -> None:
        """Raise `Fatal` if a checkpoint has failed."""
        if self.checkpointer is not None:
            self.checkpointer.check()

    def _report(self) -> None:
        if self._on_keys is not None and self.keys != self._reported:
            self._reported = self.keys
            self._on_keys(self.keys)
        if self._on_member_keys is not None:
            members = self._members_of_this_cluster()
            if members != self._reported_members:
                self._reported_members = members
                self._on_member_keys(members)

    def _members_of_this_cluster(self) -> Mapping[NodeId, MemberKey]:
        """
        Return the members' keys (P5a), unless they are those of an earlier cluster.

        The first state of a restored cluster has them, up to the entry that begins the
        epoch. A node that joins gets this state first, and would refuse the entry from a
        member that has another key now.
        """
        if self.member_keys and not self._is_of_this_cluster:
            cluster_id = meta.read(self._db, "cluster_id", "")
            self._is_of_this_cluster = cluster_id == self._cluster_id
        return self.member_keys if self._is_of_this_cluster else {}
