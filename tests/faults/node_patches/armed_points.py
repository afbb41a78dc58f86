# SPDX-License-Identifier: Apache-2.0
"""
Act at the product's fault points, in a node of a campaign.

All nodes share a file that names a point and an action. The process that reaches the
point first takes the action, and empties the file. A second file records what was
reached and done, a line each.
"""

import errno
import fcntl
import mmap
import os
import signal
import time

from sparecode_node import fault_points
from sparecode_node.fault_points import Point

NAME_BYTES, ACTION_BYTES, PLACE_BYTES = 40, 10, 10
DELAY_S = 1.0


class ArmedPoints:
    """The hook of one process."""

    def __init__(self, armed: str, record: str, place: str) -> None:
        """*place*: the node, as the file names it."""
        self._fd = os.open(armed, os.O_RDWR | os.O_CLOEXEC)
        self._armed = mmap.mmap(self._fd, 0)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._record = os.open(record, flags, 0o600)
        self._path = armed
        self._place = place
        self._seen: set[Point] = set()
        self._names = {p: p.name.encode().ljust(NAME_BYTES) for p in Point}

    def reach(self, point: Point) -> None:
        """Record a point when it is reached first, and act if it is armed."""
        if point not in self._seen:
            self._seen.add(point)
            self._write(f"{point.name} reached")
        if self._armed[:NAME_BYTES] == self._names[point]:
            action = self._take(point)
            if action:
                self._act(point, action)

    def _take(self, point: Point) -> str:
        """Return the action, for one process alone."""
        # A descriptor of its own: threads of one process must exclude each other, too.
        own = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            name, rest = self._armed[:NAME_BYTES], self._armed[NAME_BYTES:].decode()
            action, place = rest[:ACTION_BYTES].strip(), rest[ACTION_BYTES:].strip()
            if name != self._names[point] or place not in ("", self._place):
                return ""
            self._armed[:] = b" " * len(self._armed)
            return action
        finally:
            os.close(own)

    def _act(self, point: Point, action: str) -> None:
        self._write(f"{point.name} {action}")
        if action == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "POWER":
            # The campaign cuts the power of the disk, and kills the process.
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "ERROR":
            raise OSError(errno.EIO, os.strerror(errno.EIO), point.name)
        elif action == "DELAY":
            time.sleep(DELAY_S)

    def _write(self, words: str) -> None:
        os.write(self._record, f"{self._place} {os.getpid()} {words}\n".encode())


def install() -> None:
    """Install the hook that the environment of the campaign describes."""
    points = ArmedPoints(
        os.environ["SPARECODE_FAULTS_POINT"],
        os.environ["SPARECODE_FAULTS_POINTS"],
        os.environ["SPARECODE_FAULTS_PLACE"],
    )
    fault_points.install(points.reach)
