# SPDX-License-Identifier: Apache-2.0
"""
An operator with a shell who types the commands of a page of docs/runbooks.

`sh` blocks run line by line. Paths of a packaged node are replaced by those of a local
one, and `systemctl` and `chronyc` by their effects. A block marked `sh refused` must be
refused; one marked `sh there` runs on a new machine, with the software and nothing else.
"""

import os
import re
import secrets
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster, LocalNode, Ports

from tests.faults.clocks import NodeClock

RUNBOOKS = Path(__file__).parents[2] / "docs/runbooks"
BLOCK = re.compile(r"^```sh( refused| there)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def new_machine(node_id: str, folder: Path) -> LocalNode:
    """
    Return a machine that has the software and nothing else, with an address of its own.

    `setup` makes the node's files in *folder*, with the default ports.
    """
    host = f"127.{'.'.join(str(secrets.randbelow(200) + 20) for _ in range(3))}"
    ports = Ports(
        agents=7300, peers=7301, console=7302, metrics=7303, admin=7304, host=host
    )
    return LocalNode(node_id, folder / node_id, ports, testing=True)


@dataclass
class Operator:
    """An operator with a shell who types the commands of a page."""

    cluster: LocalCluster
    node: LocalNode
    """Whose machine it is."""
    folder: Path
    newcomer: LocalNode | None = None
    """A machine that is new: see `new_machine`."""
    clock: NodeClock | None = None
    """That of the machine, if it is not the right one."""
    examples: dict[str, str] = field(default_factory=dict)
    """What to type instead of the values of an example."""
    outputs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The output of each command, each time."""

    def follow(
        self, page: str, section: str = "", **before: Callable[[], object]
    ) -> None:
        """
        Do what a page says, from its beginning to its end; or a section of it.

        *before*: what is to be done by hand before a command of that first word.
        """
        text = (RUNBOOKS / page).read_text()
        if section:
            assert f"\n## {section}\n" in text
            text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        blocks = BLOCK.findall(text)
        assert blocks, f"{page} {section} has no commands"
        for mark, block in blocks:
            who = self
            if mark == " there":
                assert self.newcomer is not None, f"{page} is for a new machine"
                who = Operator(self.cluster, self.newcomer, self.folder)
            for line in block.splitlines():
                before.pop(line.split()[0], lambda: None)()
                who._type(page, line, refused=mark == " refused")

    def _type(self, page: str, line: str, *, refused: bool) -> None:
        if line.startswith("systemctl "):
            self._systemctl(line)
            return
        if line == "chronyc makestep":
            assert self.clock is not None
            self.clock.set(0)
            return
        here = line
        for theirs, ours in (
            ("/var/lib/sparecode", self.node.directory / "data"),
            ("/etc/sparecode", self.cluster.certificates),
            ("--member n1 --host", f"--member {self.node.node_id} --host"),
            ("n1.key", f"{self.node.node_id}.key"),
            ("n1.pem", f"{self.node.node_id}.pem"),
            ("n1.example.net", self.node.ports.host),
            ("m1.example.net", self.node.ports.host),
            ("n4.example.net", self.newcomer.ports.host if self.newcomer else ""),
            *self.examples.items(),
        ):
            here = here.replace(theirs, str(ours))
        done = subprocess.run(
            ["bash", "-c", here],
            cwd=self.folder,
            env=self._environment(),
            input=self.cluster.password + "\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            start_new_session=True,  # No terminal: secrets are asked for on stdin.
        )
        self.outputs[line].append(done.stdout + done.stderr)
        report = f"{page}: {line}\n{done.stdout}{done.stderr}"
        assert (done.returncode != 0) == refused, report
        if line.startswith("sparecode-node setup "):
            # Where the unit is installed, `setup` starts it.
            self._systemctl("systemctl start sparecode-node")

    def _systemctl(self, line: str) -> None:
        match shlex.split(line):
            case ["systemctl", "stop", "sparecode-node"]:
                self.node.stop()
            case ["systemctl", "start", "sparecode-node"]:
                self.node.start()
                self.cluster.wait_ready(self.node)
            case ["systemctl", "reload", "sparecode-node"]:
                assert self.node.pid is not None
                os.kill(self.node.pid, 1)
            case ["systemctl", "reload-or-restart", "sparecode-node"]:
                if self.node.pid is not None and self.node.running:
                    os.kill(self.node.pid, 1)
                else:
                    self.node.start()
            case _:
                pytest.fail(f"no such unit here: {line}")

    def _environment(self) -> dict[str, str]:
        nodes = " ".join(
            each.admin_address for each in self.cluster.nodes if each.running
        )
        return {
            **self.node.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SPARECODE_NODE_CONFIG": str(self.node.config),
            "SPARECODE_NODES": nodes or self.node.admin_address,
            "SPARECODE_CA": str(self.cluster.members_ca),
            "SPARECODE_SESSION_FILE": str(self.folder / "session.json"),
        }

    def sign_in(self) -> None:
        """Sign in, as the pages say that an operator has."""
        self._type("README.md", f"sparecode login {ADMINISTRATOR}", refused=False)
