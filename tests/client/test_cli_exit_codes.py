# SPDX-License-Identifier: Apache-2.0
"""Errors: exit codes, and one or two lines on stderr."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from sparecode.v1 import (
    users_pb2,
)
from sparecode_client.cli import app
from sparecode_client.cli.app import options_first
from sparecode_client.cli.terminal.exit_codes import NEXT
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import (
    NO_QUORUM_FOR_LONG,
    OUTCOME_UNKNOWN,
    Failure,
)

SERIAL = "000123456789"
Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("failure", "exit_code", "message"),
    [
        (Failure(Code.FAILED_PRECONDITION, "TOKEN_EXPIRED", "expired"), 1, "expired"),
        (Failure(Code.NOT_FOUND, "USER_UNKNOWN", "no such user"), 1, "no such user"),
        (Failure(Code.INVALID_ARGUMENT, "FIELD", "long", field="email"), 2, "email"),
        (NO_QUORUM_FOR_LONG, 3, "sparecode cluster status"),
        (Failure(Code.UNAVAILABLE, "REMOVED", "removed"), 3, "removed-node.md"),
        (Failure(Code.RESOURCE_EXHAUSTED, "RATE", "", retry_after_s=60), 3, "in 60 s"),
        (
            Failure(Code.RESOURCE_EXHAUSTED, "COUNTING", "", retry_after_s=60),
            3,
            "--timeout 120",
        ),
        (Failure(Code.INTERNAL), 3, "check before you repeat it"),
        (Failure(Code.UNIMPLEMENTED), 3, "7304"),
        (Failure(Code.UNAUTHENTICATED, "SESSION_ENDED", "ended"), 4, "login"),
        (Failure(Code.PERMISSION_DENIED, "ROLE", "ask another"), 4, "ask another"),
    ],
)
def test_each_failure_has_its_exit_code(
    cli: Cli, failure: Failure, exit_code: int, message: str
) -> None:
    cli.node.answer("UserService/GetUser", failure)

    result = cli("users", "show", "alice")

    assert result.exit_code == exit_code
    assert message in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) <= 2
    assert result.stderr.startswith("sparecode: ")


def test_unknown_outcome_names_the_request_id(cli: Cli) -> None:
    """(A7) The command with that request id repeats the request."""
    cli.node.answer(
        "UserService/CreateUser",
        replace(OUTCOME_UNKNOWN, retry_after_s=60),
    )

    lost = cli("users", "create", "alice")
    (request_id,) = {
        request.request_id for request in cli.node.requests("UserService/CreateUser")
    }
    cli.node.answer(
        "UserService/CreateUser", users_pb2.CreateUserResponse(commit=answers.COMMIT)
    )
    again = cli("users", "create", "alice", "--request-id", request_id)

    assert lost.exit_code == 3
    assert f"--request-id {request_id}" in lost.stderr
    assert again.exit_code == 0
    assert cli.node.requests("UserService/CreateUser")[-1].request_id == request_id


def test_no_node_reachable_is_exit_code_3(
    cli: Cli, closed_address: Callable[[], str]
) -> None:
    """With enough time for at least one refused connection on a busy machine."""
    down = closed_address()

    result = cli("--node", down, "--timeout", "3", "users", "list")

    assert result.exit_code == 3
    assert f"{down}: Connection refused" in result.stderr
    assert "Check --node" in result.stderr


def test_commands_fail_over(cli: Cli, closed_address: Callable[[], str]) -> None:
    cli.node.answer("UserService/ListUsers", answers.USERS)

    result = cli("--node", f"{closed_address()},{cli.node.address}", "users", "list")

    assert result.exit_code == 0


def test_missing_node_option_is_explained(tmp_path: Path) -> None:
    env = {"SPARECODE_SESSION_FILE": str(tmp_path / "none")}

    result = CliRunner(env=env).invoke(app, ["login", "root"])

    assert result.exit_code == 2
    assert result.stderr == (
        "sparecode: no node: use --node HOST:PORT or SPARECODE_NODES\n"
    )


def test_every_command_has_help_that_fits(cli: Cli) -> None:
    """Every option has a help text, within 80 columns."""
    groups = {
        "users": "create show list update enable disable delete unlock",
        "tokens": "enroll import show list assign set-pin reinstate unassign enable "
        "disable expire delete replace "
        "resynchronize clear-pin",
        "emergency": "issue fixed show list disable",
        "agents": "register list show update enable disable remove "
        "deny-certificate allow-certificate denied",
        "cluster": "status",
    }
    commands = [[], ["login"], ["logout"], ["whoami"], ["authenticate"]]
    for group, names in groups.items():
        commands += [[group], *([group, name] for name in names.split())]

    for command in commands:
        result = cli(*command, "--help")
        assert result.exit_code == 0, command
        _, *lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= 80, command
        assert not [line for line in lines if line.endswith("...")], command


def test_global_options_may_stand_anywhere_before_two_hyphens() -> None:
    assert options_first(
        ["users", "list", "--output", "json", "--node=a", "--node"]
    ) == [*("--output", "json", "--node=a", "--node", "users", "list")]
    assert options_first(["users", "show", "--", "--output"]) == [
        *("users", "show", "--", "--output")
    ]


def test_every_advised_command_exists(cli: Cli) -> None:
    """The commands in advice exist."""
    advised = [words.partition("sparecode ")[2].split() for words in NEXT.values()]
    commands = [words[: 1 if words[0] == "login" else 2] for words in advised if words]

    assert len(commands) > 5
    for command in commands:
        assert cli(*command, "--help").exit_code == 0, command
