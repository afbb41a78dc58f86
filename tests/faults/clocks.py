# SPDX-License-Identifier: Apache-2.0
"""A clock of its own for a node that is a process on this machine."""

import os
from pathlib import Path

from local_cluster.cluster import LocalNode

_SHIFT = Path(__file__).parent / "clock"


class NodeClock:
    """Shifts the time that one node is told; give it before the node starts."""

    def __init__(self, node: LocalNode, directory: Path) -> None:
        self._file = directory / f"{node.node_id}.clock"
        self.set(0)
        node.environment["PYTHONPATH"] = str(_SHIFT)
        node.environment["SPARECODE_FAULTS_CLOCK"] = str(self._file)

    def set(self, offset_s: int) -> None:
        """Put the clock so far off, at once and while the node runs."""
        # In place and of one length, since the node has mapped the file.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, b"%+015d" % offset_s, 0)
        finally:
            os.close(descriptor)
