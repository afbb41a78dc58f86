# SPDX-License-Identifier: Apache-2.0
"""Checks at start: journal, state and snapshots must fit together."""

from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.log.storage import Storage
from sparecode_node.replication.snapshots.store import (
    MANIFEST,
    Measured,
    SnapshotStore,
)


def check_state(journal: Journal, state: AppliedState) -> int:
    """Return the applied index, if state and journal fit together."""
    applied = state.applied_index
    if applied < journal.first_index and journal.first_index > 1:
        raise StartRefusedError(
            f"the state store has applied entry {applied}, but the journal begins"
            f" after entry {journal.first_index}: the state store is an old copy."
            " Remove this node from the cluster, and add it under a new id."
        )
    if not 0 <= applied <= journal.last_index:
        raise StartRefusedError(
            f"the state store has applied entry {applied}, but the journal ends at"
            f" entry {journal.last_index}: acknowledged entries are missing. Remove"
            " this node from the cluster, and add it under a new id."
        )
    if applied == 0:
        state.apply(1, ())  # The entry that every log begins with.
        applied = 1
    return applied


def open_snapshots(storage: Storage, measured: Measured | None = None) -> SnapshotStore:
    """Return the snapshots in a directory. Raises `StartRefusedError`."""
    try:
        return SnapshotStore(storage, measured)
    except OSError as error:
        raise StartRefusedError(f"{storage.where(MANIFEST)}: {error}") from error
