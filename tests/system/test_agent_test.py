# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents test` at three real nodes: a code through each door, and why not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR, AGENT, HOST, LocalCluster, free_ports
from local_cluster.setup import set_up

from tests.system.estate import PIN, Estate

GATE = "gate"


@pytest.fixture(scope="module")
def radsec_port() -> int:
    """Return the port of RadSec; the other doors have theirs."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, radsec_port: int
) -> Iterator[LocalCluster]:
    """Start three nodes that serve RADIUS and HTTP; the first one also serves RadSec."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True, doors=True)
    node = cluster.nodes[0]
    ours = cluster.certificates / node.node_id
    node.config.write_text(
        node.config.read_text()
        + f'\n[radsec]\nlisten = "{HOST}:{radsec_port}"\n'
        + f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Terminal:
    """Where an administrator types commands."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self._folder = folder
        self._cluster = cluster
        certificate = cluster.certificates / AGENT
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "SPARECODE_NODES": ",".join(each.admin_address for each in cluster.nodes),
            "SPARECODE_CA": str(cluster.members_ca),
            "SPARECODE_SESSION_FILE": str(folder / "session.json"),
            "SPARECODE_AGENT_NODES": cluster.nodes[2].agents_address,
            "SPARECODE_AGENT_CERTIFICATE": f"{certificate}.pem",
            "SPARECODE_AGENT_KEY": f"{certificate}.key",
        }

    def type(self, *words: str) -> tuple[int, str]:
        """Run `sparecode`; return the exit code and what it prints."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("sparecode")), *words],
            cwd=self._folder,
            env=self._environment,
            input=f"{self._cluster.password}\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            start_new_session=True,  # No terminal: secrets are asked for on stdin.
        )
        return done.returncode, " ".join(done.stdout.split()) or done.stderr

    def file(self, name: str, text: str) -> str:
        """Write a secret to a file; return its name."""
        (self._folder / name).write_text(text)
        return name

    def test(self, agent: str, *door: str, username: str) -> tuple[int, str]:
        """Send the passcode through a door."""
        return self.type(
            *("agents", "test", agent, username, "--passcode-file", "passcode"), *door
        )


@pytest.mark.long
@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_a_passcode_is_tested_through_every_door(
    cluster: LocalCluster, radsec_port: int, tmp_path: Path
) -> None:
    """(A3, D1, D5) Accepted by RADIUS, then refused by each door, which says why."""
    async with Estate(cluster) as estate:
        holder = await estate.holder("alice", codes=1)
    one, two, _ = cluster.nodes
    terminal = Terminal(cluster, tmp_path)
    code, printed = terminal.type("login", ADMINISTRATOR)
    assert code == 0, printed
    code, secret = terminal.type("agents", "add", "--radius", GATE, "--network", HOST)
    assert code == 0, secret
    code, bearer = terminal.type("agents", "key", AGENT)
    assert code == 0, bearer
    terminal.file("passcode", PIN + holder.codes[0])
    radius = (
        *("--server", one.radius_address),
        *("--secret-file", terminal.file("secret", secret)),
    )
    code, printed = terminal.test(GATE, *radius, username="alice")
    assert (code, printed[:8]) == (0, "ACCEPTED"), printed

    http = (f"{HOST}:{two.ports.http}", terminal.file("bearer", bearer))
    for agent, door in (
        (GATE, radius),
        (AGENT, ("--http", http[0], "--bearer-file", http[1])),
        (AGENT, ("--http", http[0])),
        (AGENT, ("--radsec", f"{HOST}:{radsec_port}")),
        (AGENT, ()),
    ):
        code, printed = terminal.test(agent, *door, username="alice")
        assert (code, printed[:7]) == (1, "REFUSED"), (door, printed)
        assert "used" in printed, (door, printed)

    terminal.file("secret", "another secret")
    _, printed = terminal.test(GATE, *radius, username="alice")
    assert printed.startswith("NO ANSWER The secret is wrong."), printed
