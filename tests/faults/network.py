# SPDX-License-Identifier: Apache-2.0
"""
A separate network for every node, and a bridge between them that can be cut.

Each node, the bridge and the clients have their own network namespace, so the network
of this machine is not affected. Cuts are made at the bridge, per direction. The
bridge counts dropped packets, which proves that a cut had an effect.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

PREFIX = "sparecode-faults-"
BRIDGE = f"{PREFIX}bridge"
CLIENTS = "clients"
CLIENTS_ADDRESS = "10.199.0.100"
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x4000_0000
BURST = "64 kbytes"
"""What may pass at once through a throttled link."""
_DELAYED = "10.199.0.0/27"
"""The addresses of the nodes, without the clients."""


class ToolError(Exception):
    """A tool failed; the message has its command and output."""


def run(*command: str) -> str:
    """Run a tool; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


def inside(place: str) -> tuple[str, ...]:
    """Return the prefix of a command that runs in the network of *place*."""
    return ("nsenter", f"--net={_NAMESPACES / (PREFIX + place)}", "--")


def address_of(node: int) -> str:
    """Return the address of a node by its number, from 1."""
    return f"10.199.0.{node}"


class Network:
    """The namespaces of one campaign, named by node ids."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = tuple(nodes)
        self._queues: list[subprocess.Popen[str]] = []

    def up(self) -> None:
        """Create all namespaces, and move this process to the clients."""
        self.down()
        run("ip", "netns", "add", BRIDGE)
        run("ip", "-n", BRIDGE, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", BRIDGE, "link", "set", "br0", "up")
        for number, node in enumerate(self._nodes, start=1):
            self._attach(node, address_of(number))
        self._attach(CLIENTS, CLIENTS_ADDRESS)
        _enter(PREFIX + CLIENTS)

    def _attach(self, place: str, address: str) -> None:
        name = PREFIX + place
        run("ip", "netns", "add", name)
        run(
            *("ip", "-n", BRIDGE, "link", "add", f"to-{place}", "type", "veth"),
            *("peer", "name", "eth0", "netns", name),
        )
        run("ip", "-n", BRIDGE, "link", "set", f"to-{place}", "master", "br0", "up")
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")

    def down(self) -> None:
        """Remove all namespaces and their processes, even of a crashed campaign."""
        for namespace in _namespaces():
            for pid in run("ip", "netns", "pids", namespace).split():
                # Every process in these namespaces was started by a campaign.
                if int(pid) != os.getpid():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "delete", namespace)

    # --- Cuts ----------------------------------------------------------------

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Drop all packets from the first to the second of each pair."""
        self._rules(
            f"iifname to-{source} oifname to-{target} counter drop"
            for source, target in pairs
        )

    def isolate(self, node: str) -> None:
        """Cut a node off from the others in both directions; clients still reach it."""
        others = [each for each in self._nodes if each != node]
        self.cut(pair for other in others for pair in ((node, other), (other, node)))

    def lose(self, percent: int) -> None:
        """Drop *percent* of all packets, between nodes and clients too."""
        self._rules([f"numgen random mod 100 < {percent} counter drop"])

    def throttle(self, node: str, kilobytes_per_s: int) -> None:
        """Drop what the other nodes send to a node beyond this rate."""
        others = ", ".join(f"to-{each}" for each in self._nodes if each != node)
        limit = f"limit rate over {kilobytes_per_s} kbytes/second burst {BURST}"
        rule = f"iifname {{ {others} }} oifname to-{node} {limit} counter drop"
        self._rules([rule])

    def _rules(self, rules: Iterable[str]) -> None:
        lines = [
            "add table bridge faults",
            "add chain bridge faults cuts { type filter hook forward priority 0; }",
            *(f"add rule bridge faults cuts {rule}" for rule in rules),
        ]
        self._nft(*lines)

    def heal(self) -> int:
        """Remove all cuts; return the number of dropped packets."""
        try:
            listed = run(
                *("nsenter", f"--net={_NAMESPACES / BRIDGE}", "--"),
                *("nft", "-j", "list", "table", "bridge", "faults"),
            )
        except ToolError:
            return 0  # Nothing is cut.
        self._nft("delete table bridge faults")
        return sum(
            statement["counter"]["packets"]
            for entry in json.loads(listed)["nftables"]
            for statement in entry.get("rule", {}).get("expr", ())
            if "counter" in statement
        )

    def _nft(self, *lines: str) -> None:
        namespace = _NAMESPACES / BRIDGE
        run("nsenter", f"--net={namespace}", "--", "nft", "; ".join(lines))

    # --- Delay ---------------------------------------------------------------

    def delay(self, delay_ms: int, jitter_ms: int) -> None:
        """Delay packets between nodes by *delay_ms* plus a random part of *jitter_ms*."""
        for node in self._nodes:
            self._queue_rule(node, "-I")
            self._queues.append(
                subprocess.Popen(
                    [
                        *(*inside(node), sys.executable, "-m", "tests.faults.delay"),
                        *(str(delay_ms), str(jitter_ms)),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )

    def hurry(self) -> int:
        """End the delay; return the number of delayed packets."""
        held = 0
        for node, queue in zip(self._nodes, self._queues, strict=False):
            self._queue_rule(node, "-D")
            output, _ = queue.communicate(
                timeout=10
            )  # Closes its input, which ends it.
            held += int(output or 0)
        self._queues = []
        return held

    def _queue_rule(self, node: str, action: str) -> None:
        run(
            *(*inside(node), "iptables", action, "INPUT", "-s", _DELAYED),
            *("-j", "NFQUEUE", "--queue-num", "1", "--queue-bypass"),
        )


def _namespaces() -> list[str]:
    if not _NAMESPACES.is_dir():
        return []
    return [path.name for path in _NAMESPACES.iterdir() if path.name.startswith(PREFIX)]


def _enter(namespace: str) -> None:
    """Move this process to a namespace, before its threads start: they inherit it."""
    libc = ctypes.CDLL(None, use_errno=True)
    file: IO[bytes]
    with (_NAMESPACES / namespace).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), namespace)
