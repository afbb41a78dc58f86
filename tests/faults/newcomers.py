# SPDX-License-Identifier: Apache-2.0
"""A machine that loses all that it has, and joins the cluster under another id."""

import re
import shutil
import subprocess

from local_cluster.cluster import LocalNode

from tests.faults.receivers import folder_of

JOIN_S = 30


class NewcomerError(Exception):
    """The node did not become a member again; the message says why."""


def begin_anew(node: LocalNode, new_id: str, ticket: str) -> None:
    """
    Let a stopped node join with a ticket, with an empty data folder and without keys.

    Its addresses stay. It is not started. Raises `NewcomerError`.
    """
    for path in (node.directory / "data").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(node.directory / "tls", ignore_errors=True)
    node.key_ring.unlink(missing_ok=True)
    node.config.write_text(settings(node, new_id))
    node.node_id = new_id
    command = [node.python, "-m", "sparecode_node", "--config", str(node.config)]
    joined = subprocess.run(
        [*node.launcher, *command, "init", "--join", ticket],
        env=node.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=JOIN_S,
    )
    if joined.returncode:
        raise NewcomerError(f"{new_id} cannot join: {joined.stderr}")
    folder_of(node).mkdir()


def settings(node: LocalNode, new_id: str) -> str:
    """Return its node.toml: another id, files of its own, and no other member."""
    text = node.config.read_text()
    tls = node.directory / "tls"
    for key, name in (("certificate", "node.pem"), ("key", "node.key")):
        text = re.sub(
            rf'^{key} = ".*"$', f'{key} = "{tls / name}"', text, flags=re.MULTILINE
        )
    for listener in ("agents", "peers"):
        ca = "agents-ca.pem" if listener == "agents" else "members-ca.pem"
        text = re.sub(
            rf'(^\[{listener}\]\n(?:.+\n)*?ca = ").*"$',
            rf'\g<1>{tls / ca}"',
            text,
            flags=re.MULTILINE,
        )
    text = re.sub(r'^id = ".*"$', f'id = "{new_id}"', text, flags=re.MULTILINE)
    return re.sub(
        r"^\[cluster\.members\]\n(?:.+\n)*",
        f'[cluster.members]\n{new_id} = "{node.peers_address}"\n',
        text,
        flags=re.MULTILINE,
    )
