# SPDX-License-Identifier: Apache-2.0
"""Disk faults: power cuts, full disks, failing and slow syncs."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from local_cluster.cluster import LocalNode

from tests.faults.disks import Lost
from tests.faults.striker import Proof, Striker, names

STOPPED_S = 6.0
"""How long a node may take to stop after its disk fails."""
FATAL = 70
"""The exit code of a node that stopped because it is broken."""


class DiskStrikes(Striker):
    """All disk faults."""

    def power_one(self) -> Proof:
        return self._power([self._chance.choice(self._site.nodes)])

    def power_primary(self) -> Proof:
        return self._power([self._primary()])

    def power_all(self) -> Proof:
        return self._power(self._site.nodes)

    def _power(self, nodes: Sequence[LocalNode]) -> Proof:
        """
        Cut the power of nodes: pause them, drop unsynced data, kill them.

        Their syncs are slowed down first, so that there is unsynced data to lose.
        """
        disks = [self._site.disks[node.node_id] for node in nodes]
        with ExitStack() as slow:
            for node in nodes:
                slow.enter_context(self._inject(node, "delay_enter=200000"))
            self._last(0.5, 1.5)
            for node in nodes:
                self._site.signal(node, signal.SIGSTOP)
            for disk in disks:
                disk.cut_power()
            for node in nodes:
                self.down.add(node.node_id)
                node.kill()
        self._last(0.5, 1.5)
        lost = [disk.restore_power() for disk in disks]
        return Proof(
            any(each.total for each in lost),
            f"power cut of {names(nodes)}: "
            + "; ".join(
                f"{disk.filesystem} lost {_lost(each)}"
                for disk, each in zip(disks, lost, strict=True)
            ),
        )

    def full_disk(self) -> Proof:
        node = self._chance.choice(self._site.nodes)
        disk = self._site.disks[node.node_id]
        disk.fill()
        try:
            stopped_s = self._until_stopped(node)
        finally:
            disk.free()
        return self._stopped(node, f"{disk.filesystem} full", stopped_s)

    def sync_error_primary(self) -> Proof:
        return self._sync_error(self._primary())

    def sync_error_replica(self) -> Proof:
        return self._sync_error(self._replica())

    def _sync_error(self, node: LocalNode) -> Proof:
        with self._inject(node, "error=EIO") as injected:
            stopped_s = self._until_stopped(node)
            count = injected()
        words = f"{count} syncs failed with EIO"
        return self._stopped(node, words, stopped_s, bit=count > 0)

    def slow_sync(self) -> Proof:
        node = self._chance.choice(self._site.nodes)
        delay_ms = self._chance.choice([50, 200, 500])
        with self._inject(node, f"delay_exit={1000 * delay_ms}") as injected:
            seconds = self._last(3, 5)
            count = injected()
        return Proof(
            count > 0,
            f"{count} syncs of {node.node_id} took {delay_ms} ms more, for {seconds:.1f} s",
        )

    @contextmanager
    def _inject(self, node: LocalNode, what: str) -> Iterator[Callable[[], int]]:
        """Apply *what* to every sync of a node; yield a counter of these syncs."""
        log = node.directory / "strace.log"
        log.write_text("")
        tracer = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-o", str(log), "-p", str(node.pid)),
                *("-e", "trace=fsync,fdatasync"),
                *("-e", f"inject=fsync,fdatasync:{what}"),
            ],
            stderr=subprocess.DEVNULL,
        )

        def injected() -> int:
            text = log.read_text(errors="replace")
            return text.count("(INJECTED)") + text.count("(DELAYED)")

        try:
            yield injected
        finally:
            tracer.terminate()
            tracer.wait(timeout=10)

    def _until_stopped(self, node: LocalNode) -> float | None:
        """Return after how many seconds a node stopped by itself, or None."""
        begin = time.monotonic()
        while time.monotonic() < begin + STOPPED_S:
            if not node.running:
                return time.monotonic() - begin
            time.sleep(0.02)
        return None

    def _stopped(
        self,
        node: LocalNode,
        words: str,
        stopped_s: float | None,
        *,
        bit: bool = True,
    ) -> Proof:
        self.down.add(node.node_id)
        if stopped_s is None:
            return Proof(bit=False, words=f"{node.node_id}: {words}, and it continued")
        code = node.exit_code
        self._last(0.5, 1)
        return Proof(
            bit and code == FATAL,
            f"{node.node_id}: {words}; it stopped itself after {stopped_s:.1f} s "
            f"with exit code {code}",
        )


def _lost(lost: Lost) -> str:
    return f"{lost.journal} bytes of the journal, {lost.store} of the store"
