# SPDX-License-Identifier: Apache-2.0
"""The examples in Node.js, Go and shell, each run against nodes in this process."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_client.testing import FakeCluster, FakeToken
from tests.http.door import AGENT, HOST, IDENTITY, Door, open_door
from tests.services.one_node import PIN, AgentIdentity, one_node

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PROTO = "sparecode/v1/authentication.proto"
PACKAGE = "example.org/sign_in/sparecode/v1"
MODULES_OF_DEBIAN = Path("/usr/share/gocode")
ACCEPTED, NOT_ACCEPTED, NO_DECISION = 0, 1, 3
"""The exit codes of all three programs."""
EXPECTED = [
    (NOT_ACCEPTED, "REFUSED\n"),
    (ACCEPTED, "ACCEPTED\n"),
    (NOT_ACCEPTED, "REFUSED\n"),
    (NO_DECISION, "No decision"),
]
BUILT_S = 900
"""gRPC in Go takes 4 minutes to build on two busy cores."""
PATIENCE_S = 90


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Run three nodes, whose files are in *tmp_path*."""
    with FakeCluster() as cluster:
        cluster.register_agent(AGENT)
        certificate, key = cluster._agents[AGENT]
        (tmp_path / "agent.pem").write_bytes(certificate)
        (tmp_path / "agent.key").write_bytes(key)
        (tmp_path / "ca.pem").write_bytes(cluster._cluster.ca)
        yield cluster


def environment(cluster: FakeCluster, folder: Path) -> Mapping[str, str]:
    """Return the variables of a program; the first node is down."""
    backend = cluster._cluster
    nodes = [f"{HOST}:9", *(backend.address(n, "agents") for n in backend.nodes)]
    return {
        **os.environ,
        "SPARECODE_AGENT_NODES": ",".join(nodes),
        "SPARECODE_CA": str(folder / "ca.pem"),
        "SPARECODE_AGENT_CERTIFICATE": str(folder / "agent.pem"),
        "SPARECODE_AGENT_KEY": str(folder / "agent.key"),
        "PROTOS": str(ROOT / "protos"),
    }


def runs(
    command: list[str], token: FakeToken, cluster: FakeCluster, folder: Path
) -> list[tuple[int, str]]:
    """
    Run a program with a wrong, a right and the spent passcode, and without a quorum.

    Return the exit codes, and the first words of what was printed.
    """
    (code, other, _) = token.issue_codes()

    def run(passcode: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, token.username],
            input=passcode + "\n",
            env=environment(cluster, folder),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert passcode not in printed
        return done.returncode, printed.partition(":")[0]

    right = token.passcode(code)
    decided = [run("4719000000"), run(right), run(right)]
    with cluster.no_quorum():
        return [*decided, run(token.passcode(other))]


@pytest.fixture
def node_js(tmp_path: Path) -> list[str]:
    """Return the command of the example in Node.js, with its packages."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: install Node.js")
    shutil.copytree(EXAMPLES / "nodejs", tmp_path / "nodejs")
    command = "npm ci --ignore-scripts --no-audit --no-fund --loglevel=error"
    fetched = subprocess.run(
        [*command.split(), "--prefix", str(tmp_path / "nodejs")],
        capture_output=True,
        text=True,
        timeout=BUILT_S,
        check=False,
    )
    if fetched.returncode and "network" in fetched.stderr.lower():
        pytest.skip("npm has no network for @grpc/grpc-js")
    assert not fetched.returncode, fetched.stderr
    return ["node", str(tmp_path / "nodejs" / "sign_in.mjs")]


@pytest.mark.long
@pytest.mark.timeout(2 * BUILT_S)
def test_the_program_in_node_js(
    node_js: list[str], cluster: FakeCluster, tmp_path: Path
) -> None:
    token = cluster.add_user("alice", pin="4719")
    assert runs(node_js, token, cluster, tmp_path) == EXPECTED


@pytest.fixture
def go(tmp_path: Path) -> list[str]:
    """Build the example in Go with the modules of Debian, as examples/README.md tells."""
    for program in ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing; it is too large for system-packages")
    if not (MODULES_OF_DEBIAN / "src/google.golang.org/grpc").exists():
        pytest.skip("golang-google-grpc-dev is missing: too large for system-packages")
    folder = tmp_path / "gopath/src/example.org/sign_in"
    shutil.copytree(EXAMPLES / "go", folder)
    types = f"paths=source_relative,M{PROTO}={PACKAGE}"
    for command in (
        [
            *("protoc", "-I", str(ROOT / "protos"), "--go_out=.", "--go-grpc_out=."),
            *(
                f"--go_opt={types}",
                f"--go-grpc_opt={types}",
                str(ROOT / "protos" / PROTO),
            ),
        ],
        ["go", "build", "-o", str(tmp_path / "sign_in")],
    ):
        subprocess.run(
            command,
            cwd=folder,
            env={
                **os.environ,
                "GO111MODULE": "off",
                "GOPATH": f"{tmp_path / 'gopath'}:{MODULES_OF_DEBIAN}",
                "GOCACHE": str(tmp_path / "cache"),
                "GOFLAGS": "",
            },
            timeout=BUILT_S,
            check=True,
        )
    return [str(tmp_path / "sign_in")]


@pytest.mark.timeout(2 * BUILT_S)
def test_the_program_in_go(go: list[str], cluster: FakeCluster, tmp_path: Path) -> None:
    token = cluster.add_user("alice", pin="4719")
    assert runs(go, token, cluster, tmp_path) == EXPECTED


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """Open the HTTP door of a node; Alice has a token."""
    async with one_node(tmp_path) as node, open_door(node, tmp_path / "tls") as opened:
        await node.add_user()
        await node.register_agent(AgentIdentity(IDENTITY))
        yield opened


async def curl(door: Door, passcode: str) -> tuple[int, str, str]:
    """Run the example with curl; return the exit code, its answer and its errors."""
    own = door.folder / AGENT
    process = await asyncio.create_subprocess_exec(
        *("sh", str(EXAMPLES / "curl.sh"), "alice"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "SPARECODE_HTTP": f"https://{HOST}:{door.server.port}",
            "SPARECODE_CA": str(door.folder / "members-ca.pem"),
            "SPARECODE_AGENT_CERTIFICATE": f"{own}.pem",
            "SPARECODE_AGENT_KEY": f"{own}.key",
        },
    )
    async with asyncio.timeout(PATIENCE_S):
        printed, errors = await process.communicate(passcode.encode() + b"\n")
    assert process.returncode is not None
    return process.returncode, printed.decode(), errors.decode()


@pytest.mark.asyncio
@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")),
    reason="curl or jq is missing: make system-packages",
)
async def test_the_script_with_curl(door: Door) -> None:
    """A code works once, and a node that has stopped makes no decision."""
    passcode = PIN + (await door.node.issue()).codes[0].code
    assert await curl(door, "4719000000") == (NOT_ACCEPTED, "REFUSED\n", "")
    assert await curl(door, passcode) == (ACCEPTED, "ACCEPTED\n", "")
    assert await curl(door, passcode) == (NOT_ACCEPTED, "REFUSED\n", "")
    await door.server.stop()
    status, printed, errors = await curl(door, passcode)
    assert (status, printed) == (NO_DECISION, "")
    assert "connect" in errors
