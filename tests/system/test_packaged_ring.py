# SPDX-License-Identifier: Apache-2.0
"""
Keys are rotated as the unit, the image and the manifests run a node (T3, P5).

What they give to a node is read-only: here a mount that not even root may write to.
The ring is in a folder of the node's own.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import RotationPhase
from sparecode_node.config import load_config
from sparecode_node.membership.preparation import ring_file
from sparecode_node.services.secrets.keyring import KeyRing
from tests.services.wrapping_program import program
from tests.system.estate import PIN, Estate

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a folder"),
]

READ_ONLY = (
    "mount --bind {credentials} {credentials} && mount -o remount,bind,ro {credentials} && "
    'exec env CREDENTIALS_DIRECTORY={credentials} "$@"'
)


def package(node: LocalNode, hsm: Path | None) -> None:
    """
    Lay the node's files out as the packages do; begin with the ring that it has.

    With *hsm*, a program with its key in that folder encrypts the ring.
    """
    credentials = node.directory / "given"
    credentials.mkdir(mode=0o500)
    node.key_ring.rename(credentials / "keyring.json")
    if hsm is None:
        key = credentials / "wrapping.key"
        key.write_bytes(base64.b64encode(os.urandom(32)))
        key.chmod(0o400)
        protection = 'wrapping_key = "/etc/sparecode/wrapping.key"'
    else:
        hsm.mkdir()
        protection = f'wrap_command = ["{program(hsm)}"]'
    text = node.config.read_text()
    node.config.write_text(
        text.replace(
            f'file = "{node.key_ring}"',
            f'file = "{node.directory}/keys/ring.json"\n'
            f"{protection}\n"
            'given = "/etc/sparecode/keyring.json"',
        )
    )
    node.launcher = (
        *("unshare", "--mount", "sh", "-c"),
        READ_ONLY.format(credentials=credentials),
        "sh",
    )


def ring(node: LocalNode) -> KeyRing:
    environment = {
        **node.environment,
        "CREDENTIALS_DIRECTORY": str(node.directory / "given"),
    }
    return ring_file(load_config(node.config, environment)).load()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing: make system-packages")
    allowed = subprocess.run(["unshare", "--mount", "true"], check=False).returncode
    if allowed:
        pytest.skip("this machine allows no mounts, not even to root")
    cluster = set_up(tmp_path / "cluster", testing=True)
    try:
        for node in cluster.nodes:
            package(node, tmp_path / "hsm" if node is cluster.nodes[0] else None)
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.mark.long
async def test_keys_are_rotated_and_what_was_given_stays_as_it_is(
    cluster: LocalCluster,
) -> None:
    """And the nodes start again by what they have written; no key lies in the clear."""
    folders = [node.directory / "given" for node in cluster.nodes]
    before = {path: path.read_bytes() for each in folders for path in each.iterdir()}
    assert len(before) == 5
    async with Estate(cluster) as estate:
        holder = await estate.holder("alice", codes=3)
        ended = await estate.admin.rotate_keys(at_once=True)
        assert ended.phase is RotationPhase.DONE
        assert ended.key_id == 2
        answer = await estate.any_agent.authenticate("alice", PIN + holder.codes[0])
        assert answer.accepted
    cluster.stop()
    assert before == {
        path: path.read_bytes() for each in folders for path in each.iterdir()
    }
    for node in cluster.nodes:
        held = ring(node)
        assert held.active == 2
        assert held.key_ids == (2,)
        assert_no_key_lies_about(node, held)
    for node in cluster.nodes:
        (node.directory / "given/keyring.json").unlink()  # It is not needed again.
        node.start()
    cluster.wait_ready(*cluster.nodes)
    async with Estate(cluster) as estate:
        answer = await estate.any_agent.authenticate("alice", PIN + holder.codes[1])
        assert answer.accepted


def assert_no_key_lies_about(node: LocalNode, held: KeyRing) -> None:
    keys = json.loads(held.to_bytes())["keys"].values()
    forms = [form for key in keys for form in (key.encode(), base64.b64decode(key))]
    assert forms
    for path in node.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(form in content for form in forms), path
