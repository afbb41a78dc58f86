# SPDX-License-Identifier: Apache-2.0
"""
The condition of this node: whether it is ready, and what needs the operator's attention.

A node without a quorum is not ready, but it is alive: a restart would not help. A
problem of the near future is only a warning. The certificates of a cluster often
expire together, and its disks fill together; if nodes stopped being ready a day
early, all of them would at once.
"""

import datetime as dt
import enum
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import RemovedError
from sparecode_node.replication.raft.admission import Refusal, explained, is_final
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock

DISK_FLOOR_BYTES = 16 * 1024 * 1024
"""With less, the next entries may not fit, and the node would stop."""
DISK_WARNING_SHARE = 0.1
CERTIFICATE_WARNING_S = 24 * 3600
MONITORING = "metrics"
"""The listener that serves no users: without it the node is ready all the same."""
BEAT_MAX_S = 5.0
"""An event loop that has not turned for this long hangs."""
_DISK_FRESH_S = 5.0


NOT_INITIALIZED = (
    "the cluster has no administrator yet: run `sparecode-node init` on one node, or wait "
    "until that node is up; if this node has lost its data: docs/runbooks/blank-node.md"
)


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the data folder."""

    size_bytes: int
    free_bytes: int


class Reason(enum.StrEnum):
    """Why a node is not ready, in one word that probes may rely on."""

    STOPPING = "stopping"
    REMOVED = "removed"
    """This node was removed from the cluster, for good."""
    REFUSED = "refused"
    """Members refuse this node, for example because it has lost its data."""
    NO_PRIMARY = "no_primary"
    NO_QUORUM = "no_quorum"
    NOT_INITIALIZED = "not_initialized"
    """The cluster has no administrator yet."""
    UNHEALTHY = "unhealthy"
    """Something on this machine needs an operator; only monitoring learns what."""


class Condition:
    """The condition of the whole node. Safe in any thread."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        initialized: Callable[[], bool],
        data_dir: Path,
        certificates: Callable[[], Mapping[str, dt.datetime]],
        clock: Clock,
    ) -> None:
        """
        Only store the arguments.

        *initialized*: whether the state here is that of a cluster with administrators.
        *certificates* returns when each expires, by the name of its listener.
        """
        self._replicator = replicator
        self._initialized = initialized
        self._data_dir = data_dir
        self._certificates = certificates
        self._clock = clock
        self._beat_s = clock.monotonic_s()
        self._leaving = False
        self._disk: Disk | None = None
        self._disk_at_s = 0.0

    def beat(self) -> None:
        """Record that the event loop turns."""
        self._beat_s = self._clock.monotonic_s()

    def leave(self) -> None:
        """Stop being ready: the node is stopping."""
        self._leaving = True

    @property
    def alive(self) -> bool:
        """The event loop turns."""
        return self._clock.monotonic_s() - self._beat_s < BEAT_MAX_S

    @property
    def ready(self) -> bool:
        """Nothing keeps this node from serving."""
        return not self.problems()

    @property
    def initialized(self) -> bool:
        """The cluster has administrators, as far as this node has applied the log."""
        return self._initialized()

    def check_open(self) -> None:
        """Raise `RemovedError` if this node must not answer any call, not even a read."""
        if self._replicator.removed:
            raise RemovedError(self._replicator.node_id)

    def disk(self) -> Disk:
        """Return how full the disk is; the answer may be a few seconds old."""
        now_s = self._clock.monotonic_s()
        if self._disk is None or now_s - self._disk_at_s > _DISK_FRESH_S:
            stat = os.statvfs(self._data_dir)
            self._disk = Disk(
                size_bytes=stat.f_blocks * stat.f_frsize,
                free_bytes=stat.f_bavail * stat.f_frsize,
            )
            self._disk_at_s = now_s
        return self._disk

    def problems(self) -> tuple[str, ...]:
        """Return what keeps this node from serving. Empty: it is ready."""
        return tuple(words for _, words in self._problems())

    def reason(self) -> Reason | None:
        """Return the word for the first problem; None: the node is ready."""
        return next((reason for reason, _ in self._problems()), None)

    def _problems(self) -> Iterator[tuple[Reason, str]]:
        if self._leaving:
            yield Reason.STOPPING, "the node is stopping"
        yield from self._cluster_problems()
        if self.disk().free_bytes < DISK_FLOOR_BYTES:
            yield Reason.UNHEALTHY, "the disk is full"
        now = self._now()
        for name, ends_at in self._certificates().items():
            if ends_at <= now and name != MONITORING:
                yield Reason.UNHEALTHY, f"the certificate of {name} has expired"

    def _cluster_problems(self) -> Iterator[tuple[Reason, str]]:
        replicator = self._replicator
        if replicator.removed:
            yield Reason.REMOVED, explained(Refusal.REMOVED)
            return
        primary = replicator.primary
        for words in _refusals(replicator.refusals, primary):
            yield Reason.REFUSED, words
        if primary is None:
            yield Reason.NO_PRIMARY, "no primary is known here"
        elif not replicator.ready:
            yield Reason.NO_QUORUM, "no contact to a quorum, or not caught up"
        elif not self._initialized():
            yield (
                Reason.NOT_INITIALIZED,
                NOT_INITIALIZED,
            )

    def warnings(self) -> tuple[str, ...]:
        """Return what will soon keep this node from serving, and which nodes it refuses."""
        warnings = [
            f"this node refuses {node}, which was restored from an older copy: remove it "
            "and let it join again (docs/runbooks/restored-machine.md)"
            for node in self._replicator.older_copies
        ]
        disk = self.disk()
        if disk.free_bytes < DISK_WARNING_SHARE * disk.size_bytes:
            warnings.append(f"{disk.free_bytes // 1024**2} MiB are left on the disk")
        now = self._now()
        for name, ends_at in self._certificates().items():
            left_s = (ends_at - now).total_seconds()
            if left_s <= 0 and name == MONITORING:
                warnings.append(f"the certificate of {name} has expired")
            if 0 < left_s < CERTIFICATE_WARNING_S:
                warnings.append(
                    f"the certificate of {name} expires at {ends_at:%Y-%m-%d %H:%M} UTC"
                )
        return tuple(warnings)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)


def _refusals(refusals: Mapping[NodeId, str], primary: NodeId | None) -> Iterator[str]:
    """
    Yield why other nodes refuse this one, each reason once.

    A journal that a member does not know never becomes right again, and a node that the
    primary refuses can pass on no call. Other refusals may come from a stranger at an
    old address: they only explain why there is no primary.
    """
    for why in sorted(set(refusals.values())):
        nodes = sorted(n for n, each in refusals.items() if each == why)
        if is_final(why) or primary is None or primary in nodes:
            yield f"refused by {', '.join(nodes)}: {explained(why)}"
