# SPDX-License-Identifier: Apache-2.0
"""Three real nodes, each with its own network, disk and clock."""

import os
import re
import shutil
import signal
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from local_cluster.cluster import LocalCluster, LocalNode, Ports
from local_cluster.setup import set_up

from tests.faults import protocols
from tests.faults.armed_points import ArmedPoints
from tests.faults.clocks import NodeClock
from tests.faults.disk_faults import DiskFaults, build
from tests.faults.disks import FILESYSTEMS, Disk, remove_leftovers
from tests.faults.network import Network, address_of, inside
from tests.faults.receivers import write_files

NODES = 3
SHORT_LOG = {"log_entries_max": 600, "log_entries_kept": 100}
"""Logs are compacted all the time, so a node that was away for long needs a snapshot."""
SEGMENT_EVENTS = 500
"""Events of a sealed segment of the audit log: a run of minutes has many."""
READY_S = 60.0
"""How long a node may take until it serves again without help."""

TOOLS = {
    "gcc": "gcc",
    "iptables": "iptables",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "nft": "nftables",
    "xfs_io": "xfsprogs",
}


class SiteError(Exception):
    """The campaign cannot run here; the message says why."""


def check_machine() -> None:
    """Raise `SiteError` unless this machine has what a campaign needs."""
    if os.geteuid():
        raise SiteError("make faults needs root for network namespaces and mounts")
    missing = {package for tool, package in TOOLS.items() if not shutil.which(tool)}
    if missing:
        raise SiteError(
            f"not installed: {', '.join(sorted(missing))}; run `make system-packages`"
        )


class Site:
    """The cluster of one campaign, with its networks, disks and clocks."""

    def __init__(
        self, directory: Path, filesystems: Sequence[str] = FILESYSTEMS
    ) -> None:
        self._directory = directory
        names = [f"n{number}" for number in range(1, NODES + 1)]
        self.network = Network(names)
        self._clocks: dict[str, NodeClock] = {}
        self._faults: dict[str, DiskFaults] = {}
        self.disks = {
            name: Disk(
                directory / f"{name}.image",
                directory / "cluster" / name / "data",
                filesystems[number % len(filesystems)],
            )
            for number, name in enumerate(names)
        }
        self.archives = {
            name: Disk(
                directory / f"{name}.archive.image",
                directory / "cluster" / name / "archive",
                disk.filesystem,
            )
            for name, disk in self.disks.items()
        }
        """The disks of the archives of the audit log, one for each node."""
        self.points = ArmedPoints(directory)
        self.starts = 0
        """The number of restarts."""
        self._cluster: LocalCluster | None = None
        self._ids = NODES

    @property
    def cluster(self) -> LocalCluster:
        """The cluster, once it is set up."""
        assert self._cluster is not None
        return self._cluster

    @property
    def _all_disks(self) -> list[Disk]:
        return [*self.disks.values(), *self.archives.values()]

    @staticmethod
    def place(node: LocalNode) -> str:
        """Return the namespace of a node: its machine, whatever its id is by now."""
        return node.directory.name

    def disk(self, node: LocalNode) -> Disk:
        """Return the disk of a node."""
        return self.disks[self.place(node)]

    def disks_of(self, node: LocalNode) -> tuple[Disk, Disk]:
        """Return the disk of a node and that of its archive: one power cut ends both."""
        return self.disks[self.place(node)], self.archives[self.place(node)]

    def archive(self, node: LocalNode) -> Path:
        """Return the folder of a node's archive."""
        return self.archives[self.place(node)].mountpoint

    def faults(self, node: LocalNode) -> DiskFaults:
        """Return the faults of a node's system calls."""
        return self._faults[self.place(node)]

    @property
    def nodes(self) -> list[LocalNode]:
        """The nodes of the cluster."""
        return self.cluster.nodes

    def __enter__(self) -> Self:
        self.network.down()  # Its processes first: they hold the mounts.
        remove_leftovers(self._directory)
        self._directory.mkdir(parents=True)
        try:
            self.network.up()
            for disk in self._all_disks:
                disk.make()
            self._cluster = set_up(
                self._directory / "cluster",
                testing=True,
                raft=SHORT_LOG,
                ports=[
                    Ports(host=address_of(number), agents=7300, peers=7301, admin=7304)
                    for number in range(1, NODES + 1)
                ],
            )
            library = build(self._directory)
            for node in self.nodes:
                protocols.serve(node, self.cluster)
                write_files(node)
                self._write_archive(node)
                node.launcher = inside(node.node_id)
                self._clocks[self.place(node)] = NodeClock(node, self._directory)
                node.environment["SPARECODE_FAULTS_SEGMENT_EVENTS"] = str(
                    SEGMENT_EVENTS
                )
                self.points.equip(node, self.place(node))
                self._faults[self.place(node)] = DiskFaults(
                    node, library, self._directory
                )
            for node in self.nodes:
                node.start()
            self.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._cluster is not None:
            self._cluster.kill()
        self.network.hurry()
        for disk in self._all_disks:
            if disk.mountpoint.is_mount():
                disk.unmount()
            disk.image.unlink(missing_ok=True)
        self.network.down()

    def _write_archive(self, node: LocalNode) -> None:
        """Let a node copy its audit log to its archive. Before it starts."""
        setting = f'\n[audit]\narchive = "{self.archive(node)}"\n'
        node.config.write_text(node.config.read_text() + setting)

    # --- Processes -----------------------------------------------------------

    def start(self, node: LocalNode) -> None:
        """Start a node again if it is not running."""
        if not node.running:
            node.kill()  # Drops the ended process.
            node.start()
            self.starts += 1

    def ready(self, *nodes: LocalNode, timeout_s: float = READY_S) -> None:
        """
        Return when these nodes, or all nodes, serve.

        Raises:
            LocalClusterError: A node was not ready in time; with the end of its log.
        """
        self.cluster.wait_ready(*nodes, timeout_s=timeout_s)

    def majority_ready(self, timeout_s: float = READY_S) -> None:
        """Return when a majority of the nodes serves. Raises `LocalClusterError`."""
        self.cluster.wait_majority(timeout_s=timeout_s)

    def unused_id(self) -> str:
        """Return an id that no node has had."""
        self._ids += 1
        return f"n{self._ids}"

    def signal(self, node: LocalNode, number: signal.Signals) -> None:
        """Send a signal to the process of a node."""
        assert node.pid is not None
        os.kill(node.pid, number)

    # --- Logs of the nodes

    def bugs(self) -> int:
        """Return the number of calls that failed because of a bug, by the nodes' logs."""
        return sum(
            node.log.read_text(errors="replace").count("call failed by a bug")
            for node in self.nodes
        )

    def count(self, event: str) -> int:
        """Return how often an event is in the logs of all nodes."""
        return sum(
            len(re.findall(rf" {event}\b", node.log.read_text(errors="replace")))
            for node in self.nodes
        )

    def moments(self, event: str, *nodes: LocalNode) -> list[float]:
        """Return the Unix times of an event, from the logs of these nodes or of all."""
        return [
            datetime.fromisoformat(time).timestamp()
            for node in nodes or self.nodes
            for time in re.findall(
                rf"^(\S+)\s+\S+\s+{event}\b",
                node.log.read_text(errors="replace"),
                re.MULTILINE,
            )
        ]

    def values(self, node: LocalNode, event: str, field: str) -> list[int]:
        """Return the values of a field of an event in a node's log."""
        text = node.log.read_text(errors="replace")
        return [
            int(value) for value in re.findall(rf" {event}\b.* {field}=(\d+)", text)
        ]

    def count_values(self, event: str, field: str) -> int:
        """Return how often an event with this field is in the logs of all nodes."""
        return sum(len(self.values(node, event, field)) for node in self.nodes)

    # --- The clock -----------------------------------------------------------

    def set_clock(self, node: LocalNode, offset_s: int) -> None:
        """Shift the clock of a running node, at once."""
        self._clocks[self.place(node)].set(offset_s)
