# SPDX-License-Identifier: Apache-2.0
"""
Nodes on this machine: each is a process with a folder.

`setup.set_up` makes a cluster; this module starts, watches, kills and stops it.
"""

import atexit
import collections
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HOST = "127.0.0.1"
ADMINISTRATOR = "admin"
AGENT = "vpn"
READY = "sparecode.ready"
STOP_S = 20
"""Seconds to wait for a node to stop; a node gives itself 15."""


class LocalClusterError(Exception):
    """The cluster could not be set up or did not come up; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of one node."""

    agents: int
    peers: int
    admin: int
    metrics: int = 0
    """0: the node serves no metrics."""
    console: int = 0
    """0: the node serves no console."""
    radius: int = 0
    """A UDP port. 0: the node serves no RADIUS."""
    http: int = 0
    """0: the node serves no agents by HTTP."""
    host: str = HOST


PORTS = range(20_000, 32_000)
"""For nodes. Outgoing connections use ports from 32768 on (ip_local_port_range)."""


_HELD: collections.deque[socket.socket] = collections.deque()
_HELD_MAX = 256
"""A process has some thousand files at most, and its nodes need most of them."""


def free_ports(count: int) -> list[int]:
    """
    Return different ports that no process listens on, and that no other call returns.

    They lie outside the range of outgoing connections: such a connection could
    take the port before the node does, or while the node is down. And they stay bound,
    which keeps other processes that look for a port away, but no node that listens.
    """
    ports = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(ports) == count:
            break
        if hold(port):
            ports.append(port)
    return ports


def hold(port: int) -> bool:
    """
    Bind a port and do not listen; return False if another process has it.

    Programs that set `SO_REUSEADDR` before they listen, as servers do, still get it.
    """
    held = socket.socket()
    try:
        held.bind(
            (HOST, port)
        )  # Fails if the port is held, too, so set the option later.
    except OSError:
        held.close()
        return False
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _HELD.append(held)
    while len(_HELD) > _HELD_MAX:
        _HELD.popleft().close()
    return True


@atexit.register
def _release() -> None:
    while _HELD:
        _HELD.popleft().close()


def is_taken(port: int, *, udp: bool = False) -> bool:
    """Return whether a process listens on the port of TCP, or of UDP."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(type=kind) as probe:
        if not udp:
            # Lets it bind despite old connections of a node that has stopped.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def environment(*, testing: bool) -> dict[str, str]:
    """Return the environment of a node; only tests may use cheap hashing."""
    return {**os.environ, **({"SPARECODE_TESTING": "1"} if testing else {})}


class LocalNode:
    """One node: its folder, its ports and, while it runs, its process."""

    def __init__(
        self, node_id: str, directory: Path, ports: Ports, *, testing: bool
    ) -> None:
        self.node_id = node_id
        self.directory = directory
        self.ports = ports
        self.environment = environment(testing=testing)
        self.launcher: tuple[str, ...] = ()
        """Put before its command, so that a test can run it in a separate network."""
        self.python = sys.executable
        """The Python with the software installed: a test may run an earlier release."""
        self.own_session = True
        """If false, it shares its parent's session, and Linux compares priorities across both."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def config(self) -> Path:
        """The node's `node.toml`."""
        return self.directory / "node.toml"

    @property
    def log(self) -> Path:
        """The file with the node's output."""
        return self.directory / "node.log"

    @property
    def key_ring(self) -> Path:
        """The node's copy of the cluster's key ring."""
        return self.directory / "keyring.json"

    @property
    def agents_address(self) -> str:
        """The address of the listener for agents."""
        return f"{self.ports.host}:{self.ports.agents}"

    @property
    def admin_address(self) -> str:
        """The address of the listener for administrators and operators."""
        return f"{self.ports.host}:{self.ports.admin}"

    @property
    def console_url(self) -> str:
        """The URL of the node's Security Console."""
        return f"https://{self.ports.host}:{self.ports.console}"

    @property
    def radius_address(self) -> str:
        """The address of the RADIUS listener."""
        return f"{self.ports.host}:{self.ports.radius}"

    @property
    def http_url(self) -> str:
        """The URL at which agents call by HTTP."""
        return f"https://{self.ports.host}:{self.ports.http}"

    @property
    def peers_address(self) -> str:
        """The address of the listener for other nodes."""
        return f"{self.ports.host}:{self.ports.peers}"

    @property
    def metrics_address(self) -> str:
        """The address of the listener for Prometheus and probes."""
        return f"{self.ports.host}:{self.ports.metrics}"

    @property
    def pid(self) -> int | None:
        """The process id, or None once the process was stopped or killed."""
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, if the process ended by itself."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; the node is ready some time later."""
        if self.running:
            return
        self._log = self.log.open("ab")
        self._process = subprocess.Popen(
            [
                *self.launcher,
                self.python,
                "-m",
                "sparecode_node",
                "--config",
                str(self.config),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self.environment,
            # Ctrl-C goes to the parent only, which then stops the nodes.
            start_new_session=self.own_session,
            process_group=None if self.own_session else 0,
        )

    def _signal(self, number: signal.Signals, timeout_s: float) -> int | None:
        """Send a signal that ends the process; return the exit code."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(timeout=timeout_s)
        code = self._process.returncode
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        return code

    def wait(self, *, timeout_s: float) -> int:
        """Wait for the process to end by itself; return the exit code."""
        if self._process is None:
            message = f"{self.node_id} is not running"
            raise LocalClusterError(message)
        return self._process.wait(timeout=timeout_s)

    def kill(self) -> None:
        """End the process at once, as `kill -9` does."""
        self._signal(signal.SIGKILL, timeout_s=10)

    def stop(self) -> int | None:
        """Stop the process, and kill it if that takes too long; return the exit code."""
        try:
            return self._signal(signal.SIGTERM, timeout_s=STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def last_words(self, lines: int = 12) -> str:
        """Return the end of the node's output, for an error message."""
        if not self.log.exists():
            return "(no output)"
        return "\n".join(
            self.log.read_text(errors="replace").splitlines()[-lines:],
        )


class LocalCluster:
    """The nodes of one folder, with certificates, keys and an administrator."""

    def __init__(
        self, directory: Path, nodes: list[LocalNode], *, testing: bool
    ) -> None:
        self.directory = directory
        self.nodes = nodes
        self.testing = testing

    @classmethod
    def load(cls, directory: Path) -> "LocalCluster":
        """Return the cluster that was set up in *directory*."""
        description = json.loads((directory / "cluster.json").read_text())
        nodes = [
            LocalNode(
                name,
                directory / name,
                Ports(**ports),
                testing=description["testing"],
            )
            for name, ports in description["nodes"].items()
        ]
        return cls(directory, nodes, testing=description["testing"])

    # --- What clients need ---------------------------------------------------

    @property
    def certificates(self) -> Path:
        """The folder of certificates and their authorities."""
        return self.directory / "certificates"

    @property
    def members_ca(self) -> Path:
        """The certificate authority of the nodes."""
        return self.certificates / "members-ca.pem"

    @property
    def password_file(self) -> Path:
        """The first administrator's password, mode 0600."""
        return self.directory / "administrator.password"

    @property
    def password(self) -> str:
        """The first administrator's password."""
        return self.password_file.read_text().strip()

    @property
    def radius_secret_file(self) -> Path:
        """The shared secret of the story's RADIUS client, mode 0600."""
        return self.directory / "radius.secret"

    def node(self, node_id: str) -> LocalNode:
        """Return the node with this id."""
        return next(node for node in self.nodes if node.node_id == node_id)

    # --- Running the cluster ----------------------------------------------------------

    def start(self, *, timeout_s: float = 60) -> None:
        """Start every node and return when all are ready."""
        self.check_ports()
        for node in self.nodes:
            node.start()
        self.wait_ready(timeout_s=timeout_s)
        self._wait_begun(timeout_s)

    def _wait_begun(self, timeout_s: float) -> None:
        """Return when the first administrator can sign in."""
        beginning = self.nodes[0].directory / "data/bootstrap.json"
        deadline = time.monotonic() + timeout_s
        while beginning.exists():
            if time.monotonic() > deadline:
                message = f"the cluster did not start:\n{self.nodes[0].last_words()}"
                raise LocalClusterError(message)
            time.sleep(0.05)

    def check_ports(self) -> None:
        """
        Check that no other process has the ports of the nodes that are stopped.

        It may be the same cluster, run from another terminal: its nodes would
        answer in place of these. Raises `LocalClusterError`.
        """
        for node in self.nodes:
            for name in (
                "agents",
                "peers",
                "admin",
                "metrics",
                "console",
                "http",
                "radius",
            ):
                port, udp = getattr(node.ports, name), name == "radius"
                if port and not node.running and is_taken(port, udp=udp):
                    options = "-lunp" if udp else "-ltnp"
                    message = (
                        f"port {port} of {node.node_id} ({name}) is taken. Perhaps "
                        "this cluster is running in another terminal: stop it there first "
                        f"(`ss {options} 'sport = :{port}'` names the process)."
                    )
                    raise LocalClusterError(message)

    def stop(self) -> None:
        """Stop every node."""
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        """Kill every node."""
        for node in self.nodes:
            node.kill()

    def wait_ready(
        self, *nodes: LocalNode, timeout_s: float = 60, poll_s: float = 0.1
    ) -> None:
        """Return when these nodes, or all, report that they are ready to serve."""
        deadline = time.monotonic() + timeout_s
        for node in nodes or self.nodes:
            while not (self._is_ready(node) and node.running):
                if not node.running:
                    message = f"{node.node_id} stopped:\n{node.last_words()}"
                    raise LocalClusterError(message)
                if time.monotonic() > deadline:
                    message = (
                        f"{node.node_id} was not ready within {timeout_s:.0f} s:\n"
                        f"{node.last_words()}"
                    )
                    raise LocalClusterError(message)
                time.sleep(poll_s)

    def wait_majority(self, *, timeout_s: float = 60, poll_s: float = 0.1) -> None:
        """Return when more than half of the nodes report that they are ready to serve."""
        deadline = time.monotonic() + timeout_s
        while 2 * sum(map(self._is_ready, self.nodes)) <= len(self.nodes):
            if time.monotonic() > deadline:
                raise LocalClusterError(
                    f"no majority of the nodes was ready within {timeout_s:.0f} s"
                )
            time.sleep(poll_s)

    def _is_ready(self, node: LocalNode) -> bool:
        credentials = grpc.ssl_channel_credentials(self.members_ca.read_bytes())
        with grpc.secure_channel(node.admin_address, credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(
                    health_pb2.HealthCheckRequest(service=READY), timeout=2
                )
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
