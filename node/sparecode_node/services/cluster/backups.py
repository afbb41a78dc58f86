# SPDX-License-Identifier: Apache-2.0
"""Use case: an operator takes a backup that only its recipients can open."""

import asyncio
import contextlib
import logging
import re
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries import policy as policies
from sparecode_node.queries import segments
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import Refused
from sparecode_node.services.files import age_files, backup_files
from sparecode_node.services.files.backup_files import BackupManifest, SignedManifest
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import CreateBackup, NoteBackup
from sparecode_node.statemachine.handlers.cluster import NO_RECIPIENT
from sparecode_node.statemachine.handlers.epochs import FIRST_EPOCH
from sparecode_node.statemachine.segment_chain import RottenSegmentError
from sparecode_node.statemachine.snapshots import SnapshotFacts
from sparecode_node.statemachine.tables.schema import read_only_uri

log = logging.getLogger(__name__)

NOTE_S = 10.0
_PREFIX = "backup."
_FOLDER = re.compile(r"backup\.[a-z0-9_]{8}")
"""As `tempfile` names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupPiece:
    """Bytes of the backup file, in order."""

    content: bytes
    offset: int
    signed: SignedManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSource:
    """The source of backups."""

    write_whole: Callable[[Path], SnapshotFacts]
    """
    Writes the state with all audit events of this node into a new file, and returns its
    index and digest.
    """
    write_state_alone: Callable[[Path], SnapshotFacts]
    """The same without sealed audit events."""
    rotten: Callable[[int], object] = lambda _: None
    """
    Called with the number of a segment of the audit log that was found rotten, from any
    thread.
    """
    directory: Path
    """A folder of this node alone: unencrypted files stay in it."""
    version: str
    """The version of the software."""

    @classmethod
    def of(
        cls,
        state: Path,
        processes: StateProcesses,
        version: str,
        rotten: Callable[[int], object],
    ) -> Self:
        """Return a source for the state file *state*; working files are written beside it."""
        return cls(
            write_whole=lambda target: processes.write_whole(state, target),
            write_state_alone=lambda target: processes.write_state_alone(state, target),
            rotten=rotten,
            directory=state.parent,
            version=version,
        )

    def remove_leftovers(self) -> None:
        """Remove what killed processes left: copies of the state as large as it. At start."""
        for path in self.directory.iterdir():
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder and _FOLDER.fullmatch(path.name):
                shutil.rmtree(path)
                log.warning("backup_leftover_removed", extra={"folder": path.name})


class Backups:
    """Takes backups of the state."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        clock: Clock,
        entropy: Entropy,
        source: BackupSource,
    ) -> None:
        self._proposer = proposer
        self._replicator = replicator
        self._state = state
        self._sealing = sealing
        self._clock = clock
        self._entropy = entropy
        self._source = source
        self._one_at_a_time = asyncio.Lock()

    @idempotent
    async def create(
        self, context: CallContext, *, without_sealed_events: bool = False
    ) -> AsyncGenerator[BackupPiece, None]:
        """
        Return the pieces of a backup that covers everything committed before the call.

        *without_sealed_events*: without the audit events that have left the state. The
        backup is then as large as the estate, not as old as it.
        A command in the log permits and records it; another command records its end
        when the last piece was read. Raises `InvalidFieldError`,
        `NotSignedInError`, `NotPermittedError`, `Refused`, `ProposeError`, and
        `MissingSegmentError` if another member has audit events that this one lacks;
        the pieces raise `StoppingError`, and `MissingSegmentError` for rotten events.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        if len(self._replicator.members()) > 1 and not without_sealed_events:
            # Another member has what this one lacks. A restore must not lose it.
            async with self._state.transaction() as transaction:
                await segments.require_all(transaction)
        result = await self._proposer.propose(
            context, session, deadline, CreateBackup()
        )
        ordered = applied(result)
        reach(Point.BACKUP_PERMITTED)
        await self._replicator.wait_applied(ordered.index, timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
        recipients = tuple(policy.backup_recipients.split())
        if not recipients:
            # A retry of a command that was committed while there were recipients.
            raise Refused(NO_RECIPIENT)
        write = (
            self._source.write_state_alone
            if without_sealed_events
            else self._source.write_whole
        )
        return self._pieces(write, recipients, await self._term())

    async def _pieces(
        self,
        write: Callable[[Path], SnapshotFacts],
        recipients: tuple[str, ...],
        term: int,
    ) -> AsyncGenerator[BackupPiece, None]:
        async with self._one_at_a_time:
            with self._folder() as folder:
                signed = await asyncio.to_thread(
                    self._take, write, folder, recipients, term
                )
                pieces = backup_files.pieces(signed, folder / backup_files.STATE)
                offset = 0
                while (content := await asyncio.to_thread(next, pieces, b"")) != b"":
                    yield BackupPiece(content=content, offset=offset, signed=signed)
                    offset += len(content)
        reach(Point.BACKUP_SENT)
        await self._note(signed.manifest)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """Yield a private temporary folder, and delete it with its content."""
        with tempfile.TemporaryDirectory(
            prefix=_PREFIX, dir=self._source.directory
        ) as folder:
            yield Path(folder)

    def _take(
        self,
        write: Callable[[Path], SnapshotFacts],
        folder: Path,
        recipients: tuple[str, ...],
        term: int,
    ) -> SignedManifest:
        """Write a snapshot, encrypt it, and sign its manifest. Runs in a thread."""
        plain = folder / "state.db"
        try:
            facts = write(plain)
        except RottenSegmentError as error:
            self._source.rotten(error.number)
            raise MissingSegmentError(error.first, error.last) from error
        reach(Point.BACKUP_COPIED)
        manifest = describe(
            plain,
            facts,
            term=term,
            recipients=recipients,
            taken_at_ms=self._clock.now_ms(),
            node_id=self._replicator.node_id,
            version=self._source.version,
            key_id=self._sealing.active_key,
        )
        age_files.encrypt(plain, folder / backup_files.STATE, recipients)
        plain.unlink()
        return backup_files.sign(self._sealing, manifest)

    async def _term(self) -> int:
        """Return the term that this node is in."""
        own, *_ = await self._replicator.status(digest=False, timeout_s=NOTE_S)
        return own.term

    async def _note(self, manifest: BackupManifest) -> None:
        """Record the backup in the log: its index and digest."""
        call = UnstampedCall.of_node(
            self._replicator.node_id,
            NoteBackup(
                index=manifest.index,
                digest=manifest.digest,
                taken_at_ms=manifest.taken_at_ms,
            ),
            RequestId(self._entropy.uuid()),
        )
        await self._replicator.propose(Proposal(call=call), timeout_s=NOTE_S)


def describe(
    plain: Path,
    facts: SnapshotFacts,
    *,
    term: int,
    recipients: tuple[str, ...],
    taken_at_ms: int,
    node_id: NodeId,
    version: str,
    key_id: int,
) -> BackupManifest:
    """Return the manifest of the state in the file *plain*."""
    uri = read_only_uri(plain)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        sequence, head = db.execute(
            "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
    return BackupManifest(
        format=backup_files.FORMAT,
        cluster_id=str(meta["cluster_id"]),
        epoch=meta.get("epoch", FIRST_EPOCH),
        index=facts.index,
        term=term,
        digest=facts.digest,
        audit_sequence=sequence,
        audit_head=head.hex(),
        state_at_ms=meta["now_ms"],
        taken_at_ms=taken_at_ms,
        node_id=node_id,
        version=version,
        state_bytes=plain.stat().st_size,
        state_sha256=backup_files.sha256_of(plain),
        recipients=recipients,
        key_id=key_id,
    )
