# SPDX-License-Identifier: Apache-2.0
"""A separate clock for one node on this machine."""

import os
from pathlib import Path

from local_cluster.cluster import LocalNode

_PATCHES = Path(__file__).parent / "node_patches"


class NodeClock:
    """Shifts the time of one node. Make it before the node starts."""

    def __init__(self, node: LocalNode, directory: Path) -> None:
        self._file = directory / f"{node.node_id}.clock"
        self.set(0)
        node.environment["PYTHONPATH"] = str(_PATCHES)
        node.environment["SPARECODE_FAULTS_CLOCK"] = str(self._file)

    def set(self, offset_s: int, passed_s: int = 0) -> None:
        """
        Shift the clock by *offset_s* at once, even while the node runs.

        *passed_s* of them have passed for the node's monotonic clock, too.
        """
        # In place and at a fixed length, because the node has mapped the file.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, b"%+015d%+015d" % (offset_s, passed_s), 0)
        finally:
            os.close(descriptor)
