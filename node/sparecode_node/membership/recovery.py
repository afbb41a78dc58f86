# SPDX-License-Identifier: Apache-2.0
"""
A new cluster from a backup, or from one surviving node (E1, E2). The node is stopped.

Both write a state, a log that continues it with `BeginEpoch`, and the key ring with
the new cluster's id. Files are first written to a folder next to their final places,
then moved. An interrupted recovery can be run again.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.durable_files import sync_directory
from sparecode_node.membership.files import NewFile, put
from sparecode_node.membership.own_tls import member_tls
from sparecode_node.membership.preparation import (
    JOURNAL,
    NEW,
    STATE,
    WHOLE,
    StartError,
    make_data_dir,
    ring_file,
)
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.links.transport import dial
from sparecode_node.replication.log.format import SALT_BYTES, Identity
from sparecode_node.replication.members import Member
from sparecode_node.replication.offline.refounding import (
    SurvivingLog,
    apply_log,
    read_surviving_log,
    write_log,
)
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.rpc.tls import TlsFileError
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.cluster.bundles import Bundle
from sparecode_node.services.files import backup_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.files.backup_files import (
    BackupFileError,
    BackupManifest,
    SignedManifest,
)
from sparecode_node.services.files.backup_verification import open_backup
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError, write_private
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.epochs import BeginEpoch
from sparecode_node.statemachine.missing_segments import (
    MissingSegments,
    missing_segments,
)
from sparecode_node.statemachine.sealed_events import file_of
from sparecode_node.statemachine.snapshots import SnapshotError, write_snapshot
from sparecode_node.statemachine.tables.formats import SchemaError
from sparecode_node.statemachine.tables.schema import read_only_uri

log = logging.getLogger(__name__)

RING = "ring.json"
ASK_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCluster:
    """The result of a restore or a recovery."""

    cluster_id: str
    index: int
    """The last entry of the old cluster in the state."""
    kept_in: Path | None = None
    """Folder with this node's old files; None: it had none."""


# --- From a backup


def restore(
    config: Config,
    backup: Path,
    bundle: Bundle,
    *,
    identities: Sequence[str],
    files: Sequence[NewFile] = (),
    clock: Clock,
    entropy: Entropy,
) -> tuple[NewCluster, BackupManifest]:
    """
    Restore a backup into a new cluster on this node. Raises `StartError`.

    The backup must be signed by the cluster whose key ring is in the bundle. *files*
    are the certificates and keys that this node lacks: they are written once the
    backup and the bundle are verified.
    """
    data = config.node.data_dir
    for path in (
        *(data / name for name in (STATE, JOURNAL, NEW)),
        # Its events after the backup would be replaced, one by one, by new ones.
        file_of(data / STATE),
        config.keys_file,
    ):
        if path.exists():
            raise StartError(
                f"{path} exists: a restore needs an empty data folder and no key ring; "
                "move the existing files away first"
            )
    make_data_dir(config.node.data_dir)
    new = config.node.data_dir / NEW
    try:
        ring_file(config).prepare(entropy)
        new.mkdir(mode=0o700)
        manifest = open_backup(
            backup,
            new / STATE,
            identities,
            lambda signed: _check_origin(backup, signed, bundle.ring),
        ).manifest
        command = BeginEpoch(
            cluster_id=entropy.uuid(),
            cause="restore",
            state_index=manifest.index,
            state_at_ms=manifest.state_at_ms,
        )
        for each in files:
            put(each.path, each.content, each.mode)
        _write(config, bundle.ring, command, manifest.term, clock, entropy)
        move(config)
    except (
        AgeError,
        BackupFileError,
        KeyRingError,
        SchemaError,
        StartRefusedError,
        OSError,
        sqlite3.DatabaseError,
    ) as error:
        raise StartError(str(error)) from error
    finally:
        if not (new / WHOLE).exists():
            shutil.rmtree(new, ignore_errors=True)
    return NewCluster(
        cluster_id=command.cluster_id, index=command.state_index
    ), manifest


def _check_origin(backup: Path, signed: SignedManifest, ring: KeyRing) -> None:
    """Raise `StartError` unless the cluster with this key ring has made the backup."""
    manifest = signed.manifest
    if manifest.cluster_id != ring.cluster_id:
        raise StartError(
            f"the backup is of cluster {manifest.cluster_id}, but the bundle is of "
            f"{ring.cluster_id}: use the bundle of the backup's cluster"
        )
    if not backup_files.is_signed_by_ring(Sealing(ring), signed):
        raise StartError(
            f"{backup}: not signed with key {manifest.key_id} of the bundle's key "
            "ring: the backup is forged, or the bundle is older than that key; use a "
            "bundle that was exported after the key was replaced"
        )


# --- From a survivor


def surviving_log(config: Config) -> SurvivingLog:
    """Return how much of the log this node has. Raises `StartError`."""
    try:
        ring = ring_file(config).load()
        return read_surviving_log(
            config.node.data_dir / JOURNAL,
            config.node.data_dir / STATE,
            _identity(ring.cluster_id, config),
            _addresses(config),
        )
    except (KeyRingError, SchemaError, StartRefusedError, sqlite3.Error) as error:
        raise StartError(str(error)) from error


def missing(config: Config) -> MissingSegments:
    """Return which older audit events this node lacks. Raises `StartError`."""
    try:
        return missing_segments(config.node.data_dir / STATE, NodeId(config.node.id))
    except sqlite3.Error as error:
        raise StartError(str(error)) from error


async def ask_others(
    config: Config, own: SurvivingLog, clock: Clock
) -> list[MemberStatus]:
    """Ask every other voter how much of the log it has. Raises `StartError`."""
    try:
        tls = member_tls(
            config, dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
        )
    except TlsFileError as error:
        raise StartError(str(error)) from error

    async def ask(member: Member) -> MemberStatus:
        async with dial(member.node_id, member.address, tls) as channel:
            return await peer_messages.ask_status(
                channel, member.node_id, digest=False, timeout_s=ASK_S
            )

    return list(await asyncio.gather(*map(ask, own.other_voters)))


def objection(own: SurvivingLog, others: Sequence[MemberStatus]) -> str:
    """Return why this node must not become the cluster; empty if it may."""
    if not own.is_member:
        return f"{own.node_id} was removed from the cluster: recover on a member"
    reached = [each for each in others if each.reachable]
    for each in reached:
        if each.last_entry > own.last_entry:
            term, index = each.last_entry
            return (
                f"{each.node_id} has more of the log (entry {index} of term {term}) than "
                f"this node (entry {own.last_index} of term {own.last_term}): recover "
                "there"
            )
    if not others:
        return (
            "the quorum is not lost: this node is the whole cluster; start it instead"
        )
    if len(reached) + 1 > (len(others) + 1) // 2:
        names = ", ".join(each.node_id for each in reached)
        return (
            f"the quorum is not lost: {names} can be reached, which together with this "
            f"node makes {len(reached) + 1} of {len(others) + 1}; start this node instead"
        )
    if busy := ", ".join(each.node_id for each in others if each.busy):
        return (
            f"{busy} is not lost, but too busy to report how much of the log it has; "
            "stop the calls to its members' port, and try again"
        )
    return ""


def recover(config: Config, *, clock: Clock, entropy: Entropy) -> NewCluster:
    """
    Make this node a new cluster of one, with all data it has. Raises `StartError`.

    The caller has checked that the quorum is lost permanently (`objection`).
    """
    new = config.node.data_dir / NEW
    try:
        ring = ring_file(config).load()
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        write_snapshot(config.node.data_dir / STATE, new / STATE)
        log = apply_log(
            config.node.data_dir / JOURNAL,
            new / STATE,
            _identity(ring.cluster_id, config),
            _addresses(config),
        )
        with contextlib.closing(
            sqlite3.connect(read_only_uri(new / STATE), uri=True)
        ) as db:
            row = db.execute("SELECT value FROM meta WHERE name = 'now_ms'").fetchone()
        if row is None:
            raise StartError(
                f"{config.node.data_dir / STATE}: the cluster never began on this node, "
                "so there is nothing to recover"
            )
        command = BeginEpoch(
            cluster_id=entropy.uuid(),
            cause="recover",
            state_index=log.last_index,
            state_at_ms=row[0],
        )
        _write(config, ring, command, log.last_term, clock, entropy)
        kept = move(config)
    except (
        KeyRingError,
        SchemaError,
        SnapshotError,
        StartRefusedError,
        OSError,
        sqlite3.DatabaseError,
    ) as error:
        raise StartError(str(error)) from error
    return NewCluster(
        cluster_id=command.cluster_id, index=command.state_index, kept_in=kept
    )


def was_interrupted(config: Config) -> bool:
    """Return whether a complete new cluster waits to be moved to its place."""
    return (config.node.data_dir / NEW / WHOLE).exists()


# --- Shared by both


def _identity(cluster_id: str, config: Config) -> Identity:
    return Identity(cluster_id, config.node.id)


def _addresses(config: Config) -> dict[str, str]:
    return {member: str(address) for member, address in config.members.items()}


def _write(
    config: Config,
    ring: KeyRing,
    command: BeginEpoch,
    last_term: int,
    clock: Clock,
    entropy: Entropy,
) -> None:
    """Write the log and key ring of the new cluster, then mark it as complete."""
    new = config.node.data_dir / NEW
    write_log(
        new / JOURNAL,
        NodeId(config.node.id),
        begun=command,
        at_ms=clock.now_ms(),
        last_term=last_term,
        salt=entropy.token_bytes(SALT_BYTES),
        address=str(config.members[config.node.id]),
    )
    file = ring_file(config)
    file.beside(new / RING).save(ring.for_cluster(command.cluster_id))
    write_private(new / WHOLE, b"")


def _copy_sealed_events(data: Path, old: Path) -> None:
    """
    Copy the sealed audit events to the old files, if there is room; they stay in place.

    The new cluster goes on with the same history, so it replaces none of them. Without
    the copy, the old files can be used together with the file in place.
    """
    file = file_of(data / STATE)
    for name in (f"{file.name}-wal", file.name):
        if (data / name).exists() and not (old / name).exists():
            old.mkdir(mode=0o700, exist_ok=True)
            part = old / f"{name}.part"
            try:
                shutil.copy(data / name, part)
                with part.open("rb") as copy:
                    os.fsync(copy.fileno())
            except OSError as error:
                part.unlink(missing_ok=True)
                log.warning(
                    "sealed_events_not_copied",
                    extra={"file": str(data / name), "cause": str(error)},
                )
                return
            part.rename(old / name)


def move(config: Config) -> Path | None:
    """
    Move a complete new cluster to its place; return the folder of the old files.

    Can be repeated after a crash: files that were moved already are skipped.
    """
    data = config.node.data_dir
    new = data / NEW
    file = ring_file(config)
    ring = file.beside(new / RING).load()
    old = data / f"before.{ring.cluster_id[:8]}"
    parts = [STATE, JOURNAL]
    if (new / STATE).exists():
        # They belong to the old state: next to the new one, SQLite would apply them.
        parts = [f"{STATE}-wal", f"{STATE}-shm", f"{STATE}-pages", *parts]
        if (data / STATE).exists():
            _copy_sealed_events(data, old)
    for name in parts:
        part, place = new / name, data / name
        if place.exists() and (part.exists() or name.startswith(f"{STATE}-")):
            old.mkdir(mode=0o700, exist_ok=True)
            place.rename(old / name)
        if part.exists():
            part.rename(place)
    if old.exists() and not (old / RING).exists():
        file.beside(old / RING).save(file.load())
    file.save(ring)
    sync_directory(
        data
    )  # Deleting the folder, which marks an interruption, comes last.
    shutil.rmtree(new)
    sync_directory(data)
    return old if old.exists() else None
