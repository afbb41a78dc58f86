# SPDX-License-Identifier: Apache-2.0
"""
The faults: each acts on the nodes, and returns a proof that it had an effect.

A fault lasts for a while and then ends. Everything is whole again, except the
nodes that it took down, which the nemesis starts.
"""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.faults.archive_strikes import ArchiveStrikes
from tests.faults.disk_strikes import DiskStrikes
from tests.faults.link_strikes import LinkStrikes
from tests.faults.point_strikes import PointStrikes
from tests.faults.receiver_strikes import ReceiverStrikes
from tests.faults.return_strikes import ReturnStrikes
from tests.faults.segment_strikes import SegmentStrikes
from tests.faults.striker import Proof, names

JUMPS_S = (86_400, 3600, 240, 60, 5, -5, -60, -3600, -86_400)
"""
All are larger than the offset with which a primary may stamp (T5).

If it stamped anyway, a clock an hour ahead would expire request ids, and a retry of
an accepted request would not get the same answer (Q3).
"""


SUCCESS_S = 5.0
"""How long the survivors may take until one answers; after that the fault has failed."""


class Strikes(
    ArchiveStrikes,
    DiskStrikes,
    LinkStrikes,
    PointStrikes,
    ReceiverStrikes,
    ReturnStrikes,
    SegmentStrikes,
):
    """All faults of one site."""

    # --- Processes -----------------------------------------------------------

    def kill_replica(self) -> Proof:
        return self._kill([self._replica()])

    def kill_primary(self) -> Proof:
        """Kill the primary, and measure how long the survivors take to answer a new call."""
        primary = self._primary()
        begin_ns = time.monotonic_ns()
        proof = self._kill([primary])
        success_s = self._until_success(begin_ns, self._site.place(primary), SUCCESS_S)
        if success_s is None:
            failure = f"no success at the survivors for {SUCCESS_S:.0f} s"
            return Proof(proof.bit, proof.words, failure=failure)
        return Proof(
            proof.bit,
            f"{proof.words}; next success after {success_s:.2f} s",
            success_s,
        )

    def kill_majority(self) -> Proof:
        return self._kill([self._primary(), self._replica()])

    def kill_all(self) -> Proof:
        return self._kill(self._site.nodes)

    def _kill(self, nodes: Sequence[LocalNode]) -> Proof:
        pids = [node.pid for node in nodes]
        for node in nodes:
            self.down.add(node.node_id)
            node.kill()
        gone = not any(Path(f"/proc/{pid}").exists() for pid in pids)
        self._last(1, 3)
        return Proof(gone, f"kill -9 of {names(nodes)}: processes {pids} gone")

    def pause_primary(self) -> Proof:
        return self._pause(self._primary())

    def pause_replica(self) -> Proof:
        return self._pause(self._replica())

    def _pause(self, node: LocalNode) -> Proof:
        self._site.signal(node, signal.SIGSTOP)
        time.sleep(0.05)
        state, used = _process(node)
        seconds = self._last(0.5, 6)
        stood_still = (state, used) == _process(node) == ("T", used)
        self._site.signal(node, signal.SIGCONT)
        return Proof(
            stood_still,
            f"SIGSTOP of {node.node_id} for {seconds:.1f} s: state {state}, no tick of CPU",
        )

    def rolling_restart(self) -> Proof:
        """
        Stop and start every node, one after the other, as for an upgrade.

        A primary hands over before it stops, so clients that know all nodes must not
        notice: `report` counts their failed calls. An election may make a node primary
        that has restarted before; then the primary restarts once more.
        """
        nodes = [*self._site.nodes]
        self._chance.shuffle(nodes)
        pids = {node.node_id: node.pid for node in nodes}
        before = self._site.count("handed_over")
        not_handed_over = self._site.count("not_handed_over")
        stopped = [self._restart(node) for node in nodes]
        handed_over = self._site.count("handed_over") - before
        if not handed_over:
            stopped.append(self._restart(self._primary()))
            handed_over = self._site.count("handed_over") - before
        not_handed_over = self._site.count("not_handed_over") - not_handed_over
        renewed = all(node.pid != pids[node.node_id] for node in nodes)
        failure = ""
        if any(code != 0 for code in stopped):
            failure = f"exit codes {stopped}"
        elif not_handed_over:
            failure = f"{not_handed_over} primaries stopped without handing over"
        return Proof(
            renewed and handed_over > 0,
            f"{names(nodes)} stopped with exit codes {stopped} and started again, as other"
            f" processes; {handed_over} primaries handed over",
            failure=failure,
        )

    def _restart(self, node: LocalNode) -> int | None:
        """Stop a node in order and start it; return its exit code."""
        code = node.stop()
        self._site.start(node)
        self._site.ready(node)
        return code

    # --- Network -------------------------------------------------------------

    def isolate_primary(self) -> Proof:
        return self._isolate(self._primary())

    def halves(self) -> Proof:
        """Cut off a replica: of three nodes, the smaller half is one node."""
        return self._isolate(self._replica())

    def _isolate(self, node: LocalNode) -> Proof:
        self._site.network.isolate(self._site.place(node))
        return self._cut(f"{node.node_id} isolated", 2, 6)

    def bridge(self) -> Proof:
        """Cut two nodes off from each other; the third reaches both."""
        places = [self._site.place(node) for node in self._site.nodes]
        one, other = self._chance.sample(places, 2)
        self._site.network.cut([(one, other), (other, one)])
        return self._cut(f"{one} and {other} cut off from each other", 2, 6)

    def one_way_out(self) -> Proof:
        """Drop everything that the primary sends to the other nodes."""
        primary = self._site.place(self._primary())
        others = [self._site.place(n) for n in self._replicas()]
        self._site.network.cut((primary, other) for other in others)
        return self._cut(f"{primary} not heard", 2, 5)

    def one_way_in(self) -> Proof:
        """Drop everything that the other nodes send to the primary."""
        primary = self._site.place(self._primary())
        others = [self._site.place(n) for n in self._replicas()]
        self._site.network.cut((other, primary) for other in others)
        return self._cut(f"{primary} deaf", 2, 5)

    def loss(self) -> Proof:
        percent = self._chance.randint(10, 25)
        self._site.network.lose(percent)
        return self._cut(f"{percent} % loss", 3, 6)

    def _cut(self, words: str, at_least_s: float, at_most_s: float) -> Proof:
        seconds = self._last(at_least_s, at_most_s)
        dropped = self._site.network.heal()
        return Proof(
            dropped > 0, f"{words} for {seconds:.1f} s: {dropped} packets dropped"
        )

    def delay(self) -> Proof:
        delay_ms, jitter_ms = self._chance.choice([(25, 50), (75, 50), (20, 150)])
        self._site.network.delay(delay_ms, jitter_ms)
        try:
            seconds = self._last(3, 6)
        finally:
            held = self._site.network.hurry()
        return Proof(
            held > 0,
            f"{delay_ms} to {delay_ms + jitter_ms} ms delay for {seconds:.1f} s: "
            f"{held} packets held back",
        )

    # --- Clock ---------------------------------------------------------------

    def clock_of_primary(self) -> Proof:
        return self._jump(self._primary(), "primary")

    def clock_of_replica(self) -> Proof:
        return self._jump(self._replica(), "replica")

    def _jump(self, node: LocalNode, role: str) -> Proof:
        offset_s = self._chance.choice(JUMPS_S)
        self._site.set_clock(node, offset_s)
        try:
            seconds = self._last(3, 5)
            seen_s = self._offset_of(node.node_id)
        finally:
            self._site.set_clock(node, 0)
        return Proof(
            abs(seen_s - offset_s) < abs(offset_s) / 2,
            f"clock of {node.node_id} ({role}) jumped by {offset_s:+d} s "
            f"for {seconds:.1f} s: the others saw {seen_s:+.1f} s",
        )


def _process(node: LocalNode) -> tuple[str, int]:
    """Return the state and the CPU time of a node's process."""
    stat = Path(f"/proc/{node.pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[11]) + int(fields[12])
