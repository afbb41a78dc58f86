# SPDX-License-Identifier: Apache-2.0
"""
Which entry stops this node, found on a copy of its state while the node is stopped (E3).

The entries after the state are applied to the copy, as the next start would. So an
operator can skip only an entry that fails here, not one that would do what it says.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.codec import CodecError, decode_entry
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.log.format import Entry, Identity
from sparecode_node.replication.log.journal import Journal, open_journal
from sparecode_node.replication.log.skips import (
    Decision,
    Skips,
    SkipSettings,
    Stop,
    is_of_the_machine,
    may_be_skipped,
)
from sparecode_node.replication.log.storage import DirectoryStorage
from sparecode_node.replication.offline.refounding import SurvivingLog, members_of
from sparecode_node.replication.raft.follower import REGULAR
from sparecode_node.replication.snapshots.recovery_checks import check_state
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.feature_level import SKIPPED_ENTRIES
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.skipping import caller_of
from sparecode_node.statemachine.snapshots import SnapshotError, write_snapshot

COPY = "state.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What happens if the node starts."""

    log: SurvivingLog
    """How much of the log the node has, and the members."""
    stop: Stop | None = None
    """The first entry that fails; None: all of the log can be applied."""
    decision: Decision | None = None
    """
    About that entry, or about an earlier one: it has statements, but too few, and does
    not fail here any more.
    """
    callers: tuple[str, ...] = ()
    """Command, caller, request id and node of each call of that entry."""
    objection: str = ""
    """Why that entry can never be skipped; empty if it can."""


def try_log(
    directory: Path,
    state: Path,
    folder: Path,
    identity: Identity,
    members: Mapping[str, str],
    settings: SkipSettings,
) -> Trial:
    """
    Apply the log of a stopped node to a copy of its state in *folder*, which is deleted.

    Raises `StartRefusedError`, also if the copy cannot be made.
    """
    for path in (directory, state):
        if not path.exists():
            raise StartRefusedError(f"{path} is missing: this node has no log to try")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        with _opened(directory, identity, members) as journal:
            write_snapshot(state, folder / COPY)  # It only reads the state.
            with contextlib.closing(sqlite3.connect(folder / COPY)) as db:
                machine = StateMachine(db)
                applied = check_state(journal, machine)
                log = SurvivingLog(
                    cluster_id=identity.cluster_id,
                    node_id=NodeId(identity.node_id),
                    members=journal.configuration.members,
                    applied_index=applied,
                    last_index=journal.last_index,
                    last_term=journal.last_term,
                )
                return _try(journal, machine, log, settings)
    except (SnapshotError, OSError) as error:
        raise StartRefusedError(f"{folder}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(
    directory: Path, identity: Identity, members: Mapping[str, str]
) -> Iterator[Journal]:
    """Open the journal of a stopped node, and keep the node from starting meanwhile."""
    storage = DirectoryStorage(directory)
    try:
        configured = members_of(members)
        journal = open_journal(storage, identity, configured, must_exist=True, salt=b"")
        try:
            yield journal
        finally:
            journal.close()
    finally:
        storage.close()


def _try(
    journal: Journal, machine: StateMachine, log: SurvivingLog, settings: SkipSettings
) -> Trial:
    skips = Skips(settings, journal, machine)
    for index in range(log.applied_index + 1, log.last_index + 1):
        entry = journal.entry(index)
        decision = skips.decision(entry)
        calls = _calls_of(entry)
        try:
            if decision.is_made:
                machine.skip(decision.entry, calls)
                continue
            machine.apply(index, calls)
            stop = None
        except Exception as error:
            if is_of_the_machine(error):
                raise StartRefusedError(
                    f"entry {index} cannot be tried here: {error!r}; this is a failure of "
                    "the machine or of its release, not of the entry"
                ) from error
            stop = Stop.of(entry, calls, error)
        if stop is not None or decision.signed:
            return Trial(
                log=log,
                stop=stop,
                decision=decision,
                callers=tuple(map(_caller_of, calls)),
                objection=_objection(machine, calls),
            )
    return Trial(log=log)


def _calls_of(entry: Entry) -> tuple[Call, ...]:
    command, index, _ = entry
    try:
        return decode_entry(command[1:]) if command[:1] == REGULAR else ()
    except CodecError as error:
        raise StartRefusedError(
            f"entry {index} cannot be read here ({error}): install the release that the "
            "other members run"
        ) from error


def _objection(machine: StateMachine, calls: Sequence[Call]) -> str:
    if machine.feature_level < SKIPPED_ENTRIES:
        return (
            f"the cluster has feature level {machine.feature_level}, and entries can be "
            f"skipped from level {SKIPPED_ENTRIES} on: install the release in which the "
            "entry was made"
        )
    if not may_be_skipped(calls):
        return "the log after it would mean something else without it"
    return ""


def _caller_of(call: Call) -> str:
    return (
        f"{type(call.command).__name__} of {caller_of(call)}, request "
        f"{call.request.request_id}, called on {call.node_id}"
    )
