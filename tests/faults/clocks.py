# SPDX-License-Identifier: Apache-2.0
"""A clock of its own for a node that is a process on this machine."""

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
        new = self._file.with_suffix(".new")
        new.write_text(str(offset_s))
        new.replace(self._file)
