# SPDX-License-Identifier: Apache-2.0
"""The fault points of a campaign's nodes: one is armed at a time, and one node acts."""

import time
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import LocalNode

from sparecode_node.fault_points import Point
from tests.fault_points.strikes import REACHED, Action, Strikes

# As in node_patches/armed_points.py, which knows nothing of this tree.
NAME_BYTES, ACTION_BYTES, PLACE_BYTES = 40, 10, 10
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Hit:
    """A point at which a process has acted."""

    place: str
    pid: int
    point: Point
    action: Action


class ArmedPoints:
    """The files that tell the nodes what to do, and what they have done."""

    def __init__(self, directory: Path) -> None:
        self._armed = directory / "armed.point"
        self._record = directory / "points.log"

    def equip(self, node: LocalNode, place: str) -> None:
        """Let a node act at points. Before it starts."""
        if not self._armed.exists():
            self._write("")
        node.environment["SPARECODE_FAULTS_POINT"] = str(self._armed)
        node.environment["SPARECODE_FAULTS_POINTS"] = str(self._record)
        node.environment["SPARECODE_FAULTS_PLACE"] = place

    def arm(self, point: Point, action: Action, place: str = "") -> None:
        """Let the node at *place*, or the first one that comes there, act at a point."""
        name = point.name.ljust(NAME_BYTES)
        self._write(f"{name}{action.name.ljust(ACTION_BYTES)}{place}")

    def disarm(self) -> None:
        """Let no node act."""
        self._write("")

    def _write(self, words: str) -> None:
        content = words.ljust(NAME_BYTES + ACTION_BYTES + PLACE_BYTES).encode()
        # In place: the nodes have mapped the file.
        with self._armed.open("r+b" if self._armed.exists() else "wb") as file:
            file.write(content)

    def hits(self) -> list[Hit]:
        """Return what the nodes have done, oldest first."""
        return [
            Hit(place, int(pid), Point[point], Action[what])
            for place, pid, point, what in self._lines()
            if what != REACHED
        ]

    def wait(self, before: int, within_s: float) -> Hit | None:
        """Return the hit after the first *before* ones; None: there was none in time."""
        deadline = time.monotonic() + within_s
        while len(hits := self.hits()) <= before:
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_S)
        return hits[before]

    def strikes(self) -> Strikes:
        """Return how often each point was reached first by a process, and acted at."""
        return Strikes((point, what) for _, _, point, what in self._lines())

    def _lines(self) -> list[list[str]]:
        if not self._record.exists():
            return []
        text = self._record.read_text()
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
