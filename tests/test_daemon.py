# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node`: set-up, refused starts, and the life of one real process."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import logging
import resource
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_cluster.cluster import free_ports
from typer.testing import CliRunner, Result

from sparecode.v1 import sessions_pb2, sessions_pb2_grpc
from sparecode_node.__main__ import app
from sparecode_node.config import LogConfig, LogFormat, LogLevel, load_config
from sparecode_node.daemon import node as node_module
from sparecode_node.daemon.logs import (
    MANY,
    FloodFilter,
    JsonFormatter,
    TextFormatter,
    set_up_logging,
)
from sparecode_node.daemon.node import EXIT_FATAL, Node
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.membership.preparation import StartError
from sparecode_node.replication.log.file import NAME
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.secrets.kdf import Kdf, Lane
from sparecode_node.statemachine import free_pages
from tests.services.free_pages import PAGE, add_free_pages

PASSWORD = "correct horse battery"
RUN_ID = "6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10"


@pytest.fixture(autouse=True)
def testing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the testing profile of hashing."""
    monkeypatch.setenv("SPARECODE_TESTING", "1")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create certificates once."""
    directory = tmp_path_factory.mktemp("pki")
    write_certificates(
        directory,
        members=["n1", "n2"],
        agents=["vpn"],
        hosts=["127.0.0.1"],
        now=dt.datetime.now(dt.UTC),
    )
    return directory


@dataclasses.dataclass(frozen=True)
class Place:
    """The files of a node that is alone in its cluster."""

    directory: Path
    pki: Path
    ports: list[int]

    @property
    def config(self) -> Path:
        return self.directory / "node.toml"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def ring(self) -> Path:
        return self.directory / "keyring.json"

    def write(self, *, node: str = "n1", certificate: str = "n1") -> None:
        """Write node.toml; relative paths start at its folder."""
        agents, peers, admin = (f'"127.0.0.1:{port}"' for port in self.ports)
        identity = (
            f'certificate = "{self.pki}/{certificate}.pem"\n'
            f'key = "{self.pki}/{certificate}.key"'
        )
        self.config.write_text(
            f"""
            [node]
            id = "{node}"
            data_dir = "data"
            [agents]
            listen = {agents}
            {identity}
            ca = "{self.pki}/agents-ca.pem"
            [peers]
            listen = {peers}
            {identity}
            ca = "{self.pki}/members-ca.pem"
            [admin]
            listen = {admin}
            {identity}
            [cluster.members]
            {node} = {peers}
            [keys]
            file = "keyring.json"
            [kdf]
            profile = "testing"
            [log]
            format = "json"
            """
        )

    def password_file(self, text: str = f"{PASSWORD}\n", mode: int = 0o600) -> Path:
        path = self.directory / "password"
        path.write_text(text)
        path.chmod(mode)
        return path

    def call(self, *arguments: str | Path) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(
            app, ["--config", str(self.config), *map(str, arguments)]
        )

    def init(self) -> Result:
        return self.call(
            "init", "--administrator", "Root", "--password-file", self.password_file()
        )

    def begin(self) -> None:
        """Run the node once, so that it has data."""
        assert self.init().exit_code == 0
        code = asyncio.run(
            run_until(self, lambda: not (self.data / "bootstrap.json").exists())
        )
        assert code == 0

    def start_refusal(self) -> str:
        """Start the node in this process, which must fail; return the error."""
        with pytest.raises(StartError) as caught:
            asyncio.run(new_node(self).run())
        line = str(caught.value)
        assert "\n" not in line
        return line


def new_node(place: Place) -> Node:
    return Node(load_config(place.config), clock=SystemClock(), entropy=SystemEntropy())


async def run_until(place: Place, condition) -> int:
    """Run the node in this process until *condition* holds."""
    node = new_node(place)
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(60):
        # No event reports changes of files.
        while not condition() and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    node.stop()
    return await running


@pytest.fixture
def place(tmp_path: Path, pki: Path) -> Place:
    """Configure a node on free ports."""
    place = Place(tmp_path, pki, free_ports(3))
    place.write()
    return place


@contextlib.contextmanager
def process(place: Place) -> Iterator[subprocess.Popen[str]]:
    """Run the node as a process, and end it afterwards."""
    running = subprocess.Popen(
        [sys.executable, "-m", "sparecode_node", "--config", place.config],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def admin_channel(place: Place) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        (place.pki / "members-ca.pem").read_bytes()
    )
    return grpc.secure_channel(f"127.0.0.1:{place.ports[2]}", credentials)


def wait_ready(channel: grpc.Channel) -> None:
    """Wait until the node is ready."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="sparecode.ready"),
        timeout=60,
        wait_for_ready=True,
    )
    for response in watch:
        if response.status == health_pb2.HealthCheckResponse.SERVING:
            watch.cancel()
            return


# --- check-config, certificates ---------------------------------------------------


def test_check_config_accepts_a_good_file(place):
    result = place.call("check-config")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{place.config}: OK, node n1 of n1\n"


@pytest.mark.parametrize("command", [["check-config"], ["init"], []])
def test_bad_config_is_one_line_and_exit_code_2(place, command):
    place.config.write_text("[node]\nid = 1\n")
    result = place.call(*command)
    assert result.exit_code == 2
    assert result.stderr == (
        f"sparecode-node: {place.config}: [node] id: expected a text, got 1\n"
    )


def test_missing_config_option_is_an_error():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert result.stderr == (
        "sparecode-node: name the configuration to run a node: --config FILE or "
        "SPARECODE_NODE_CONFIG\n"
    )


def test_version_is_printed():
    result = CliRunner().invoke(app, ["--version"])
    assert result.stdout.startswith("sparecode-node 0.")


def test_certificates_are_made_and_not_overwritten(tmp_path):
    arguments = ["certificates", str(tmp_path), "--member=n1", "--agent=vpn"]
    first = CliRunner().invoke(app, arguments)
    second = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0
    assert f"{tmp_path}/n1.pem\n" in first.stdout
    assert second.exit_code == 1
    assert second.stderr == (
        f"sparecode-node: {tmp_path}/n1.pem exists: use --force to replace it\n"
    )


# --- init ---------------------------------------------------------------------------


def test_init_prepares_a_cluster_and_keeps_no_password(place):
    """(P4, P5)."""
    result = place.init()
    founding = place.data / "bootstrap.json"
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(founding.read_text())["administrator"] == "root"
    assert PASSWORD not in founding.read_text()
    assert founding.stat().st_mode & 0o777 == 0o600
    assert place.ring.stat().st_mode & 0o777 == 0o600
    assert place.data.stat().st_mode & 0o777 == 0o700


def test_public_key_of_the_audit_log_is_printed_by_init_and_later(place):
    """(U2) The key is derived from the key ring."""
    output = place.init().stdout
    printed = place.call("audit-keys").stdout
    assert printed.startswith("-----BEGIN PUBLIC KEY-----")
    assert printed.strip() in output
    place.ring.unlink()
    refused = place.call("audit-keys")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert str(place.ring) in refused.stderr


def test_a_node_hashes_with_the_threads_of_its_configuration(place, monkeypatch):
    """(I12) Nodes that share a machine share its cores."""
    bounds = []

    def pool(*arguments: object, **named: object) -> Kdf:
        kdf = Kdf(*arguments, **named)
        bounds.append(kdf.load(Lane.AUTHENTICATING).bound)
        return kdf

    monkeypatch.setattr(node_module, "Kdf", pool)
    text = place.config.read_text()
    place.config.write_text(text.replace("[kdf]\n", "[kdf]\nthreads = 1\n"))
    place.begin()
    place.config.write_text(text.replace("[kdf]\n", "[kdf]\nthreads = 33\n"))
    asyncio.run(run_until(place, lambda: len(bounds) > 1))
    assert bounds[1] - bounds[0] == 32


def test_init_uses_the_key_ring_that_it_is_given(place):
    given = place.directory / "given.json"
    assert place.call("draw-ring", given).exit_code == 0
    text = place.config.read_text()
    place.config.write_text(text.replace("[keys]", '[keys]\ngiven = "given.json"'))
    assert place.init().exit_code == 0
    assert json.loads(place.ring.read_text()) == json.loads(given.read_text())


def test_init_is_refused_on_a_node_that_has_lost_its_data(place):
    """Its key ring is that of a cluster: it must not begin the cluster again."""
    place.begin()
    ring = place.ring.read_bytes()
    shutil.rmtree(place.data)
    result = place.init()
    assert result.exit_code == 1
    assert f"{place.ring} exists, so n1 belongs to a cluster" in result.stderr
    assert "docs/runbooks/blank-node.md" in result.stderr
    assert not place.data.exists()
    assert place.ring.read_bytes() == ring


def test_init_is_refused_if_the_certificate_is_of_a_cluster_that_was_joined(place):
    """The record lies beside the certificate, so it outlives data and key ring."""
    tls = place.directory / "tls"
    shutil.copytree(place.pki, tls)
    place.config.write_text(place.config.read_text().replace(str(place.pki), str(tls)))
    assert place.call("draw-ring", place.ring).exit_code == 0
    assert place.call("init", "--beside", "n2=127.0.0.1:1").exit_code == 0
    shutil.rmtree(place.data)
    place.ring.unlink()
    result = place.init()
    assert result.exit_code == 1
    assert f"{tls}/n1.cluster says that the certificate is of cluster" in result.stderr
    assert not place.data.exists()


def test_init_is_refused_on_existing_data(place):
    """(P4)."""
    place.init()
    before = (place.data / "bootstrap.json").read_bytes()
    result = place.init()
    assert result.exit_code == 1
    assert result.stderr == (
        f"sparecode-node: {place.data}/bootstrap.json exists: node n1 belongs to a "
        "cluster already; use `init` only for a new node\n"
    )
    assert (place.data / "bootstrap.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (PASSWORD, 0o640, "users other than its owner have access (mode 0640)"),
        ("short", 0o600, "password: must have 15 to 1024 characters; has 5"),
        ("", 0o600, "password: must have 15 to 1024 characters; has 0"),
    ],
)
def test_init_refuses_a_bad_password_and_changes_nothing(place, text, mode, message):
    file = place.password_file(text, mode)
    result = place.call("init", "--administrator=root", "--password-file", file)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (place.data / "bootstrap.json").exists()
    assert not place.ring.exists()


def test_init_without_a_terminal_names_the_options(place):
    result = place.call("init")
    assert result.exit_code == 2
    assert "--administrator NAME and --password-file FILE" in result.stderr


# --- What keeps a node from starting: one line that names the thing -----------------


def test_node_with_the_data_of_another_node_does_not_start(place):
    place.begin()
    place.write(node="n2", certificate="n2")
    line = place.start_refusal()
    assert str(place.data) in line
    assert "n1" in line
    assert "n2" in line


def test_node_that_was_never_initialized_does_not_begin_a_cluster(place):
    """As a process: it leaves no data, so `init` still works."""
    assert place.call("draw-ring", place.ring).exit_code == 0
    with process(place) as node:
        _, log = node.communicate(timeout=60)
    assert node.returncode == 1
    last = log.splitlines()[-1]
    assert last.startswith(
        f"sparecode-node: {place.data} has no data, but the key ring"
    )
    assert "run `sparecode-node init`" in last
    assert list(place.data.iterdir()) == []


def test_node_that_has_lost_its_data_does_not_begin_another_cluster(place):
    place.begin()
    cluster_id = json.loads(place.ring.read_text())["cluster_id"]
    shutil.rmtree(place.data)
    line = place.start_refusal()
    assert f"the key ring of cluster {cluster_id}" in line
    assert "if its disk is not mounted, mount it" in line
    assert "remove n1 from the cluster" in line
    assert "docs/runbooks/blank-node.md" in line


def test_node_whose_journal_is_missing_does_not_start(place):
    place.begin()
    shutil.rmtree(place.data / "journal")
    assert str(place.data / "journal") in place.start_refusal()


def test_node_with_the_key_ring_of_another_cluster_does_not_start(place):
    place.begin()
    ring = json.loads(place.ring.read_text())
    ring["cluster_id"] = RUN_ID
    place.ring.write_text(json.dumps(ring))
    assert RUN_ID in place.start_refusal()


def test_node_does_not_start_on_a_journal_in_use(place):
    """Two processes on one journal would destroy it."""

    async def start_twice() -> str:
        first = new_node(place)
        running = asyncio.create_task(first.run())
        async with asyncio.timeout(60):
            while not (place.data / "journal" / NAME).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        text = place.config.read_text()
        for port, other in zip(place.ports, free_ports(3), strict=True):
            text = text.replace(f":{port}", f":{other}")
        place.config.write_text(text)
        try:
            with pytest.raises(StartError) as caught:
                await new_node(place).run()
        finally:
            first.stop()
            await running
        return str(caught.value)

    place.init()
    line = asyncio.run(start_twice())
    assert line == f"{place.data}/journal: another process is using this directory"


def test_key_ring_that_others_can_read_is_refused(place):
    """(P5)."""
    place.init()
    place.ring.chmod(0o644)
    assert place.start_refusal() == (
        f"{place.ring}: other users have access (mode 0644); it must be "
        f"0600: chmod 600 {place.ring}"
    )


def test_missing_key_ring_is_named(place):
    assert place.start_refusal() == f"{place.ring}: No such file or directory"


@pytest.mark.parametrize("listener", [0, 1, 2])
def test_port_in_use_is_named(place, listener):
    place.init()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", place.ports[listener]))
        taken.listen()
        line = place.start_refusal()
    assert line == (
        f"[{('agents', 'peers', 'admin')[listener]}] listen "
        f"127.0.0.1:{place.ports[listener]}: cannot listen: Address already in use"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n1.pem", "n9.pem", "{new}: No such file or directory"),
        ("n1.pem", "n1.key", "{new}: not a certificate (PEM): "),
        ("n1.key", "n2.key", "{new}: not the key of the certificate {pki}/n1.pem"),
        ("n1.key", "n1.pem", "{new}: not a private key (PEM): "),
        ("agents-ca.pem", "agents-ca.key", "{new}: not a certificate (PEM): "),
    ],
)
def test_unusable_certificate_is_named(place, old, new, message):
    place.init()
    text = place.config.read_text()
    place.config.write_text(text.replace(f"/{old}", f"/{new}", 1))
    line = place.start_refusal()
    assert line.startswith(message.format(new=f"{place.pki}/{new}", pki=place.pki))


def test_expired_certificate_is_named(place, tmp_path):
    place.init()
    old = tmp_path / "old"
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=40)
    write_certificates(old, members=["n1"], now=long_ago, days=30)
    text = place.config.read_text()
    place.config.write_text(text.replace(f"{place.pki}/n1", f"{old}/n1"))
    assert place.start_refusal().startswith(f"{old}/n1.pem: expired at 2")


def test_certificate_of_another_member_is_refused(place):
    place.init()
    place.write(certificate="n2")
    assert place.start_refusal() == (
        f"{place.pki}/n2.pem: the certificate of node n1 must have the subject name "
        "sparecode://member/n1; it has sparecode://member/n2"
    )


@pytest.mark.parametrize("content", ["", "{}", '{"cluster_id": 1}', "[]"])
def test_bootstrap_file_must_be_the_output_of_init(place, content):
    place.init()
    path = place.data / "bootstrap.json"
    path.write_text(content)
    assert place.start_refusal() == (
        f"{path}: not written by `sparecode-node init`; delete it and run `init` again"
    )


def test_state_of_another_version_is_named(place):
    place.begin()
    place.data.joinpath("state.db").write_bytes(b"not a database" * 100)
    line = place.start_refusal()
    assert line == f"{place.data}/state.db: database disk image is malformed"


# --- Running ------------------------------------------------------------------------


def test_process_begins_a_cluster_and_stops_on_a_signal(place):
    """The second start finds the state, and begins no cluster."""
    place.init()
    for request_id in (RUN_ID, str(uuid.uuid4())):
        with process(place) as node, admin_channel(place) as channel:
            wait_ready(channel)
            core = resource.prlimit(node.pid, resource.RLIMIT_CORE)
            session = sessions_pb2_grpc.SessionServiceStub(channel)
            while (place.data / "bootstrap.json").exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.wait(timeout=0.01)
                assert node.poll() is None
            answer = session.Login(
                sessions_pb2.LoginRequest(
                    request_id=request_id, administrator="ROOT", password=PASSWORD
                ),
                timeout=60,
            )
            node.send_signal(signal.SIGTERM)
            _, log = node.communicate(timeout=60)
        assert node.returncode == 0, log
        assert answer.role.upper() == "SUPER_ADMIN"
        assert core == (0, 0)
        modes = {path.stat().st_mode & 0o077 for path in place.data.rglob("*")}
        assert modes == {0}
        messages = [json.loads(line)["message"] for line in log.splitlines()]
        assert messages[-1] == "stopped"
        assert "hashing with the testing profile: this protects nothing" in messages
        assert PASSWORD not in log


@contextlib.contextmanager
def service_manager(place, monkeypatch):
    """Yield the socket on which the service manager hears the node, as systemd does."""
    address = str(place.directory / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(60)
        yield manager


def test_service_manager_is_notified_of_open_listeners(place, monkeypatch):
    """It is notified of the stop, too: `Type=notify` of systemd."""
    place.begin()
    with service_manager(place, monkeypatch) as manager, process(place) as node:
        assert manager.recv(100) == b"READY=1"
        with socket.create_connection(("127.0.0.1", place.ports[2]), timeout=60):
            node.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        node.communicate(timeout=60)
    assert node.returncode == 0


def test_a_start_that_shrinks_the_state_asks_the_service_manager_for_time(
    place, monkeypatch
):
    """Of a large state on a slow disk, it takes longer than `TimeoutStartSec`."""
    place.begin()
    state = place.data / "state.db"
    add_free_pages(state, free_pages.BYTES_MIN // PAGE)
    before = state.stat().st_size
    with service_manager(place, monkeypatch) as manager, process(place) as node:
        for _ in ("the copy", "the transaction", "the checkpoint"):
            assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=1800000000"
        assert manager.recv(100) == b"READY=1"
        node.send_signal(signal.SIGTERM)
        _, log = node.communicate(timeout=60)
    assert node.returncode == 0
    assert state.stat().st_size < before // 10
    assert "state_shrunk" in log


def test_start_refused_is_exit_code_1(place):
    place.init()
    place.ring.unlink()
    with process(place) as node:
        _, log = node.communicate(timeout=60)
    assert node.returncode == 1
    assert log.splitlines()[-1] == (
        f"sparecode-node: {place.ring}: No such file or directory"
    )


def test_node_that_can_write_no_file_stops_with_exit_code_70(place):
    """
    A broken node logs one line and stops; the other nodes continue.

    Which file is written first depends on the moment: an earlier entry may still be
    applied.
    """
    place.begin()
    with process(place) as node, admin_channel(place) as channel:
        wait_ready(channel)
        # The operating system refuses every write to a file from now on.
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (0, 0))
        with contextlib.suppress(grpc.RpcError):
            sessions_pb2_grpc.SessionServiceStub(channel).Login(
                sessions_pb2.LoginRequest(
                    request_id=RUN_ID, administrator="root", password=PASSWORD
                ),
                timeout=60,
            )
        _, log = node.communicate(timeout=60)
    assert node.returncode == EXIT_FATAL, log
    last = json.loads(log.splitlines()[-1])
    assert last["level"] == "critical"
    assert last["message"].startswith("stopped: ")
    assert "journal" in last["message"] or "disk I/O error" in last["message"]


# --- The log ------------------------------------------------------------------------


def test_values_of_queries_are_not_logged() -> None:
    """Not at level debug either, where aiosqlite would log them."""
    root, queries = logging.getLogger(), logging.getLogger("aiosqlite")
    before, handlers = root.level, list(root.handlers)
    try:
        set_up_logging(LogConfig(level=LogLevel.DEBUG, format=LogFormat.TEXT))
        assert root.isEnabledFor(logging.DEBUG)
        assert not queries.isEnabledFor(logging.DEBUG)
    finally:
        root.handlers[:] = handlers
        root.setLevel(before)
        queries.setLevel(logging.NOTSET)


def record(message: str, **fields: str) -> logging.LogRecord:
    values = {"levelname": "INFO", "msg": message, "created": 0.25, "name": "a"}
    return logging.makeLogRecord({**values, **fields})


def test_log_line_for_people():
    line = TextFormatter().format(record("call refused", method="A/B", caller="a b"))
    assert line == (
        '1970-01-01T00:00:00.250Z INFO     call refused method=A/B caller="a b"'
    )


def test_log_line_for_programs():
    assert json.loads(
        JsonFormatter("n1").format(record("said", peer="p", node="x"))
    ) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "a",
        "message": "said",
        "node": "n1",
        "peer": "p",
    }


@pytest.mark.parametrize(
    ("name", "message", "lines"),
    [
        ("grpc", "hpack_parser.cc:1 Error parsing 'grpc-timeout' metadata", 1),
        ("uvicorn.error", "Invalid HTTP request received.", 1),
        ("sparecode_node.rpc.interceptors", "call refused", MANY),
    ],
)
def test_a_flood_of_callers_writes_few_lines(
    name: str, message: str, lines: int
) -> None:
    """(U1) The next line tells how many were left out. Other lines are all written."""
    bound = FloodFilter()

    def written(at_s: float, count: int, of: str = name) -> list[logging.LogRecord]:
        records = [record(message, name=of) for _ in range(count)]
        for each in records:
            each.created = at_s
        return [each for each in records if bound.filter(each)]

    assert len(written(10.0, 500)) == lines
    assert written(10.9, 500) == []
    first, *more = written(11.0, 500)
    assert len(more) == lines - 1
    assert TextFormatter().format(first).endswith(f"left_out={1000 - lines}")
    assert len(written(5.0, 500)) == lines  # The machine's clock was set back.
    assert len(written(5.0, 500, of="sparecode_node.security")) == 500


def test_outside_text_cannot_forge_a_log_line():
    text = TextFormatter().format(record("x\ny", caller="a\n2026 INFO forged"))
    assert "\n" not in text
