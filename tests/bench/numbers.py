# SPDX-License-Identifier: Apache-2.0
"""Numbers that nodes count about themselves, for a benchmark that reads them."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.bench.node_numbers.sitecustomize import FIELDS, TO, WHAT, Numbers

INSIDE = Path(__file__).parent / "node_numbers"
"""Nodes with this folder in PYTHONPATH count."""


class NodeNumbers:
    """The numbers of several nodes, by node id."""

    def __init__(self, files: dict[str, Path]) -> None:
        for path in files.values():
            path.write_bytes(bytes(8 * len(FIELDS)))
        self._of = {node: Numbers(path) for node, path in files.items()}

    def clear(self) -> None:
        """Begin to count again."""
        for each in self._of.values():
            each.clear()

    def of(self, node_id: str) -> dict[str, float]:
        """Return the numbers of a node, as they are now."""
        return self._of[node_id].all()

    def highest(self, name: str) -> float:
        """Return the highest number of any node; 0 without nodes."""
        return max((self.of(node)[name] for node in self._of), default=0.0)


@contextlib.contextmanager
def watched(nodes: Sequence[LocalNode], what: str) -> Iterator[dict[str, Path]]:
    """
    Make nodes write *what* they do, from their next start on, each into its file.

    No more from the start on that follows the end of this.
    """
    before = [node.environment for node in nodes]
    with tempfile.TemporaryDirectory(prefix="sparecode-numbers-") as folder:
        files = {node.node_id: Path(folder) / node.node_id for node in nodes}
        for node in nodes:
            node.environment = {
                **node.environment,
                "PYTHONPATH": str(INSIDE),
                TO: str(files[node.node_id]),
                WHAT: what,
            }
        try:
            yield files
        finally:
            for node, environment in zip(nodes, before, strict=True):
                node.environment = environment


@contextlib.contextmanager
def counted(nodes: Sequence[LocalNode], what: str) -> Iterator[NodeNumbers]:
    """Make nodes count from their next start on, and no more from the one after that."""
    with watched(nodes, what) as files:
        yield NodeNumbers(files)
