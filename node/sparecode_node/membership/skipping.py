# SPDX-License-Identifier: Apache-2.0
"""
Skipping an entry that stops every node, from the files of a stopped node (E3).

Each operator signs on one member, and gives every node all statements. The node skips
the entry at its next start, if a majority of the voters have signed.
"""

import datetime as dt
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.membership import recovery
from sparecode_node.membership.files import PRIVATE, put, read
from sparecode_node.membership.own_tls import member_tls, members_authorities
from sparecode_node.membership.preparation import (
    JOURNAL,
    SKIPS,
    STATE,
    StartError,
    ring_file,
)
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.skip_statements import (
    SkipStatement,
    StatementError,
    from_text,
    sign,
    verify,
)
from sparecode_node.replication.log.skips import SkipFolder, SkipSettings, Stop
from sparecode_node.replication.offline.skipping import Trial, try_log
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.rpc.tls import TlsFileError
from sparecode_node.services.ambient import Clock
from sparecode_node.services.secrets.keyring import KeyRingError
from sparecode_node.statemachine.tables.formats import SchemaError

COPY = "skip-entry.new"
"""Folder of the copy of the state on which the log is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator wants to be skipped, and why."""

    index: int
    digest: str
    operator: str
    reason: str


def try_here(config: Config) -> Trial:
    """Return what stops this node at its next start. Raises `StartError`."""
    data, authorities = config.node.data_dir, members_authorities(config)
    try:
        return try_log(
            data / JOURNAL,
            data / STATE,
            data / COPY,
            Identity(_cluster_id(config), config.node.id),
            {member: str(address) for member, address in config.members.items()},
            SkipSettings(
                folder=folder_of(config),
                authorities=lambda: authorities,
            ),
        )
    except (SchemaError, StartRefusedError, sqlite3.Error) as error:
        raise StartError(str(error)) from error


def folder_of(config: Config) -> SkipFolder:
    """Return the folder of this node's statements."""
    return SkipFolder(config.node.data_dir / SKIPS)


def _cluster_id(config: Config) -> str:
    try:
        return ring_file(config).load().cluster_id
    except KeyRingError as error:
        raise StartError(str(error)) from error


async def ask_others(config: Config, trial: Trial, clock: Clock) -> list[MemberStatus]:
    """Ask every other voter how far it has applied the log. Raises `StartError`."""
    return await recovery.ask_others(config, trial.log, clock)


def objection(
    trial: Trial, wish: Wish, others: Sequence[MemberStatus], node_id: str
) -> str:
    """Return why this node must not sign that an entry is to be skipped; empty: it may."""
    if trial.log.applied_index >= wish.index:
        return (
            f"{node_id} has applied entry {wish.index}, and a caller may have been told "
            "so: it can never be skipped; the nodes that stop at it need the release of "
            "the nodes that do not"
        )
    if wish.index > trial.log.last_index:
        return (
            f"the log of {node_id} ends at entry {trial.log.last_index}: only a node that "
            "has the entry can sign"
        )
    stop = trial.stop
    if stop is None:
        return f"{node_id} can apply every entry of its log: start it"
    if stop.index != wish.index:
        return f"{node_id} stops at entry {stop.index}, not at entry {wish.index}"
    if stop.digest != wish.digest:
        return f"entry {stop.index} has the digest {stop.digest}, not {wish.digest}"
    if trial.objection:
        return f"entry {stop.index} cannot be skipped: {trial.objection}"
    decision = trial.decision
    if decision is not None and node_id not in decision.voters:
        return f"{node_id} is no voter at entry {stop.index}, so it does not decide"
    return _applied_elsewhere(stop, others)


def _applied_elsewhere(stop: Stop, others: Sequence[MemberStatus]) -> str:
    ahead = [each for each in others if each.reachable]
    names = [each.node_id for each in ahead if each.applied_index >= stop.index]
    if not names:
        return ""
    return (
        f"{', '.join(names)} has gone beyond entry {stop.index}. If it has skipped the "
        "entry, add its statements (--add). If not, it has applied the entry, and this "
        "node needs its release"
    )


def sign_here(
    config: Config, wish: Wish, stop: Stop, clock: Clock
) -> tuple[SkipStatement, Path]:
    """Sign that an entry is to be skipped; return the statement and its file."""
    now_ms = clock.now_ms()
    try:
        tls = member_tls(config, dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC))
        statement = sign(
            SkipStatement(
                cluster_id=_cluster_id(config),
                index=stop.index,
                term=stop.term,
                digest=stop.digest,
                member=config.node.id,
                operator=wish.operator,
                reason=wish.reason,
                at_ms=now_ms,
            ),
            certificate=tls.certificate,
            key=tls.key,
        )
        verify(statement, tls.ca)
    except (StatementError, TlsFileError, ValueError) as error:
        raise StartError(f"{config.peers.certificate}: {error}") from error
    path = folder_of(config).file_of(statement)
    put(path, statement.to_text().encode(), PRIVATE)
    return statement, path


def add(config: Config, files: Sequence[Path]) -> list[SkipStatement]:
    """Keep statements of other members; return them. Raises `StartError`."""
    cluster_id, authorities = _cluster_id(config), members_authorities(config)
    statements = []
    for file in files:
        try:
            statement = from_text(read(file).decode())
            verify(statement, authorities)
        except (StatementError, ValueError) as error:
            raise StartError(f"{file}: {error}") from error
        if statement.cluster_id != cluster_id:
            raise StartError(f"{file}: it is of cluster {statement.cluster_id}")
        _refuse_foreign(config, file, statement)
        statements.append(statement)
    folder = folder_of(config)
    for statement in statements:
        put(folder.file_of(statement), statement.to_text().encode(), PRIVATE)
    return statements


def _refuse_foreign(config: Config, file: Path, statement: SkipStatement) -> None:
    """Refuse a statement in this node's name that this node did not write."""
    own = folder_of(config).file_of(statement)
    if statement.member != config.node.id:
        return
    if not own.exists() or read(own) != statement.to_text().encode():
        raise StartError(
            f"{file}: it is signed in the name of {config.node.id}, but not here: "
            "another machine has this node's key, or the key of the members' authority "
            "(docs/runbooks/leaked-key.md)"
        )
