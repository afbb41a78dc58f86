# SPDX-License-Identifier: Apache-2.0
"""The database of a simulated state, in memory."""

import collections
import sqlite3
from typing import Any

from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.archives import Removed
from sparecode_node.statemachine.tables.segments import Segment
from tests.simulation.disk import Disk
from tests.simulation.fault_effects import Effect


class StateConnection(sqlite3.Connection):
    """Dies between two statements, and tells when something is committed."""

    disk: Disk
    images: "collections.deque[bytes]"
    _removed: Removed | None = None
    _sealed: tuple[Segment, ...] | None = None

    def watch(self, disk: Disk, images: "collections.deque[bytes]") -> None:
        self.disk, self.images = disk, images
        self.keep()

    def keep(self) -> None:
        """Remember what is committed now."""
        self.images.append(self.serialize())
        self._removed = self._sealed = None

    def removed(self) -> Removed:
        """Read which segments are removed, if anything was committed since."""
        if self._removed is None:
            self._removed = archives.removed(self)
        return self._removed

    def all_sealed(self) -> tuple[Segment, ...]:
        """Read which segments are sealed, if anything was committed since."""
        if self._sealed is None:
            self._sealed = segments.all_sealed(self)
        return self._sealed

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if not hasattr(self, "images"):
            return super().execute(sql, *args)
        if sql == "COMMIT":
            self.disk.burn(Effect.KILL_IN_TRANSACTION)
            if self.disk.full:
                self.disk.effects[Effect.DISK_FULL] += 1
                raise sqlite3.OperationalError("database or disk is full")
        before = self.total_changes
        cursor = super().execute(sql, *args)
        if sql == "COMMIT" or (not self.in_transaction and self.total_changes > before):
            self.keep()
            self.disk.burn(Effect.KILL_IN_TRANSACTION)
        elif sql.startswith("PRAGMA wal_checkpoint"):
            # What a checkpoint has written back is there for good.
            self.images.clear()
            self.keep()
        return cursor
