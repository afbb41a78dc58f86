# SPDX-License-Identifier: Apache-2.0
"""
Keeping the log short: when a snapshot is due, and which entries may be dropped.

Entries are dropped up to one that a durable snapshot covers, for followers that still
need them, and that no power cut takes this node's own state back before. Belongs to the
engine's thread.
"""

import logging
from dataclasses import dataclass

from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.snapshots.store import Manifest, SnapshotStore

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Compaction:
    """The snapshots of a replica, and its log."""

    cluster_id: str
    store: SnapshotStore
    journal: Journal
    state: AppliedState
    settings: RaftSettings

    # --- Taking snapshots

    def is_due(self) -> bool:
        """Return whether a new snapshot would let the log become shorter."""
        newest = self.store.current
        if newest is None:
            return self._is_long() or self.journal.first_index > 1
        return self._is_long() and self._droppable() <= self.journal.first_index

    def _is_long(self) -> bool:
        settings, journal = self.settings, self.journal
        return (
            len(journal) > settings.log_entries_max
            or journal.bytes > settings.log_bytes_max
        )

    def describe(
        self, *, index: int, digest: str, length: int, sha256: bytes
    ) -> Manifest:
        """
        Return the manifest with which the written body can be adopted, in any thread.

        Raises `SnapshotRefusedError` if it is not newer, or if the log no longer has
        its entry.
        """
        newest = self.store.current
        term = self.journal.term_at(index)
        if term is None or (newest is not None and index <= newest.index):
            raise SnapshotRefusedError(f"a snapshot of entry {index} is not needed")
        return Manifest(
            cluster_id=self.cluster_id,
            index=index,
            term=term,
            configuration=self.journal.configuration_at(index),
            digest=digest,
            length=length,
            sha256=sha256,
        )

    # --- Dropping

    def run(self) -> None:
        """Compact the log if it is too long, as far as that is safe now."""
        if not self._is_long():
            return
        index = self._droppable()
        if index <= self.journal.first_index:
            return
        index = min(index, self._checkpointed())
        if index > self.journal.first_index:
            self.journal.compact(index)
            log.info("log_compacted", extra={"first": index})

    def _checkpointed(self) -> int:
        return self.state.checkpoint()

    def _droppable(self) -> int:
        """Return the index up to which the newest snapshot allows to drop entries."""
        newest = self.store.current
        return 0 if newest is None else min(newest.index, self._first_kept())

    def _first_kept(self) -> int:
        """Return the index where the part of the log begins that always stays."""
        journal, settings = self.journal, self.settings
        size = 0
        for count, (command, index, _) in enumerate(reversed(journal[:]), start=1):
            size += len(command)
            if count > settings.log_entries_kept or size > settings.log_bytes_kept:
                return index
        return journal.first_index
