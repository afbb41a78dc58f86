# SPDX-License-Identifier: Apache-2.0
"""
Every runbook's commands, on a real cluster on which just that has happened.

`sh` blocks are run line by line, with the paths of a packaged node replaced by those
of a local one, and `systemctl` by what it would do. A block marked `sh refused` must
be refused.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import Admin
from tests.faults.disks import Disk
from tests.faults.network import ToolError

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs/runbooks"
BLOCK = re.compile(r"^```sh( refused)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DISK_SIZE = "128M"
CONFIG = "/etc/sparecode/node.toml"


@dataclass
class Operator:
    """Somebody with a shell, who types what a page says."""

    cluster: LocalCluster
    node: LocalNode
    """Whose machine it is."""
    folder: Path
    said: dict[str, str] = field(default_factory=dict)
    """What each command has said, by its first words."""

    def follow(self, page: str, **before: Callable[[], object]) -> None:
        """
        Do what a page says, from its beginning to its end.

        *before*: what is to be done by hand before a command of that first word.
        """
        blocks = BLOCK.findall((RUNBOOKS / page).read_text())
        assert blocks, f"{page} has no commands"
        for refused, block in blocks:
            for line in block.splitlines():
                before.pop(line.split()[0], lambda: None)()
                self._type(page, line, refused=bool(refused))

    def _type(self, page: str, line: str, *, refused: bool) -> None:
        if line.startswith("systemctl "):
            self._systemctl(line)
            return
        here = line.replace(CONFIG, str(self.node.config)).replace(
            "/var/lib/sparecode", str(self.node.directory / "data")
        )
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
        self.said[line] = done.stdout + done.stderr
        told = f"{page}: {line}\n{done.stdout}{done.stderr}"
        assert (done.returncode != 0) == refused, told

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
            case _:
                pytest.fail(f"no such unit here: {line}")

    def _environment(self) -> dict[str, str]:
        nodes = " ".join(
            each.admin_address for each in self.cluster.nodes if each.running
        )
        return {
            **self.node.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SPARECODE_NODES": nodes or self.node.admin_address,
            "SPARECODE_CA": str(self.cluster.members_ca),
            "SPARECODE_SESSION_FILE": str(self.folder / "session.json"),
        }

    def sign_in(self) -> None:
        """Sign in, as the pages say that an operator has."""
        self._type("README.md", f"sparecode login {ADMINISTRATOR}", refused=False)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """Give somebody a cluster that is well, and a folder."""
    cluster = set_up(tmp_path / "cluster", testing=True)
    folder = tmp_path / "operator"
    folder.mkdir()
    try:
        cluster.start()
        found = Operator(cluster, cluster.nodes[0], folder)
        found.sign_in()
        yield found
    finally:
        cluster.kill()


def wipe(cluster: LocalCluster) -> None:
    """Lose every machine: processes, data folders and key rings."""
    cluster.kill()
    for node in cluster.nodes:
        shutil.rmtree(node.directory / "data")
        node.key_ring.unlink()


@contextmanager
def disk_of_its_own(node: LocalNode, folder: Path) -> Iterator[Disk]:
    """Put the data of a node on a small file system; skips where that cannot be."""
    missing = [tool for tool in ("mkfs.ext4", "mount") if not shutil.which(tool)]
    if os.geteuid() or missing:
        pytest.skip(f"a full file system needs root, and {missing or 'nothing else'}")
    node.stop()
    data = node.directory / "data"
    disk = Disk(folder / "disk.image", data, "ext4", DISK_SIZE)
    kept = shutil.copytree(data, folder / "kept")
    try:
        disk.make()
    except ToolError as error:
        pytest.skip(f"no loop devices here: {error}")
    try:
        shutil.copytree(kept, data, dirs_exist_ok=True)
        data.chmod(0o700)
        yield disk
    finally:
        node.kill()
        disk.unmount()


def fill_disk(cluster: LocalCluster, node: LocalNode, disk: Disk) -> None:
    """Leave a node no room, and have the others give it something to write."""
    node.start()
    cluster.wait_ready(node)
    disk.fill()
    others = [each.admin_address for each in cluster.nodes if each is not node]
    with Admin(others, ca=cluster.members_ca, timeout=timedelta(minutes=1)) as admin:
        admin.login(ADMINISTRATOR, cluster.password)
        for number in range(2_000):
            if not node.running:
                break
            admin.create_user(f"filler-{number}", display_name="x" * 100)
    assert node.wait(timeout_s=60) == 70
    node.kill()  # Forgets the process that has ended.
    *_, last = node.last_words().splitlines()
    assert re.search("stopped: .*(No space left on device|disk is full)", last)


def test_every_page_is_in_the_table_and_is_followed_here() -> None:
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", (RUNBOOKS / "README.md").read_text())
    assert set(listed) == pages
    followed = Path(__file__).read_text()
    assert [page for page in sorted(pages) if f'"{page}"' not in followed] == []


def test_pages_of_a_cluster_that_goes_on(operator: Operator) -> None:
    """In turn, on one cluster: each leaves it well."""
    cluster = operator.cluster
    operator.follow("moved-nodes.md")  # It has the addresses; that they may move at
    # once is shown in tests/replication/test_cluster_membership.py.
    operator.follow("wrong-clock.md")

    # The others' certificates are as good as they were; so are the new ones here.
    operator.follow("expired-certificates.md")

    cluster.nodes[2].kill()
    operator.follow("lost-node.md")

    leaked = cluster.certificates / f"{AGENT}.pem"
    shutil.copy(leaked, operator.folder / "leaked-agent.pem")
    operator.follow("leaked-key.md")

    operator.follow("lost-password.md")


def test_a_disk_that_is_full(operator: Operator, tmp_path: Path) -> None:
    """A file system that is really full, as only root can make one."""
    cluster, node = operator.cluster, operator.node
    with disk_of_its_own(node, tmp_path) as disk:
        fill_disk(cluster, node, disk)
        operator.follow("full-disk.md", systemctl=disk.free)
        assert "100%" in operator.said["df -h /var/lib/sparecode"]
        assert "3 of 3 members" in operator.said["sparecode cluster status"]
        assert not disk.ballast.exists()


def test_backups_and_a_restore(operator: Operator) -> None:
    """Both pages, one after the other, with the loss of everything in between."""
    operator.follow("backups.md")
    wipe(operator.cluster)
    operator.follow("restore.md")
    assert "1 of 1 members" in operator.said["sparecode cluster status"]


def test_a_quorum_that_is_lost(operator: Operator) -> None:
    for node in operator.cluster.nodes[1:]:
        node.kill()
    operator.follow("lost-quorum.md")
    assert "1 of 1 members" in operator.said["sparecode cluster status"]
