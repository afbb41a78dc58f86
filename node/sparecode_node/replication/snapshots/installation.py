# SPDX-License-Identifier: Apache-2.0
"""
Installing a snapshot: a node that lacks too much takes over another node's state.

`snapshot_keeper` fetches the snapshot and verifies it. The rest is here, for the
engine's thread: whether the snapshot may be installed, the three steps of installing
it, and the last step again after a crash.

The first two steps write the whole state, and wait for the disk. So they run beside the
engine, which goes on voting and answering its leader. Otherwise a slow disk would take
this node's vote away for that time; if another member is down, the leader would lose
its quorum.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import (
    Fatal,
    SnapshotRefusedError,
    StartRefusedError,
)
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.log.storage import Beside
from sparecode_node.replication.raft.engine import Engine
from sparecode_node.replication.snapshots.store import (
    RECEIVED,
    Manifest,
    SnapshotStore,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotInstallation:
    """Installs received snapshots on one replica."""

    cluster_id: str
    store: SnapshotStore
    journal: Journal
    state: AppliedState
    engine: Engine
    beside: Beside

    def check(self, manifest: Manifest) -> None:
        """Raise `SnapshotRefusedError` if a snapshot must not be installed now."""
        if manifest.cluster_id != self.cluster_id:
            raise SnapshotRefusedError(f"it is of cluster {manifest.cluster_id!r}")
        if manifest.term > self.engine.raftCurrentTerm:
            raise SnapshotRefusedError("it is of a newer term than this node's")
        if self._is_stale(manifest):
            raise SnapshotRefusedError(f"entry {manifest.index} is committed here")
        if self.engine.is_leader():
            raise SnapshotRefusedError("this node leads")

    def _is_stale(self, manifest: Manifest) -> bool:
        return manifest.index <= self.engine.raftCommitIndex

    def install(
        self, manifest: Manifest, done: Callable[[SnapshotRefusedError | None], object]
    ) -> None:
        """
        Replace state and log by a snapshot that was received and verified.

        First the snapshot becomes this node's own, durably. Then the state is replaced,
        durably and in one step; then the journal. After a crash in between,
        `finish_install` does the last step. *done* is called in the engine's thread.
        Raises `SnapshotRefusedError`, or `Fatal` when there is no way back.
        """
        self.check(manifest)
        self.engine.end_candidacy()  # A leader adds entries to the log.
        self.engine.guard.flush()
        self.journal.is_held = True
        refusals: list[SnapshotRefusedError] = []

        def work() -> None:
            try:
                self.store.adopt(manifest, RECEIVED)
            except SnapshotRefusedError as error:
                refusals.append(error)
                return
            try:
                reach(Point.INSTALL)
                self.state.install(self.store.storage.where(manifest.body))
            except Exception as error:
                raise Fatal(f"installing a snapshot failed: {error!r}") from error
            reach(Point.INSTALLED)

        def then() -> None:
            if not refusals:
                self._go_on_after(manifest)
            self.journal.is_held = False
            done(refusals[0] if refusals else None)

        self.beside(work, then)

    def _go_on_after(self, manifest: Manifest) -> None:
        """Take over the stored state, and let the journal begin after it."""
        self.state.reload()
        if self.state.applied_index != manifest.index:
            raise Fatal(
                f"a snapshot of entry {manifest.index} has applied"
                f" {self.state.applied_index}"
            )
        self.journal.rebase(manifest.index, manifest.term, manifest.configuration)
        reach(Point.INSTALL_REBASED)
        self.engine.continue_after(manifest.index)
        log.info("snapshot_installed", extra={"index": manifest.index})


def finish_install(store: SnapshotStore, journal: Journal, applied: int) -> None:
    """
    Replace the journal, if a crash came after the state was replaced.

    Raises `StartRefusedError` if the state fits neither the snapshot nor the journal.
    """
    newest = store.current
    if newest is None or not journal.first_index <= newest.index <= applied:
        return
    if journal.term_at(newest.index) == newest.term:
        return
    if applied != newest.index:
        raise StartRefusedError(
            f"the state store has applied entry {applied}, and the journal has"
            f" another entry {newest.index} than the snapshot"
        )
    journal.rebase(newest.index, newest.term, newest.configuration)
