# SPDX-License-Identifier: Apache-2.0
"""
Strikes at the product's fault points (`sparecode_node/fault_points.py`).

A point is armed, and something is done that leads there. The first node that comes
there is killed, loses its power, gets an error, or waits. A strike gives up after a
while: not every point is reached each time.
"""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from random import Random

from local_cluster.cluster import ADMINISTRATOR, LocalNode

from sparecode_client import Admin, SparecodeError
from sparecode_node.fault_points import Point
from tests.fault_points.strikes import Action, actions_at
from tests.faults.armed_points import Hit
from tests.faults.disk_strikes import FATAL, STOPPED_S
from tests.faults.segment_strikes import delete_file
from tests.faults.striker import Proof, Striker

HIT_S = 12.0
"""How long a strike waits until a node comes to the point."""
AT_A_NODE_S = 3.0
"""And of that, until the drawn node does; then any node counts."""
_CALL = timedelta(seconds=10)

RESTARTS = ("START_",)
STOPS = ("STOP_",)
HAND_OVERS = ("TERM_", "HAND_OVER", "CALLED_UP", "LEADERSHIP_LOST")
ROTATIONS = ("RING_", "KEY_", "SEALS_")
ELSEWHERE = (
    # The simulation goes there: they need a conflict, a torn tail, or long absence.
    *("ENTRIES_CUT", "JOURNAL_TAIL_CUT", "MEMBERS_", "INSTALL", "SNAPSHOT_LENT"),
    *("SNAPSHOT_PART", "SNAPSHOT_COMPLETE"),
    # Tests of one process go there.
    *("JOIN_", "RENEWAL_", "CERTIFICATE_", "FORMAT_", "LEVEL_"),
    *("BACKUP_", "RECOVERY_", "SEGMENT_REMOVED", "SEGMENT_ASIDE"),
)
"""Beginnings of the names of points to which no campaign leads."""
ARCHIVE = tuple(point for point in Point if point.name.startswith("ARCHIVE_"))
"""Points of a segment's way into the archive."""
POINTS = tuple(point for point in Point if not point.name.startswith(ELSEWHERE))
SEGMENTS = ("SEGMENT_COMMIT", "SEGMENT_STORED", "SEGMENT_FETCHED", "ARCHIVE_")
"""At these, a node is killed, and loses its power, before anything else happens there."""
DEATHS = (Action.KILL, Action.POWER)
FIRST = (*STOPS, *ROTATIONS, "EVENT_FILE_", *SEGMENTS)
"""And to which no simulation leads: these come first."""


def acts(chance: Random) -> Iterator[tuple[Point, Action]]:
    """Yield points, shuffled, and what happens there; all come before any returns."""
    while True:
        points = chance.sample(POINTS, len(POINTS))
        for point in sorted(points, key=lambda each: not each.name.startswith(FIRST)):
            others = actions_at(point)
            if point.name.startswith(SEGMENTS):
                yield from ((point, death) for death in DEATHS)
                others = tuple(each for each in others if each not in DEATHS)
            yield point, chance.choice(others)


class PointStrikes(Striker):
    """All strikes at fault points."""

    _acts: Iterator[tuple[Point, Action]] | None = None

    def fault_point(self) -> Proof:
        """
        Act at a point; each comes once before any repeats.

        Those that only real processes have come first.
        """
        if self._acts is None:
            self._acts = acts(self._chance)
        return self._strike_at(*next(self._acts))

    def archive_interrupted(self) -> Proof:
        """Kill a node, or cut its power, on a segment's way into its archive."""
        point = self._chance.choice(ARCHIVE)
        return self._strike_at(point, self._chance.choice(DEATHS))

    def _strike_at(self, point: Point, action: Action) -> Proof:
        if point.name.startswith((*STOPS, *RESTARTS)) and action is Action.POWER:
            action = Action.KILL  # Its process is waited for, and must not only pause.
        armed = self._site.points
        before = len(armed.hits())
        node = self._chance.choice(self._site.nodes)
        told = self._lead_to(point, action, node)
        hit = armed.wait(before, AT_A_NODE_S)
        if hit is None:
            armed.arm(point, action)
            hit = armed.wait(before, HIT_S - AT_A_NODE_S)
        armed.disarm()
        hits = armed.hits()[before:]
        if hit is None or not hits:
            return Proof(bit=False, words=f"{point.name} was not reached{told}")
        return self._act(hit, told)

    def _lead_to(self, point: Point, action: Action, node: LocalNode) -> str:
        """Arm a point, and do what leads there; return words about what failed."""
        name, armed, place = point.name, self._site.points, self._site.place
        if name.startswith(RESTARTS):
            node.kill()
            self.down.add(node.node_id)
            armed.arm(point, action, place(node))
            self._site.start(node)
            return ""
        if name.startswith(STOPS):
            primary = self._primary()
            self.down.add(primary.node_id)
            armed.arm(point, action, place(primary))
            primary.stop()
            return ""
        if point is Point.SEGMENT_FETCHED:
            node.stop()
            delete_file(node)
            armed.arm(point, action, place(node))
            self._site.start(node)
            return ""
        if not name.startswith((*HAND_OVERS, *ROTATIONS)):
            armed.arm(point, action, place(node))
            return ""
        armed.arm(point, action)
        cluster = self._site.cluster
        others = [each.admin_address for each in self._site.nodes]
        try:
            with Admin(others, ca=cluster.members_ca, timeout=_CALL) as admin:
                admin.login(ADMINISTRATOR, cluster.password)
                admin.confirm_with(lambda _: cluster.password)
                if name.startswith(ROTATIONS):
                    admin.rotate_keys()
                else:
                    admin.transfer_primary()
        except SparecodeError as error:
            return f"; the call that leads there failed: {type(error).__name__}"
        return ""

    def _act(self, hit: Hit, told: str) -> Proof:
        """Do what the node itself cannot, and return how it ended."""
        (node,) = (n for n in self._site.nodes if self._site.place(n) == hit.place)
        words = f"{node.node_id} {hit.action.value} at {hit.point.name}{told}"
        if hit.action is Action.DELAY:
            self._last(1, 1.5)
            return Proof(bit=True, words=words)
        self.down.add(node.node_id)
        if hit.action is Action.POWER:
            disks = self._site.disks_of(node)
            for disk in disks:
                disk.cut_power()
            node.kill()
            lost = sum(disk.restore_power().total for disk in disks)
            self._last(0.5, 1)
            return Proof(bit=True, words=f"{words}: lost {lost} bytes")
        with contextlib.suppress(TimeoutError):
            self._until_ended(node)
        if hit.action is Action.KILL:
            return Proof(bit=not node.running, words=words)
        failure = ""
        if not node.running and node.exit_code not in (FATAL, None):
            failure = f"{node.node_id} stopped with exit code {node.exit_code}"
        went_on = "it went on" if node.running else f"exit code {node.exit_code}"
        return Proof(bit=True, words=f"{words}: {went_on}", failure=failure)

    def _until_ended(self, node: LocalNode) -> None:
        deadline = time.monotonic() + STOPPED_S
        while node.running:
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)
