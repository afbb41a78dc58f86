# SPDX-License-Identifier: Apache-2.0
"""Verification of a backup: open it, and compare its content with its manifest."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.domain.segments import Ranges
from sparecode_node.services.files import age_files, backup_files
from sparecode_node.services.files.backup_files import (
    BackupFileError,
    BackupManifest,
    SignedManifest,
)
from sparecode_node.statemachine.snapshots import SnapshotError, read_facts
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import read_only_uri


def open_backup(
    path: Path,
    target: Path,
    identities: Sequence[str],
    check_origin: Callable[[SignedManifest], None] = lambda _: None,
) -> SignedManifest:
    """
    Decrypt the state of a backup into the new file *target*, and verify all of it.

    *check_origin* raises an error if the signature is not of the cluster: that takes a
    key ring or a public key. It comes first, because anyone who knows a recipient can
    encrypt a database to it. Raises `BackupFileError` and `AgeError`; then there is no
    *target*.
    """
    try:
        with backup_files.open_state(path) as (signed, sealed):
            check_origin(signed)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as plain:
                age_files.decrypt(sealed, plain, identities)
                plain.flush()
                os.fsync(plain.fileno())
        _check(path, target, signed.manifest)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise BackupFileError(f"{target}: {error.strerror or error}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return signed


def missing_events(plain: Path) -> Ranges:
    """Return the sealed audit events that are not in a backup, without removed ones."""
    uri = read_only_uri(plain)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        missing = [
            (each.first_sequence, each.last_sequence)
            for each in segments.all_sealed(db)
            if each.number > archives.removed(db).through
            and db.execute(
                "SELECT 1 FROM audit_events WHERE sequence = ?", (each.first_sequence,)
            ).fetchone()
            is None
        ]
    joined: list[tuple[int, int]] = []
    for first, last in missing:
        if joined and joined[-1][1] == first - 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def _check(path: Path, plain: Path, manifest: BackupManifest) -> None:
    """Compare the state with the manifest. Raises `BackupFileError`."""
    size = plain.stat().st_size
    if size != manifest.state_bytes:
        raise BackupFileError(
            f"{path}: the state has {size} bytes, not {manifest.state_bytes}"
        )
    if backup_files.sha256_of(plain) != manifest.state_sha256:
        raise BackupFileError(
            f"{path}: the SHA-256 of the state does not match the manifest"
        )
    try:
        _check_tables(path, plain)
        facts = read_facts(plain)
    except (SnapshotError, sqlite3.DatabaseError) as error:
        raise BackupFileError(f"{path}: {error}") from error
    if (facts.index, facts.digest) != (manifest.index, manifest.digest):
        raise BackupFileError(
            f"{path}: the state is of entry {facts.index}, digest {facts.digest}; "
            f"the manifest says entry {manifest.index}, digest {manifest.digest}"
        )
    uri = read_only_uri(plain)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        _check_audit(path, db, manifest)


def _check_tables(path: Path, plain: Path) -> None:
    """Refuse a database with a view in place of a table: reading it might never end."""
    uri = read_only_uri(plain)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        ):
            raise BackupFileError(f"{path}: {name!r} is no table of a state")


def _check_audit(path: Path, db: sqlite3.Connection, manifest: BackupManifest) -> None:
    """
    Compute every hash of the audit log again (U1).

    A node that was alone may have lost whole segments. The hashes around such a gap are
    in the state.
    """
    sequence, head = 0, GENESIS_HASH
    sealed = {each.first_sequence: each for each in segments.all_sealed(db)}
    db.row_factory = sqlite3.Row
    for row in db.execute(
        "SELECT sequence, at_ms, actor, node, action, target, outcome, reason, detail, "
        "hash FROM audit_events ORDER BY sequence"
    ):
        fields = dict(row)
        hashed = fields.pop("hash")
        event = AuditEvent(**fields)
        while event.sequence > sequence + 1 and (gap := sealed.get(sequence + 1)):
            sequence, head = gap.last_sequence, gap.hash_after
        if 0 < event.sequence == sequence and hashed == head:
            continue  # The newest event, which stays, ends a missing segment.
        if event.sequence != sequence + 1 or chain_hash(head, event) != hashed:
            raise BackupFileError(
                f"{path}: the audit log is broken at event {sequence + 1}"
            )
        sequence, head = event.sequence, hashed
    if (sequence, head.hex()) != (manifest.audit_sequence, manifest.audit_head):
        raise BackupFileError(
            f"{path}: the audit log ends at event {sequence}, hash {head.hex()}; "
            f"the manifest says event {manifest.audit_sequence}, "
            f"hash {manifest.audit_head}"
        )
