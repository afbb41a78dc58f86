# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents test` sends one passcode as an agent does, and explains the answer."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import Result
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, AuthPacket

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import types_pb2, users_pb2
from sparecode_client.cli.terminal.exit_codes import ExitCode
from sparecode_client.connection import radius
from tests.client import answers
from tests.client.conftest import Cli, Pki
from tests.client.fakes import FakeNode

SECRET = b"TLEWGDJQJMVQKE5SSXBYFDLDCU66BCA7"
PASSCODE = "4711123456"


class Server:
    """A RADIUS server that answers every request alike."""

    def __init__(self) -> None:
        self.code = AccessAccept
        self.message = ""
        self.secret = SECRET
        self.requests: list[AuthPacket] = []
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def _serve(self) -> None:
        while True:
            datagram, sender = self._socket.recvfrom(4096)
            if not datagram:
                return
            request = AuthPacket(packet=datagram, secret=self.secret)
            self.requests.append(request)
            reply = request.CreateReply()
            reply.code = self.code
            if self.message:
                reply[radius.REPLY_MESSAGE] = [self.message.encode()]
            self._socket.sendto(reply.ReplyPacket(), sender)

    def stop(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as stopping:
            stopping.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def agent(**packets: int) -> pb.GetAgentResponse:
    """Return a RADIUS client of which the node has counted these packets."""
    return pb.GetAgentResponse(
        agent=pb.Agent(
            name="vpn",
            certificate_identity="radius:vpn",
            protects=types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
            enabled=True,
            radius=pb.RadiusSettings(networks=["192.0.2.7/32"]),
            radius_activity=pb.RadiusActivity(
                packets=[
                    pb.PacketCount(verdict=verdict, count=count)
                    for verdict, count in packets.items()
                ]
            ),
        )
    )


def explanation(*attempts: users_pb2.Attempt) -> users_pb2.ExplainUserResponse:
    return users_pb2.ExplainUserResponse(username="alice", attempts=attempts)


def attempt(number: int, outcome: str, words: str = "") -> users_pb2.Attempt:
    return users_pb2.Attempt(
        agent="vpn",
        outcome=outcome,
        words=words,
        next_step="Unlock the user." if outcome == "refused" else "",
        authentication_id=f"id {number}",
    )


@pytest.fixture
def testing(cli: Cli, server: Server, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs the command against the server."""
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    (tmp_path / "passcode").write_text(f"{PASSCODE}\n")
    cli.node.answer("AgentService/GetAgent", agent())

    def run(*attempts: users_pb2.Attempt, output: str = "table") -> Result:
        earlier = attempt(1, "refused", "An earlier one.")
        cli.node.answer(
            "UserService/ExplainUser",
            explanation(earlier),
            explanation(*attempts, earlier),
        )
        return cli(
            *("agents", "test", "vpn", "alice", "--server", server.address),
            *("--secret-file", str(tmp_path / "secret")),
            *("--passcode-file", str(tmp_path / "passcode"), "--output", output),
        )

    return run


def test_an_accepted_passcode_was_sent_as_a_client_sends_it(
    testing: Callable[..., Result], server: Server
) -> None:
    result = testing(attempt(2, "accepted", "Accepted."))
    assert (result.exit_code, result.stdout) == (0, "ACCEPTED\nAccepted.\n")
    (request,) = server.requests
    assert request[radius.USER_NAME] == [b"alice"]
    assert request.PwDecrypt(request[radius.USER_PASSWORD][0]) == PASSCODE
    assert request.verify_message_authenticator()


def test_a_refusal_is_explained_by_its_own_attempt(
    testing: Callable[..., Result], server: Server
) -> None:
    server.code, server.message = AccessReject, "Denied"
    result = testing(attempt(2, "refused", "The user is locked."))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "REFUSED",
        "Denied",
        "The user is locked. Unlock the user.",
    ]
    # A refusal that is in no attempt has only the server's words.
    assert testing().stdout.splitlines() == ["REFUSED", "Denied"]


def test_a_next_step_is_named_and_not_taken(
    testing: Callable[..., Result], server: Server
) -> None:
    server.code, server.message = AccessChallenge, "Enter a new PIN:"
    result = testing(attempt(2, "new_pin_required"), output="json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "agent": "vpn",
        "username": "alice",
        "outcome": "new_pin_required",
        "message": "Enter a new PIN:",
        "explanation": "",
    }
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        ({"wrong_secret": 5}, "agents rotate-secret vpn"),
        ({"wrong_secret": 2, "unavailable": 1}, "cannot decide now"),
        ({"wrong_secret": 2}, "in its networks (192.0.2.7/32)"),
    ],
    ids=["wrong secret", "no quorum", "unseen"],
)
def test_silence_is_explained_by_what_the_node_has_counted(
    testing: Callable[..., Result],
    cli: Cli,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    counted: dict[str, int],
    words: str,
) -> None:
    """A reply that is signed with another secret is none."""
    monkeypatch.setattr(radius, "TRY_TIMEOUT_S", 0.02)
    server.secret = b"another"
    cli.node.answer("AgentService/GetAgent", agent(wrong_secret=2), agent(**counted))
    result = testing()
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert result.stdout.startswith("NO ANSWER\n")
    assert words in " ".join(result.stdout.split())
    assert len(server.requests) == radius.TRIES
    assert len({each.authenticator for each in server.requests}) == 1


def test_another_agent_is_tested_by_its_certificate(
    cli: Cli, pki: Pki, start_node: Callable[..., FakeNode], tmp_path: Path
) -> None:
    node = start_node(pki.credentials(mutual=True))
    node.answer("AuthenticationService/Authenticate", answers.REFUSED)
    cli.node.answer(
        "AgentService/GetAgent", pb.GetAgentResponse(agent=pb.Agent(name="vpn"))
    )
    cli.node.answer("UserService/ExplainUser", explanation())
    (tmp_path / "passcode").write_text(PASSCODE)
    command = (
        *("agents", "test", "vpn", "alice", "--agents-node", node.address),
        *("--passcode-file", str(tmp_path / "passcode")),
    )
    result = cli(*command)
    assert result.exit_code == ExitCode.USAGE
    assert "use --certificate" in result.stderr
    cli.node.answer(
        "UserService/ExplainUser",
        explanation(),
        explanation(attempt(2, "refused", "The user is locked.")),
    )
    result = cli(
        *command,
        *("--certificate", str(pki.agent.certificate), "--key", str(pki.agent.key)),
    )
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1] == "The user is locked. Unlock the user."
    (request,) = node.requests("AuthenticationService/Authenticate")
    assert request.passcode == PASSCODE


def test_a_radius_client_needs_its_secret_and_a_server(cli: Cli) -> None:
    cli.node.answer("AgentService/GetAgent", agent())
    cli.node.answer("UserService/ExplainUser", explanation())
    result = cli("agents", "test", "vpn", "alice")
    assert result.exit_code == ExitCode.USAGE
    assert "use --server HOST:PORT and --secret-file FILE" in " ".join(
        result.stderr.split()
    )


class HttpHandler(BaseHTTPRequestHandler):
    """Answers every passcode alike."""

    answer: tuple[int, dict[str, object]]
    seen: list[tuple[dict[str, str], dict[str, object]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
        status, answer = self.answer
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def by_http(
    cli: Cli, pki: Pki, tmp_path: Path
) -> Iterator[tuple[type[HttpHandler], Callable[..., Result]]]:
    """Return a server's answers, and a function that runs the command against it."""
    handler = type("Handler", (HttpHandler,), {"seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pki.node.certificate, pki.node.key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    (tmp_path / "passcode").write_text(PASSCODE)
    (tmp_path / "bearer").write_text("sparecode_key\n")
    cli.node.answer(
        "AgentService/GetAgent", pb.GetAgentResponse(agent=pb.Agent(name="vpn"))
    )

    def run(*attempts: users_pb2.Attempt) -> Result:
        cli.node.answer(
            "UserService/ExplainUser", explanation(), explanation(*attempts)
        )
        return cli(
            *("agents", "test", "vpn", "alice"),
            *("--http", f"127.0.0.1:{server.server_address[1]}"),
            *("--bearer-file", str(tmp_path / "bearer")),
            *("--passcode-file", str(tmp_path / "passcode")),
        )

    yield handler, run
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_bearer_key_is_tested_by_http(
    by_http: tuple[type[HttpHandler], Callable[..., Result]],
) -> None:
    handler, run = by_http
    handler.answer = (200, {"decision": "REFUSED", "authentication_id": "x"})
    result = run(attempt(2, "refused", "The user is locked."))
    assert result.exit_code == 1, result.output
    assert result.stdout.splitlines() == [
        "REFUSED",
        "The user is locked. Unlock the user.",
    ]
    ((headers, body),) = handler.seen
    assert body == {"username": "alice", "passcode": PASSCODE}
    assert headers["authorization"] == "Bearer sparecode_key"
    assert headers["idempotency-key"]


def test_a_key_that_is_refused_is_explained(
    by_http: tuple[type[HttpHandler], Callable[..., Result]],
) -> None:
    """It is no decision, and the key is not shown."""
    handler, run = by_http
    handler.answer = (401, {"reason": "CREDENTIALS", "detail": "unknown"})
    result = run()
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert result.stdout.startswith("NO DECISION\nCREDENTIALS: unknown\n")
    assert "sparecode agents key vpn" in " ".join(result.stdout.split())
    assert "sparecode_key" not in result.output


def test_radsec_is_tested_by_a_certificate(cli: Cli, pki: Pki, tmp_path: Path) -> None:
    """(D1) The reply is checked as over UDP."""
    (tmp_path / "passcode").write_text(PASSCODE)
    cli.node.answer(
        "AgentService/GetAgent", pb.GetAgentResponse(agent=pb.Agent(name="vpn"))
    )
    cli.node.answer("UserService/ExplainUser", explanation())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.agents_ca)
    tls.load_cert_chain(pki.node.certificate, pki.node.key)
    tls.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[str] = []

    def serve() -> None:
        for secret in (radius.RADSEC_SECRET, b"another"):
            plain, _ = listener.accept()
            with tls.wrap_socket(plain, server_side=True) as connection:
                request = AuthPacket(packet=connection.recv(4096), secret=secret)
                if secret == radius.RADSEC_SECRET:
                    seen.append(request.PwDecrypt(request[radius.USER_PASSWORD][0]))
                reply = request.CreateReply()
                reply.code = AccessReject
                connection.sendall(reply.ReplyPacket())

    thread = threading.Thread(target=serve)
    thread.start()
    command = (
        *("agents", "test", "vpn", "alice"),
        *("--radsec", f"127.0.0.1:{listener.getsockname()[1]}"),
        *("--certificate", str(pki.agent.certificate), "--key", str(pki.agent.key)),
        *("--passcode-file", str(tmp_path / "passcode")),
    )
    first, second = cli(*command), cli(*command)
    thread.join()
    listener.close()
    assert (first.exit_code, first.stdout) == (1, "REFUSED\n"), first.output
    assert seen == [PASSCODE]
    assert second.exit_code == ExitCode.UNAVAILABLE
    assert second.stdout.startswith("NO ANSWER\n")
