# SPDX-License-Identifier: Apache-2.0
"""
A new cluster from the state of an old one: of a backup, or of a survivor (E).

Its log begins after that state, and its first entry is `BeginEpoch`: no call is judged
before it. Its only member is this node; others join it. It has another id, so its
journal, links and snapshots refuse nodes of the old cluster.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.ids import NodeId, RequestId, SessionId
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.codec import decode_entry, encode_entry
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import Journal, open_journal
from sparecode_node.replication.log.skips import RUNBOOK, cause_of
from sparecode_node.replication.log.storage import DirectoryStorage, Storage
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.raft.follower import REGULAR
from sparecode_node.replication.snapshots.installation import finish_install
from sparecode_node.replication.snapshots.recovery_checks import (
    check_state,
    open_snapshots,
)
from sparecode_node.statemachine.commands import Call, RequestKey
from sparecode_node.statemachine.commands.epochs import BeginEpoch
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables.schema import read_only_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivingLog:
    """How much of the old cluster's log a node has."""

    cluster_id: str
    node_id: NodeId
    members: tuple[Member, ...]
    """All members, by the newest configuration in its log."""
    applied_index: int
    """The last entry in its state."""
    last_index: int
    """
    The last entry in its log. Of the entries after `applied_index`, it does not know
    which were committed.
    """
    last_term: int

    @property
    def other_voters(self) -> tuple[Member, ...]:
        """The other members that count for a quorum."""
        return tuple(
            member
            for member in self.members
            if member.role is MemberRole.VOTER and member.node_id != self.node_id
        )

    @property
    def is_member(self) -> bool:
        """Whether it has not been removed, as far as it knows."""
        return any(member.node_id == self.node_id for member in self.members)

    @property
    def last_entry(self) -> tuple[int, int]:
        """Term and index of the last entry: the greater pair has more of the log."""
        return self.last_term, self.last_index


def read_surviving_log(
    directory: Path, state: Path, identity: Identity, members: Mapping[str, str]
) -> SurvivingLog:
    """
    Return how much of the log a stopped node has. Raises `StartRefusedError`.

    It only reads the state: the next start compares each page with its checksum, and
    would take pages that another program has written for lost writes.
    """
    with _journal(directory, state, identity, members) as (journal, storage):
        with contextlib.closing(sqlite3.connect(read_only_uri(state), uri=True)) as db:
            applied = meta.read(db, "applied_index", 0)
        finish_install(open_snapshots(storage), journal, applied)
        return SurvivingLog(
            cluster_id=identity.cluster_id,
            node_id=NodeId(identity.node_id),
            members=journal.configuration.members,
            applied_index=applied,
            last_index=journal.last_index,
            last_term=journal.last_term,
        )


def apply_log(
    directory: Path, state: Path, identity: Identity, members: Mapping[str, str]
) -> SurvivingLog:
    """
    Apply a node's whole log to a copy of its state, including entries not committed.

    No node is left that knows whether they were committed; but if they were, callers
    may have been told so. Raises `StartRefusedError`.
    """
    with _stopped(directory, state, identity, members) as (journal, machine):
        apply_entries(journal, machine)
    return read_surviving_log(directory, state, identity, members)


def apply_entries(journal: Journal, machine: AppliedState) -> None:
    """Apply each entry that the state lacks. Raises `StartRefusedError`."""
    first = check_state(journal, machine) + 1
    for index in range(first, journal.last_index + 1):
        command, _, _ = journal.entry(index)
        calls = decode_entry(command[1:]) if command[:1] == REGULAR else ()
        try:
            machine.apply(index, calls)
        except Exception as error:
            raise StartRefusedError(
                f"entry {index} cannot be applied: {cause_of(error)} (see {RUNBOOK})"
            ) from error


def write_log(
    directory: Path,
    node_id: NodeId,
    *,
    begun: BeginEpoch,
    at_ms: int,
    last_term: int,
    salt: bytes,
    address: str,
) -> None:
    """
    Write the log of the new cluster: it begins after the state, with `BeginEpoch`.

    *at_ms*: the time of the beginning, up to which tokencodes count as spent (E1).
    *last_term*: of the state's last entry; the new cluster begins in the next term.
    *address*: where later members reach this node. Raises `StartRefusedError`.
    """
    storage = DirectoryStorage(directory)
    try:
        begin_log(
            storage,
            Member(node_id=node_id, address=address),
            begun=begun,
            at_ms=at_ms,
            last_term=last_term,
            salt=salt,
        )
    finally:
        storage.close()


def begin_log(
    storage: Storage,
    member: Member,
    *,
    begun: BeginEpoch,
    at_ms: int,
    last_term: int,
    salt: bytes,
) -> None:
    """Write such a log to a storage. *member*: this node, the only member."""
    term = last_term + 1
    journal = open_journal(
        storage,
        Identity(begun.cluster_id, member.node_id),
        Configuration.of([member]),
        must_exist=False,
        salt=salt,
    )
    journal.setCurrentTerm(term, None)
    journal.rebase(begun.state_index, term, journal.configuration)
    reach(Point.RECOVERY_LOG)
    call = Call(
        command=begun,
        request=RequestKey(
            caller=f"node:{member.node_id}",
            method="BeginEpoch",
            request_id=RequestId(begun.cluster_id),
            tag=0,
        ),
        node_id=member.node_id,
        session_id=SessionId(""),
        at_ms=at_ms,
    )
    journal.add(REGULAR + encode_entry([call]), begun.state_index + 1, term)
    journal.sync()
    journal.close()


def members_of(addresses: Mapping[str, str]) -> Configuration:
    """Return the members that `node.toml` names."""
    return Configuration.of(
        Member(node_id=NodeId(member), address=address)
        for member, address in addresses.items()
    )


@contextlib.contextmanager
def _stopped(
    directory: Path, state: Path, identity: Identity, members: Mapping[str, str]
) -> Iterator[tuple[Journal, StateMachine]]:
    """Open the log of a stopped node, and a copy of its state, as a start does."""
    with (
        _journal(directory, state, identity, members) as (journal, storage),
        contextlib.closing(sqlite3.connect(state)) as db,
    ):
        machine = StateMachine(db)
        finish_install(open_snapshots(storage), journal, machine.applied_index)
        yield journal, machine
        machine.rest()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def _journal(
    directory: Path, state: Path, identity: Identity, members: Mapping[str, str]
) -> Iterator[tuple[Journal, DirectoryStorage]]:
    """Open the log of a stopped node that has a state, too."""
    for path in (directory, state):
        if not path.exists():
            raise StartRefusedError(f"{path} is missing: there is nothing to recover")
    storage = DirectoryStorage(directory)
    try:
        configured = members_of(members)
        journal = open_journal(storage, identity, configured, must_exist=True, salt=b"")
        try:
            yield journal, storage
        finally:
            journal.close()
    finally:
        storage.close()
