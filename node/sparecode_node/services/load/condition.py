# SPDX-License-Identifier: Apache-2.0
"""
Whether this node should be asked, and what its operator should look at.

Losing the quorum makes a node not ready, and not dead: to restart it would help
nobody. What will only be a problem later is a warning: the certificates of a
cluster are often made together, and the disks fill together, so a node that
went away a day early would take all of them along.
"""

import datetime as dt
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock

DISK_FLOOR_BYTES = 16 * 1024 * 1024
"""With less, the next entries may not fit, and the node would stop itself."""
DISK_WARNING_SHARE = 0.1
CERTIFICATE_WARNING_S = 24 * 3600
BEAT_MAX_S = 5.0
"""An event loop that has not turned for so long hangs."""
_DISK_FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds the state."""

    size_bytes: int
    free_bytes: int


class Condition:
    """Looks at the node as a whole. Any thread may ask."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        data_dir: Path,
        certificates: Callable[[], Mapping[str, dt.datetime]],
        clock: Clock,
    ) -> None:
        """*certificates* returns when each ends, by the name of its listener."""
        self._replicator = replicator
        self._data_dir = data_dir
        self._certificates = certificates
        self._clock = clock
        self._beat_s = clock.monotonic_s()
        self._leaving = False
        self._disk: Disk | None = None
        self._disk_at_s = 0.0

    def beat(self) -> None:
        """Take note that the event loop turns."""
        self._beat_s = self._clock.monotonic_s()

    def leave(self) -> None:
        """Be ready no more: the node is stopping."""
        self._leaving = True

    @property
    def alive(self) -> bool:
        """The event loop turns."""
        return self._clock.monotonic_s() - self._beat_s < BEAT_MAX_S

    @property
    def ready(self) -> bool:
        """Nothing keeps this node from serving."""
        return not self.problems()

    def disk(self) -> Disk:
        """Return how full the disk is, or was a few seconds ago."""
        now_s = self._clock.monotonic_s()
        if self._disk is None or now_s - self._disk_at_s > _DISK_FRESH_S:
            found = os.statvfs(self._data_dir)
            self._disk = Disk(
                size_bytes=found.f_blocks * found.f_frsize,
                free_bytes=found.f_bavail * found.f_frsize,
            )
            self._disk_at_s = now_s
        return self._disk

    def problems(self) -> tuple[str, ...]:
        """Say what keeps this node from serving; nothing: it is ready."""
        found = ["the node is stopping"] if self._leaving else []
        if self._replicator.primary is None:
            found.append("no primary is known here")
        elif not self._replicator.ready:
            found.append("no contact to a quorum, or not caught up")
        if self.disk().free_bytes < DISK_FLOOR_BYTES:
            found.append("the disk is full")
        now = self._now()
        for name, ends_at in self._certificates().items():
            if ends_at <= now:
                found.append(f"the certificate of {name} has expired")
        return tuple(found)

    def warnings(self) -> tuple[str, ...]:
        """Say what will keep this node from serving before long."""
        found = []
        disk = self.disk()
        if disk.free_bytes < DISK_WARNING_SHARE * disk.size_bytes:
            found.append(f"{disk.free_bytes // 1024**2} MiB are left on the disk")
        now = self._now()
        for name, ends_at in self._certificates().items():
            left_s = (ends_at - now).total_seconds()
            if 0 < left_s < CERTIFICATE_WARNING_S:
                found.append(
                    f"the certificate of {name} expires at {ends_at:%Y-%m-%d %H:%M} UTC"
                )
        return tuple(found)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
