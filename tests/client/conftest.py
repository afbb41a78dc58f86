# SPDX-License-Identifier: Apache-2.0
"""Fake nodes, and clients that retry without waiting."""

import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from typer.testing import CliRunner, Result

from sparecode_client.cli import app
from sparecode_client.connection.channels import OPTIONS
from sparecode_client.connection.client import Client
from tests.client import answers
from tests.client.certificates import Authority, Certificate
from tests.client.fakes import FakeNode


@pytest.fixture
def start_node() -> Iterator[Callable[..., FakeNode]]:
    """Return a function that starts a node. The node stops when the test ends."""
    nodes: list[FakeNode] = []

    def start(credentials: grpc.ServerCredentials | None = None) -> FakeNode:
        nodes.append(FakeNode())
        nodes[-1].start(credentials)
        return nodes[-1]

    yield start
    for node in nodes:
        node.stop()


@pytest.fixture
def nodes(start_node: Callable[..., FakeNode]) -> list[FakeNode]:
    """Three nodes."""
    return [start_node() for _ in range(3)]


@pytest.fixture
def closed_address() -> Iterator[Callable[[], str]]:
    """
    Return a function that returns an address where nothing listens.

    It stays bound, so that no other program gets it while the test runs.
    """
    with ExitStack() as held:

        def hold() -> str:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{probe.getsockname()[1]}"

        yield hold


class Waits(list[float]):
    """Records the waits between tries, which take no time."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest_asyncio.fixture
async def connect(
    waits: Waits,
) -> AsyncIterator[Callable[..., Client]]:
    """Return a function that makes a client of the nodes at some addresses."""
    clients: list[Client] = []

    def make(
        *addresses: str, timeout_s: float = 30.0, try_timeout_s: float = 2.5
    ) -> Client:
        client = Client(
            addresses,
            lambda node: grpc.aio.insecure_channel(node, options=OPTIONS),
            timeout=timedelta(seconds=timeout_s),
            try_timeout_s=try_timeout_s,
            sleep=waits,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@dataclass(frozen=True)
class Pki:
    """The certificates and keys that an operator issues."""

    ca: Path
    foreign_ca: Path
    agents_ca: Path
    node: Certificate
    agent: Certificate

    def credentials(self, *, mutual: bool = False) -> grpc.ServerCredentials:
        """Return the TLS credentials of a node."""
        return grpc.ssl_server_credentials(
            [(self.node.key.read_bytes(), self.node.certificate.read_bytes())],
            root_certificates=self.agents_ca.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Return certificates of one cluster, and an unrelated CA."""
    folder = tmp_path_factory.mktemp("pki")
    members = Authority(folder, "members")
    agents = Authority(folder, "agents")
    identity = x509.UniformResourceIdentifier("spiffe://example.com/vpn")
    return Pki(
        ca=members.ca,
        foreign_ca=Authority(folder, "foreign").ca,
        agents_ca=agents.ca,
        node=members.issue_node(),
        agent=agents.issue("vpn", identity),
    )


@dataclass
class Cli:
    """Runs `sparecode` against one node."""

    node: FakeNode
    ca: Path
    session_file: Path

    def __call__(
        self, *args: str, text: str | None = None, columns: int = 80
    ) -> Result:
        runner = CliRunner(
            env={
                "COLUMNS": str(columns),
                "SPARECODE_NODES": self.node.address,
                "SPARECODE_CA": str(self.ca),
                "SPARECODE_SESSION_FILE": str(self.session_file),
            }
        )
        return runner.invoke(app, args, input=text)

    def json(self, *args: str) -> dict[str, object]:
        result = self(*args, "--output", "json")
        assert result.exit_code == 0, result.output
        answer: dict[str, object] = json.loads(result.stdout)
        return answer


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that sets this computer's time zone."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def stranger(
    pki: Pki,
    start_node: Callable[..., FakeNode],
    tmp_path: Path,
    zone: Callable[[str], None],
) -> Cli:
    """Return a CLI without a session, on a computer in UTC."""
    zone("UTC")
    node = start_node(pki.credentials())
    node.answer("SessionService/Login", answers.LOGIN)
    return Cli(node, pki.ca, tmp_path / "state" / "session.json")


@pytest.fixture
def cli(stranger: Cli) -> Cli:
    """Return a CLI that is signed in as root."""
    assert stranger("login", "root", text="correct horse\n").exit_code == 0
    stranger.node.calls.clear()
    return stranger
