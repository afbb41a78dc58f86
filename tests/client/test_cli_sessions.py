# SPDX-License-Identifier: Apache-2.0
"""`sparecode login`, `logout` and `whoami`: the session between commands."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from sparecode.v1 import (
    sessions_pb2,
)
from sparecode_client.cli import app
from tests.client import answers
from tests.client.conftest import Cli, Pki
from tests.client.fakes import NO_QUORUM, Failure, FakeNode

SERIAL = "000123456789"
Code = grpc.StatusCode


def test_login_prompts_for_the_password_and_stores_the_session(stranger: Cli) -> None:
    result = stranger("login", "root", text="correct horse\n")

    assert result.exit_code == 0
    assert "Signed in as root (super-admin) until 2026-12-01 12:00 UTC" in result.stdout
    assert "correct horse" not in result.output
    assert "bearer-of-root" not in result.output
    (request,) = stranger.node.requests("SessionService/Login")
    assert (request.administrator, request.password) == ("root", "correct horse")
    assert stat.S_IMODE(stranger.session_file.stat().st_mode) == 0o600
    assert [p.name for p in stranger.session_file.parent.iterdir()] == ["session.json"]


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_password_comes_from_a_file(stranger: Cli, tmp_path: Path, source: str) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    file, text = (str(password), None) if source == "file" else ("-", "correct horse\n")

    result = stranger("login", "root", "--password-file", file, text=text)

    assert result.exit_code == 0
    (request,) = stranger.node.requests("SessionService/Login")
    assert request.password == "correct horse"


def test_login_stores_the_client_s_certificate_for_nodes_that_demand_one(
    pki: Pki, start_node: Callable[..., FakeNode], tmp_path: Path
) -> None:
    """(P2) Later commands show the same one; nothing is sent without it."""
    node = start_node(pki.credentials(mutual=True))
    node.answer("SessionService/Login", answers.LOGIN)
    node.answer("SessionService/WhoAmI", answers.WHO)
    cli = Cli(node, pki.ca, tmp_path / "session.json")
    certificate = ("--client-certificate", str(pki.agent.certificate))
    key = ("--client-key", str(pki.agent.key))
    assert cli(*certificate, "login", "root", text="secret\n").exit_code == 2
    assert cli("--timeout", "1", "login", "root", text="secret\n").exit_code == 3
    assert not node.calls
    assert cli(*certificate, *key, "login", "root", text="secret\n").exit_code == 0
    assert cli("whoami").exit_code == 0


def test_session_forgets_a_node_that_was_removed(
    pki: Pki, start_node: Callable[..., FakeNode], stranger: Cli
) -> None:
    """It answers no call any more. The last node of a list stays."""
    removed = start_node(pki.credentials())
    removed.answer("SessionService/Login", answers.LOGIN)
    removed.answer(
        "SessionService/WhoAmI", Failure(Code.UNAVAILABLE, "REMOVED", "removed")
    )
    stranger.node.answer("SessionService/WhoAmI", answers.WHO)
    nodes = f"{removed.address},{stranger.node.address}"
    assert stranger("--node", nodes, "login", "root", text="secret\n").exit_code == 0

    def stored() -> list[str]:
        return list(json.loads(stranger.session_file.read_text())["nodes"])

    assert stored() == [removed.address, stranger.node.address]
    result = stranger("--node", nodes, "whoami")
    assert result.exit_code == 0
    assert f"{removed.address} was removed from the cluster" in result.stderr
    assert stored() == [stranger.node.address]
    stranger.node.answer(
        "SessionService/WhoAmI", Failure(Code.UNAVAILABLE, "REMOVED", "removed")
    )
    assert stranger("whoami").exit_code == 3
    assert stored() == [stranger.node.address]


def test_login_json_has_no_session_in_it(stranger: Cli, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse")

    answer = stranger.json("login", "root", "--password-file", str(password))

    assert answer == {
        "administrator": "root",
        "role": "SUPER_ADMIN",
        "end_time": "2026-12-01T12:00:00Z",
    }


def test_wrong_password_stores_no_session(stranger: Cli) -> None:
    stranger.node.answer(
        "SessionService/Login",
        Failure(Code.UNAUTHENTICATED, "SIGN_IN_REFUSED", "name or password is wrong"),
    )

    result = stranger("login", "root", text="wrong\n")

    assert result.exit_code == 4
    assert "sparecode: name or password is wrong\n" in result.stderr
    assert not stranger.session_file.exists()


def test_session_carries_nodes_and_ca_to_the_next_command(cli: Cli) -> None:
    cli.node.answer("SessionService/WhoAmI", answers.WHO)
    env = {"SPARECODE_SESSION_FILE": str(cli.session_file)}

    result = CliRunner(env=env).invoke(app, ["whoami"])

    assert result.exit_code == 0
    assert result.stdout == (
        "Administrator    root\n"
        "Role             super-admin\n"
        "Signed in until  2026-12-01 12:00 UTC\n"
    )
    assert cli.node.calls[0].metadata["authorization"] == "Bearer bearer-of-root"


def test_session_is_not_sent_to_another_cluster(cli: Cli, pki: Pki) -> None:
    result = cli("--ca", str(pki.foreign_ca), "whoami")

    assert result.exit_code == 4
    assert "another cluster" in result.stderr
    assert cli.node.calls == []


def test_session_file_that_others_can_read_is_not_used(cli: Cli) -> None:
    cli.session_file.chmod(0o644)

    result = cli("whoami")

    assert result.exit_code == 4
    assert "can be read by other users" in result.stderr


def test_damaged_session_file_is_reported(cli: Cli) -> None:
    cli.session_file.write_text("{}")

    result = cli("whoami")

    assert result.exit_code == 4
    assert "delete it and sign in again" in result.stderr


def test_logout_forgets_the_session(cli: Cli) -> None:
    cli.node.answer("SessionService/Logout", sessions_pb2.LogoutResponse())

    assert cli("logout").stdout == "Signed out.\n"
    assert not cli.session_file.exists()
    again = cli("logout")
    assert again.exit_code == 4
    assert again.stderr == (
        "sparecode: you are not signed in\nSign in: sparecode login NAME\n"
    )


def test_logout_of_an_ended_session_forgets_it_too(cli: Cli) -> None:
    cli.node.answer(
        "SessionService/Logout", Failure(Code.UNAUTHENTICATED, "SESSION_ENDED", "ended")
    )

    assert cli("logout").exit_code == 0
    assert not cli.session_file.exists()


def test_logout_without_an_answer_keeps_the_session(cli: Cli) -> None:
    """The session still lives; forgetting it would only look like signing out."""
    cli.node.answer("SessionService/Logout", NO_QUORUM)

    assert cli("logout", "--timeout", "0.1").exit_code == 3
    assert cli.session_file.exists()
