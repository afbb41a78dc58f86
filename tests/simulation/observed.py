# SPDX-License-Identifier: Apache-2.0
"""A machine, as the checks see it, and who takes what they find."""

from typing import Any, Protocol

from sparecode_node.replication.log.journal import Journal
from tests.simulation.comparisons import Comparisons


class Judge(Protocol):
    """Takes what is wrong."""

    comparisons: Comparisons

    def violated(self, kind: str, seen: str) -> None: ...


class Living(Protocol):
    """A machine with one process after the other."""

    node_id: str
    life: int


def attempt_of(node: Living, number: object = "") -> str:
    """Return the name of what a process is asked for; without *number*, how all begin."""
    return f"{node.node_id}.{node.life}.{number}"


class Observed(Protocol):
    """A machine whose process runs, or has ended."""

    node_id: str
    replica: Any
    """Of its process; None without one, or while that opens its files."""
    life: int
    had_entries: int

    @property
    def journal(self) -> Journal: ...
    @property
    def term(self) -> int: ...
    @property
    def leads(self) -> bool: ...
    def takes_no_snapshot(self) -> bool:
        """Return whether its process waits, for a reason that is none of the log's."""

    def snapshot_s(self) -> float:
        """Return how long a snapshot takes here, at most."""
