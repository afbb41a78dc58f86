# SPDX-License-Identifier: Apache-2.0
"""
Set up a cluster with the commands that an operator uses.

So this module is also the shortest description of the steps by hand:
certificates, one `node.toml` per node, `init` on the first node, and its key
ring copied to the others.
"""

import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from local_cluster.cluster import (
    ADMINISTRATOR,
    AGENT,
    LocalCluster,
    LocalClusterError,
    LocalNode,
    Ports,
    environment,
    free_ports,
)


def set_up(
    directory: Path,
    *,
    nodes: int = 3,
    testing: bool = False,
    ports: list[Ports] | None = None,
    raft: Mapping[str, int] | None = None,
    python: str = sys.executable,
) -> LocalCluster:
    """
    Set up a cluster in *directory*, which must not hold one.

    *testing* uses the cheapest key derivation: for tests, never for people.
    *raft* goes into `[raft]`. *python* has the software installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ports = ports or _free_ports(nodes)
    description = {
        "testing": testing,
        "nodes": {
            f"n{number}": dataclasses.asdict(node_ports)
            for number, node_ports in enumerate(ports, start=1)
        },
    }
    (directory / "cluster.json").write_text(json.dumps(description, indent=2))
    cluster = LocalCluster.load(directory)
    for node in cluster.nodes:
        node.python = python
    _make_certificates(cluster)
    for node in cluster.nodes:
        node.directory.mkdir(exist_ok=True)
        node.config.write_text(_node_toml(cluster, node, raft or {}))
    _initialize(cluster)
    return cluster


def _free_ports(nodes: int) -> list[Ports]:
    free = iter(free_ports(5 * nodes))
    return [
        Ports(
            agents=next(free),
            peers=next(free),
            admin=next(free),
            metrics=next(free),
            console=next(free),
        )
        for _ in range(nodes)
    ]


def _run(cluster: LocalCluster, *arguments: str) -> str:
    """Run `sparecode-node` as an operator would; return its output."""
    done = subprocess.run(
        [cluster.nodes[0].python, "-m", "sparecode_node", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(testing=cluster.testing),
    )
    if done.returncode:
        output = done.stderr or done.stdout
        message = f"sparecode-node {' '.join(arguments)}: {output}"
        raise LocalClusterError(message)
    return done.stdout


def _make_certificates(cluster: LocalCluster) -> None:
    members = [f"--member={node.node_id}" for node in cluster.nodes]
    hosts = sorted({f"--host={node.ports.host}" for node in cluster.nodes})
    _run(
        cluster,
        "certificates",
        str(cluster.certificates),
        *members,
        f"--agent={AGENT}",
        *hosts,
    )


_LIMITS = """\
[limits]
agent_per_s = 1000000
client_address_per_s = 1000000
user_per_s = 1000000
sign_in_per_s = 1000000
peer_per_s = 1000000
codes_per_s = 1000000
"""
"""Practically unlimited: tests and benchmarks use one agent and one administrator."""

_LIMITS_SINCE_0_1_0 = "session_per_s = 1000000"
"""Other software may be release 0.1.0, which refuses a key that it does not know."""


def _node_toml(cluster: LocalCluster, node: LocalNode, raft: Mapping[str, int]) -> str:
    ours = cluster.certificates / node.node_id
    members = "\n".join(
        f'{each.node_id} = "{each.peers_address}"' for each in cluster.nodes
    )
    timings = "\n".join(f"{key} = {value}" for key, value in raft.items())
    since_0_1_0 = _LIMITS_SINCE_0_1_0 if node.python == sys.executable else ""
    return f"""\
[node]
id = "{node.node_id}"
data_dir = "{node.directory / "data"}"

[agents]
listen = "{node.agents_address}"
certificate = "{ours}.pem"
key = "{ours}.key"
ca = "{cluster.certificates / "agents-ca.pem"}"

[peers]
listen = "{node.peers_address}"
certificate = "{ours}.pem"
key = "{ours}.key"
ca = "{cluster.members_ca}"

[admin]
listen = "{node.admin_address}"
certificate = "{ours}.pem"
key = "{ours}.key"

{f'[metrics]{chr(10)}listen = "{node.metrics_address}"' if node.ports.metrics else ""}

{_console(cluster, node)}
[cluster.members]
{members}

[keys]
file = "{node.key_ring}"

[raft]
{timings}

[kdf]
profile = "{"testing" if cluster.testing else "production"}"

{_LIMITS + since_0_1_0 if cluster.testing else ""}
[log]
level = "info"
format = "text"
"""


def _console(cluster: LocalCluster, node: LocalNode) -> str:
    if not node.ports.console:
        return ""
    ours = cluster.certificates / node.node_id
    addresses = "\n".join(
        f'{each.node_id} = "{each.console_url}"' for each in cluster.nodes
    )
    return f"""
[console]
listen = "{node.ports.host}:{node.ports.console}"
certificate = "{ours}.pem"
key = "{ours}.key"

[console.addresses]
{addresses}
"""


def _initialize(cluster: LocalCluster) -> None:
    """Make the key ring and the first administrator on the first node."""
    descriptor = os.open(
        cluster.password_file,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        0o600,
    )
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(12) + "\n")
    first, *others = cluster.nodes
    _run(
        cluster,
        "--config",
        str(first.config),
        "init",
        "--administrator",
        ADMINISTRATOR,
        "--password-file",
        str(cluster.password_file),
    )
    for other in others:
        # All nodes share one key ring. An operator copies it over a secure channel.
        shutil.copy(first.key_ring, other.key_ring)
    # For verifying exports of the audit log; it lies next to the CA.
    keys = _run(cluster, "--config", str(first.config), "audit-keys")
    (cluster.certificates / "audit.pem").write_text(keys)
