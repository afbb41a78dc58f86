# SPDX-License-Identifier: Apache-2.0
"""`sparecode` asks for the password when a change of power needs it (P7)."""

import grpc
import pytest

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import sessions_pb2
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

REMOVE = "AdministratorService/RemoveAdministrator"
CONFIRM = "SessionService/Reauthenticate"
NEEDED = Failure(
    grpc.StatusCode.PERMISSION_DENIED, "REAUTHENTICATION_NEEDED", "confirm it"
)
REMOVED = pb.RemoveAdministratorResponse(commit=answers.COMMIT)
CONFIRMED = sessions_pb2.ReauthenticateResponse(commit=answers.COMMIT)


@pytest.fixture
def terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return `sparecode` at a terminal."""
    monkeypatch.setattr(
        "sparecode_client.cli.terminal.settings._at_terminal", lambda: True
    )
    return cli


def test_a_change_asks_for_the_password_and_goes_on(terminal: Cli) -> None:
    """The same request is sent again, under the same id."""
    terminal.node.answer(REMOVE, NEEDED, REMOVED)
    terminal.node.answer(CONFIRM, CONFIRMED)
    result = terminal("admins", "remove", "dora", text="the password\n")
    assert result.exit_code == 0, result.output
    (confirmation,) = terminal.node.requests(CONFIRM)
    assert (confirmation.password, confirmation.second_factor) == ("the password", "")
    first, second = terminal.node.requests(REMOVE)
    assert first == second
    assert "the password" not in result.output


def test_it_asks_for_a_code_only_if_it_is_needed(terminal: Cli) -> None:
    terminal.node.answer(REMOVE, NEEDED, REMOVED)
    terminal.node.answer(
        CONFIRM,
        Failure(grpc.StatusCode.UNAUTHENTICATED, "SECOND_FACTOR_NEEDED", "a code"),
        CONFIRMED,
    )
    result = terminal("admins", "remove", "dora", text="the password\n123456\n")
    assert result.exit_code == 0, result.output
    assert [each.second_factor for each in terminal.node.requests(CONFIRM)] == [
        "",
        "123456",
    ]


def test_a_wrong_password_changes_nothing(terminal: Cli) -> None:
    terminal.node.answer(REMOVE, NEEDED)
    terminal.node.answer(
        CONFIRM,
        Failure(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_PASSWORD", "it is wrong"),
    )
    result = terminal("admins", "remove", "dora", text="guess\n")
    assert result.exit_code == 1
    assert "it is wrong" in result.stderr
    assert len(terminal.node.requests(REMOVE)) == 1


def test_without_a_terminal_it_names_the_next_step(cli: Cli) -> None:
    """A script signs in again."""
    cli.node.answer(REMOVE, NEEDED)
    result = cli("admins", "remove", "dora")
    assert result.exit_code == 4
    assert "sparecode login" in result.stderr
    assert not cli.node.requests(CONFIRM)
