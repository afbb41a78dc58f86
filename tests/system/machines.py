# SPDX-License-Identifier: Apache-2.0
"""Machines with nothing on them but a `node.toml`, and an operator with two commands."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster.cluster import (
    ADMINISTRATOR,
    LocalCluster,
    LocalNode,
    Ports,
    free_ports,
)

PASSWORD = "correct horse battery staple"
CONFIRM = "confirm that it is you"
"""Words of a refusal that needs the password again (P7)."""

_TOML = """\
[node]
id = "{id}"
data_dir = "data"
[agents]
listen = "{agents}"
certificate = "tls/node.pem"
key = "tls/node.key"
ca = "tls/agents-ca.pem"
[peers]
listen = "{peers}"
certificate = "tls/node.pem"
key = "tls/node.key"
ca = "tls/members-ca.pem"
[admin]
listen = "{admin}"
certificate = "tls/node.pem"
key = "tls/node.key"
[metrics]
listen = "{metrics}"
[cluster.members]
{id} = "{peers}"
[keys]
file = "keyring.json"
[kdf]
profile = "testing"
[log]
format = "json"
level = "debug"
"""


PATIENCE_S = 120.0


def until(condition: Callable[[], object]) -> None:
    """Return as soon as *condition* holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


@dataclass
class Site:
    """A folder with a machine for each node; nothing is copied between them by hand."""

    directory: Path
    machines: dict[str, LocalNode] = field(default_factory=dict)

    def machine(self, node_id: str, folder: str = "") -> LocalNode:
        """Return a new machine with a node.toml."""
        directory = self.directory / (folder or node_id)
        directory.mkdir()
        agents, peers, admin, metrics = free_ports(4)
        machine = LocalNode(
            node_id,
            directory,
            Ports(agents=agents, peers=peers, admin=admin, metrics=metrics),
            testing=True,
        )
        machine.config.write_text(
            _TOML.format(
                id=node_id,
                agents=machine.agents_address,
                peers=machine.peers_address,
                admin=machine.admin_address,
                metrics=machine.metrics_address,
            )
        )
        self.machines[folder or node_id] = machine
        return machine

    def start_cluster(self) -> LocalNode:
        """Begin a cluster on its first machine, and sign in."""
        first = self.machine("n1")
        password = self.directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        made = self.node(
            first,
            "init",
            "--new-authority",
            "--host=127.0.0.1",
            f"--administrator={ADMINISTRATOR}",
            f"--password-file={password}",
        )
        assert made.returncode == 0, made.stderr
        first.start()
        until(lambda: self.sign_in().returncode == 0)
        return first

    def join(
        self, machine: LocalNode, *options: str
    ) -> subprocess.CompletedProcess[str]:
        """Create a ticket and let the machine join with it; it is not started."""
        ticket = self.ticket(machine, *options)
        return self.node(machine, "init", f"--join={ticket}")

    def ticket(self, machine: LocalNode, *options: str) -> str:
        """Return a new ticket for a machine."""
        made = self.admin(
            "cluster", "ticket", machine.node_id, machine.peers_address, *options
        )
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def node(
        self, machine: LocalNode, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `sparecode-node` on a machine."""
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "sparecode_node",
                "--config",
                machine.config,
                *arguments,
            ],
            env=machine.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def admin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run `sparecode` as the operator; any node that runs will do.

        A session that showed its password too long ago signs in again (P7).
        """
        result = self._admin(*arguments)
        if CONFIRM not in " ".join(result.stderr.split()):
            return result
        self.sign_in()
        return self._admin(*arguments)

    def sign_in(self) -> subprocess.CompletedProcess[str]:
        """Sign in as the operator."""
        password = self.directory / "password"
        return self._admin("login", ADMINISTRATOR, f"--password-file={password}")

    def _admin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        running = [
            each.admin_address for each in self.machines.values() if each.running
        ]
        return subprocess.run(
            [
                sys.executable,
                "-c",
                "from sparecode_client.cli import main; main()",
                *arguments,
            ],
            env={
                **os.environ,
                "COLUMNS": "80",
                "SPARECODE_NODES": ",".join(running),
                "SPARECODE_CA": str(self.members_ca),
                "SPARECODE_SESSION_FILE": str(self.directory / "session"),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def members_ca(self) -> Path:
        """The authority of all nodes; an operator has its certificate."""
        return self.directory / "n1/tls/members-ca.pem"

    def kill(self) -> None:
        """End every process."""
        for machine in self.machines.values():
            machine.kill()


class OneMachine(LocalCluster):
    """A machine with a node in one folder, and an administrator's password."""

    def __init__(self, machine: LocalNode, password_file: Path) -> None:
        super().__init__(machine.directory, [machine], testing=True)
        self._password_file = password_file

    @property
    def certificates(self) -> Path:
        return self.directory / "tls"

    @property
    def password_file(self) -> Path:
        return self._password_file
