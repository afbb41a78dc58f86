# SPDX-License-Identifier: Apache-2.0
"""The systemd unit is valid, and the node can run in its confinement."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up

from sparecode_node.config import load_config
from tests.system.estate import PIN, Estate

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/sparecode-node.service"
BACKUP_UNITS = [
    UNIT.with_name(f"sparecode-backup.{kind}") for kind in ("service", "timer")
]
NODE = "/opt/sparecode/bin/sparecode-node"
EXPOSURE_MAX = 3.0

ROOT_ONLY = {"fchown"}
"""SQLite gives its files to the owner of the database, if it runs as root."""
TRACED_ONLY = {"syscall", "total", "-------------------"}
"""Words of strace's table."""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: make system-packages",
)


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    """The node is the tests' own: systemd checks the program too."""
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert NODE in text
    program = Path(sys.executable).with_name("sparecode-node")
    unit.write_text(text.replace(NODE, str(program)))
    assert analyze("verify", "--man=no", str(unit)) == ""


def test_exposure_is_small():
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    output = analyze("security", "--offline=yes", threshold, str(UNIT))
    assert "Overall exposure level" in output


def allowed_calls() -> set[str]:
    """Resolve the unit's filter of system calls, as systemd reads it."""
    allowed: set[str] = set()
    for line in UNIT.read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            value = line.partition("=")[2]
            names = resolved(*value.removeprefix("~").split())
            allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


def resolved(*filters: str) -> set[str]:
    """Return the calls of groups (`@...`), and of the groups in them."""
    calls: set[str] = set()
    for each in filters:
        if not each.startswith("@"):
            calls.add(each)
            continue
        lines = analyze("syscall-filter", each).splitlines()
        words = [line.strip() for line in lines if line.startswith("    ")]
        calls |= resolved(*(word for word in words if not word.startswith("#")))
    return calls


async def use(cluster: LocalCluster, pid: int) -> None:
    """Let the node do its work; *pid* is the node's own, not its tracer's."""
    async with Estate(cluster) as estate:
        holder = await estate.holder("alice", codes=1)
        answer = await estate.any_agent.authenticate("alice", PIN + holder.codes[0])
        assert answer.accepted
        os.kill(pid, signal.SIGHUP)  # As the unit's ExecReload does.
        assert (await estate.admin.rotate_keys(at_once=True)).key_id == 2


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is missing: make system-packages"
)
def test_node_makes_no_call_that_the_unit_forbids(tmp_path):
    """
    A whole life: start, founding, codes, key rotation, stop.

    A user authenticates too: the hashing threads start with the first hash.
    """
    traced = tmp_path / "calls"
    cluster = set_up(tmp_path / "cluster", nodes=1, testing=True)
    (node,) = cluster.nodes
    node.launcher = ("strace", "-f", "-c", "-U", "name", "-I", "4", "-o", str(traced))
    try:
        cluster.start()
        children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text()
        traced_pid = int(children.split()[0])
        asyncio.run(use(cluster, traced_pid))
        os.kill(traced_pid, signal.SIGTERM)
        assert node.wait(timeout_s=60) == 0
    finally:
        cluster.kill()
    made = set(traced.read_text().split()) - TRACED_ONLY - ROOT_ONLY
    assert {"fdatasync", "accept4", "setpriority"} <= made
    assert made - allowed_calls() == set()


def test_unit_gives_the_wrapping_key_and_a_folder_that_the_ring_may_be_written_in():
    """(T3, P5) Otherwise no key could be rotated."""
    config = load_config(ROOT / "deploy/node.toml", {})
    lines = UNIT.read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line)
    name, _, source = settings["LoadCredential"].partition(":")
    assert config.wrapping_key_file == Path(source)
    assert name == Path(source).name
    folders = [Path("/var/lib", each) for each in settings["StateDirectory"].split()]
    assert folders == [config.node.data_dir, config.keys_file.parent]


def test_systemd_finds_no_fault_with_the_nightly_backup(tmp_path):
    """Service and timer together; with less in reach than a node has."""
    for unit in BACKUP_UNITS:
        shutil.copy(unit, tmp_path)
    copies = [str(tmp_path / unit.name) for unit in BACKUP_UNITS]
    assert analyze("verify", "--man=no", *copies) == ""
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    analyze("security", "--offline=yes", threshold, str(BACKUP_UNITS[0]))
