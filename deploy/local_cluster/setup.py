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
from collections.abc import Mapping, Sequence
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
from sparecode_node.membership.node_file import Settings, node_toml


def set_up(
    directory: Path,
    *,
    nodes: int = 3,
    testing: bool = False,
    doors: bool = False,
    ports: list[Ports] | None = None,
    raft: Mapping[str, int] | None = None,
    python: str = sys.executable,
) -> LocalCluster:
    """
    Set up a cluster in *directory*, which must not hold one.

    *testing* uses the cheapest key derivation: for tests, never for people.
    *doors* serves RADIUS and HTTP, too, and gRPC reflection to administrators' programs.
    *raft* goes into `[raft]`. *python* has the software installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ports = ports or _free_ports(nodes, doors=doors)
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
    for node in cluster.nodes:
        node.directory.mkdir(exist_ok=True)
        node.config.write_text(node_toml(node_settings(cluster, node, raft or {})))
    _initialize(cluster)
    return cluster


def _free_ports(nodes: int, *, doors: bool) -> list[Ports]:
    free = iter(free_ports(7 * nodes))
    return [
        Ports(
            agents=next(free),
            peers=next(free),
            admin=next(free),
            metrics=next(free),
            console=next(free),
            radius=next(free) if doors else 0,
            http=next(free) if doors else 0,
        )
        for _ in range(nodes)
    ]


_EACH = """
import contextlib, io, json, sys
from sparecode_node.__main__ import main
outputs = []
for arguments in json.load(sys.stdin):
    sys.argv[1:] = arguments
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    outputs.append(output.getvalue())
print(json.dumps(outputs))
"""
"""Runs `sparecode-node` several times: most of the time goes to its imports."""


def _run(cluster: LocalCluster, *commands: Sequence[str]) -> list[str]:
    """Run `sparecode-node` as an operator would; return the output of each command."""
    done = subprocess.run(
        [cluster.nodes[0].python, "-c", _EACH],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
        env=environment(testing=cluster.testing),
    )
    if done.returncode:
        message = f"cannot set up the cluster: {done.stderr or done.stdout}"
        raise LocalClusterError(message)
    outputs: list[str] = json.loads(done.stdout)
    return outputs


def _certificates(cluster: LocalCluster) -> list[str]:
    """Return the command that makes the certificates of the nodes and of an agent."""
    members = [f"--member={node.node_id}" for node in cluster.nodes]
    hosts = sorted({f"--host={node.ports.host}" for node in cluster.nodes})
    agent = f"--agent={AGENT}"
    return ["certificates", str(cluster.certificates), *members, agent, *hosts]


_LIMITS = (
    "agent_per_s",
    "client_address_per_s",
    "user_per_s",
    "sign_in_per_s",
    "peer_per_s",
    "codes_per_s",
)
_LIMITS_SINCE_0_1_0 = ("session_per_s",)
"""Other software may be release 0.1.0, which refuses a key that it does not know."""
_UNLIMITED = 1_000_000
"""Practically: tests and benchmarks use one agent and one administrator."""


def node_settings(
    cluster: LocalCluster, node: LocalNode, raft: Mapping[str, int]
) -> Settings:
    """Return the settings of a node; *raft* are those of `[raft]`."""
    ours = cluster.certificates / node.node_id
    pair = {"certificate": f"{ours}.pem", "key": f"{ours}.key"}
    members = {each.node_id: each.peers_address for each in cluster.nodes}
    settings: dict[str, Mapping[str, object]] = {
        "node": {"id": node.node_id, "data_dir": str(node.directory / "data")},
        "agents": {
            "listen": node.agents_address,
            **pair,
            "ca": str(cluster.certificates / "agents-ca.pem"),
        },
        "peers": {
            "listen": node.peers_address,
            **pair,
            "ca": str(cluster.members_ca),
        },
        "admin": {"listen": node.admin_address, **pair},
    }
    if node.ports.metrics:
        settings["metrics"] = {"listen": node.metrics_address}
    if node.ports.console:
        settings["console"] = {
            "listen": f"{node.ports.host}:{node.ports.console}",
            **pair,
            "addresses": {each.node_id: each.console_url for each in cluster.nodes},
        }
    if node.ports.radius:
        settings["radius"] = {"listen": node.radius_address}
        settings["http"] = {"listen": f"{node.ports.host}:{node.ports.http}", **pair}
        settings["admin"] = {**settings["admin"], "reflection": True}
    settings |= {
        "cluster": {"members": members},
        "keys": {"file": str(node.key_ring)},
        "raft": raft,
        "kdf": {"profile": "testing" if cluster.testing else "production"},
    }
    if cluster.testing:
        of_this_release = node.python == sys.executable
        limits = _LIMITS + (_LIMITS_SINCE_0_1_0 if of_this_release else ())
        settings["limits"] = dict.fromkeys(limits, _UNLIMITED)
    settings["log"] = {"level": "info", "format": "text"}
    return settings


def _initialize(cluster: LocalCluster) -> None:
    """Make certificates, the key ring, and the first administrator on the first node."""
    descriptor = os.open(
        cluster.password_file,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        0o600,
    )
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(12) + "\n")
    first, *others = cluster.nodes
    on_first = ["--config", str(first.config)]
    found = ["init", f"--administrator={ADMINISTRATOR}"]
    found.append(f"--password-file={cluster.password_file}")
    *_, keys = _run(
        cluster,
        _certificates(cluster),
        [*on_first, *found],
        [*on_first, "audit-keys"],
    )
    for other in others:
        # All nodes share one key ring. An operator copies it over a secure channel.
        shutil.copy(first.key_ring, other.key_ring)
    # For verifying exports of the audit log; it lies next to the CA.
    (cluster.certificates / "audit.pem").write_text(keys)
