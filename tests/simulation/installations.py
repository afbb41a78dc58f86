# SPDX-License-Identifier: Apache-2.0
"""Replicas whose installations of snapshots are judged, in the moment they are done."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.replica.replica import Replica
from sparecode_node.replication.snapshots.store import Manifest
from tests.simulation.comparisons import Comparison

if TYPE_CHECKING:
    from tests.simulation.machines import Node


class JudgedReplica(Replica):
    """Installs as in production, and compares what is there then."""

    def __init__(self, node: "Node", *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._node = node
        self.has_installed = False

    def install(
        self,
        manifest: Manifest,
        done: Callable[[SnapshotRefusedError | None], object],
    ) -> None:
        before = self.engine.raftCommitIndex

        def judged(refusal: SnapshotRefusedError | None) -> None:
            if refusal is None:
                self.has_installed = True
                check_installed(self._node, manifest, before)
            done(refusal)

        super().install(manifest, judged)


def check_installed(node: "Node", manifest: Manifest, before: int) -> None:
    """See that a snapshot is newer than what was committed here, and all there is."""
    invariants = node.sim.invariants
    invariants.comparisons[Comparison.INSTALLED] += 1
    if manifest.index <= before:
        invariants.violated("never back", f"{node.node_id}: {manifest}")
    if manifest.index > max(invariants.applied, default=0):
        invariants.violated("committed only", f"{node.node_id}: {manifest}")
    if node.store.digest() != manifest.digest:
        invariants.violated("snapshot digest", f"{node.node_id}: {manifest}")
    if hashlib.sha256(node.disk.read(manifest.body)).digest() != manifest.sha256:
        # No digest covers what lies between the rows; others fetch it from here.
        invariants.violated("snapshot as announced", f"{node.node_id}: {manifest}")
