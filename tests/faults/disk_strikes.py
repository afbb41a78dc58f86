# SPDX-License-Identifier: Apache-2.0
"""
Disk faults: power cuts, full disks, failing and slow syncs.

A small library in the nodes' processes lets system calls fail or take longer, for all
files or only for one.
"""

import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from errno import EIO
from typing import Any

from local_cluster.cluster import LocalNode

from tests.faults.disk_faults import Calls, DiskFaults
from tests.faults.disks import Lost
from tests.faults.striker import Proof, Striker, names

STOPPED_S = 10.0
"""How long a node may take to stop after its disk fails; it runs a checkpoint every 5 s."""
SNAPSHOT_S = 60.0
"""How long a primary may take until its next snapshot, on a slow disk."""
SNAPSHOT_TRIES = 3
SNAPSHOT_DELAY_S = 2
"""Longer than an election timeout: the thread of the engine must not wait for it."""
_WAL = "state.db-wal"
_SNAPSHOT = "journal/snapshot.written"
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
        disks = [self._site.disk(node) for node in nodes]
        archives = [self._site.archives[self._site.place(node)] for node in nodes]
        with ExitStack() as slow:
            for node in nodes:
                slow.enter_context(self._inject(node, Calls.SYNCS, before_us=200_000))
            self._last(0.5, 1.5)
            for node in nodes:
                self._site.signal(node, signal.SIGSTOP)
            for disk in (*disks, *archives):
                disk.cut_power()
            for node in nodes:
                self.down.add(node.node_id)
                node.kill()
        self._last(0.5, 1.5)
        lost = [disk.restore_power() for disk in disks]
        for disk in archives:
            disk.restore_power()
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
        disk = self._site.disk(node)
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
        with self._inject(node, Calls.SYNCS, error=EIO) as faults:
            stopped_s = self._until_stopped(node)
            count = faults.hits().count
        words = f"{count} syncs failed with EIO"
        return self._stopped(node, words, stopped_s, bit=count > 0)

    # --- Errors of the state's write-ahead log alone

    def wal_error_primary(self) -> Proof:
        return self._wal_error(self._primary())

    def wal_error_replica(self) -> Proof:
        return self._wal_error(self._replica())

    def _wal_error(self, node: LocalNode) -> Proof:
        """Let all syncs or all writes of the write-ahead log fail, and no others."""
        calls = self._chance.choice([Calls.SYNCS, Calls.WRITES])
        with self._inject(node, calls, error=EIO, file=_WAL) as faults:
            stopped_s = self._until_stopped(node)
            count = faults.hits().count
        words = f"{count} {calls.name.lower()} of the WAL alone failed with EIO"
        return self._stopped(node, words, stopped_s, bit=count > 0)

    def wal_error_once(self) -> Proof:
        """
        Let one sync of the write-ahead log fail, then cut the power.

        Linux may report success for the next sync although the pages are lost. So a
        node must not count on anything after the error.
        """
        node = self._chance.choice(self._site.nodes)
        disk = self._site.disk(node)
        with self._inject(node, Calls.SYNCS, error=EIO, times=1, file=_WAL) as faults:
            stopped_s = self._until_stopped(node)
            count = faults.hits().count
        words = f"{count} sync of the WAL failed with EIO, the later ones did not"
        proof = self._stopped(node, words, stopped_s, bit=count > 0)
        disk.cut_power()
        lost = disk.restore_power()
        return replace(
            proof,
            words=f"{proof.words}; then a power cut: {disk.filesystem} lost"
            f" {_lost(lost)}",
        )

    # --- Slow disks

    def slow_disks(self) -> Proof:
        """Slow down every sync of all nodes."""
        delay_ms = self._chance.choice([20, 50, 100])
        with ExitStack() as slow:
            injected = [
                slow.enter_context(
                    self._inject(node, Calls.SYNCS, after_us=1000 * delay_ms)
                )
                for node in self._site.nodes
            ]
            seconds = self._last(3, 5)
            counts = [faults.hits().count for faults in injected]
        return Proof(
            all(counts),
            f"{counts} syncs of all nodes took {delay_ms} ms more, for {seconds:.1f} s",
        )

    def slow_snapshot(self) -> Proof:
        """
        Slow down the sync of the primary's next snapshot, and no others.

        It remains the primary, because the engine does not wait for that sync. On a
        busy machine a primary may be lost for another reason, so there are more tries.
        """
        words = ""
        for _ in range(SNAPSHOT_TRIES):
            node = self._primary()
            begin_s = self._delay_snapshot(node)
            if begin_s is None:
                words = f"{node.node_id} (primary) took no snapshot"
                return Proof(bit=False, words=words)
            time.sleep(SNAPSHOT_DELAY_S + 1)
            words = (
                f"the sync of a snapshot of {node.node_id} (primary) took"
                f" {SNAPSHOT_DELAY_S} s more"
            )
            changes = self._site.moments("primary_changed")
            if not any(0 < at_s - begin_s < SNAPSHOT_DELAY_S + 0.5 for at_s in changes):
                return Proof(bit=True, words=f"{words}; it remained the primary")
        failure = f"{SNAPSHOT_TRIES} primaries of {SNAPSHOT_TRIES} lost their terms"
        return Proof(bit=True, words=words, failure=failure)

    def _delay_snapshot(self, node: LocalNode) -> float | None:
        """Slow down the next sync of a snapshot; return the Unix time of its beginning."""
        delay_us = SNAPSHOT_DELAY_S * 1_000_000
        begin = time.monotonic()
        with self._inject(
            node, Calls.SYNCS, before_us=delay_us, times=1, file=_SNAPSHOT
        ) as faults:
            while not faults.hits().count:
                if time.monotonic() > begin + SNAPSHOT_S:
                    return None
                time.sleep(0.05)
            return faults.hits().first_s

    def slow_sync(self) -> Proof:
        node = self._chance.choice(self._site.nodes)
        delay_ms = self._chance.choice([50, 200, 500])
        with self._inject(node, Calls.SYNCS, after_us=1000 * delay_ms) as faults:
            seconds = self._last(3, 5)
            count = faults.hits().count
        return Proof(
            count > 0,
            f"{count} syncs of {node.node_id} took {delay_ms} ms more, for {seconds:.1f} s",
        )

    def _inject(
        self, node: LocalNode, calls: Calls, **what: Any
    ) -> AbstractContextManager[DiskFaults]:
        return self._site.faults(node).inject(calls, **what)

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
    return (
        f"{lost.journal} bytes of the journal, {lost.store} of the store, {lost.told} of"
        " the file of events"
    )
