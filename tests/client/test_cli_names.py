# SPDX-License-Identifier: Apache-2.0
"""Names in place of serials, and names and serials that the shell completes."""

import grpc
import pytest
from typer.testing import CliRunner, Result

from sparecode.v1 import agents_pb2, cluster_pb2, tokens_pb2, users_pb2
from sparecode_client.cli import app
from sparecode_client.cli.terminal import settings
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.every_command import words_of
from tests.client.fakes import Failure
from tests.client.test_cli_json_everywhere import ALL

SERIAL = "000123456789"
TOKEN, USER = "TokenService/GetToken", "UserService/GetUser"
SHOW = "EmergencyAccessService/GetEmergencyAccess"
Code = grpc.StatusCode
NO_TOKEN = Failure(Code.NOT_FOUND, "TOKEN_UNKNOWN", "there is no such token")
NO_USER = Failure(Code.NOT_FOUND, "USER_UNKNOWN", "there is no such user")


def user_with(*serials: str) -> users_pb2.GetUserResponse:
    return users_pb2.GetUserResponse(
        user=users_pb2.User(username="alice", token_serials=serials)
    )


def test_a_user_stands_for_their_only_token(cli: Cli) -> None:
    cli.node.answer(TOKEN, NO_TOKEN)
    cli.node.answer(USER, user_with(SERIAL))
    cli.node.answer(SHOW, answers.ACCESS)
    result = cli("emergency", "show", "Alice")
    assert result.exit_code == 0, result.stderr
    (request,) = cli.node.requests(SHOW)
    assert request.serial == SERIAL
    assert cli.node.requests(USER)[0].username == "Alice"


@pytest.mark.parametrize(
    ("serials", "words"),
    [
        ((), "user alice has no token: sparecode tokens assign SERIAL alice"),
        (("1", "2"), "user alice has 2 tokens; name one by its serial: 1, 2"),
    ],
)
def test_an_ambiguous_user_is_wrong_usage(
    cli: Cli, serials: tuple[str, ...], words: str
) -> None:
    """A code for another token than the lost one would help nobody."""
    cli.node.answer(TOKEN, NO_TOKEN)
    cli.node.answer(USER, user_with(*serials))
    result = cli("emergency", "issue", "alice")
    assert result.exit_code == 2
    assert words in result.stderr
    assert {call.method for call in cli.node.calls} == {TOKEN, USER}


def test_a_serial_comes_first(cli: Cli) -> None:
    """Digits alone are never looked up as a name; a token with the name wins."""
    cli.node.answer(SHOW, answers.ACCESS)
    assert cli("emergency", "show", SERIAL).exit_code == 0
    assert not cli.node.requests(TOKEN)
    token = tokens_pb2.Token(serial="alice")
    cli.node.answer(TOKEN, tokens_pb2.GetTokenResponse(token=token))
    assert cli("emergency", "show", "alice").exit_code == 0
    assert not cli.node.requests(USER)
    assert cli.node.requests(SHOW)[-1].serial == "alice"


TAKES_NAMES = sorted(
    name
    for name, command in ALL.items()
    if any(each.metavar == "SERIAL|USER" for each in command.params)
)
NAMES = (
    "first.last",
    "alice@example.com",
    "a_b",
    "Anna Maria",
    "Jürgen",
    "山田",
    "al-1",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", TAKES_NAMES)
def test_every_kind_of_user_name_stands_for_a_token(
    cli: Cli, command: str, name: str
) -> None:
    """A name that is no serial is never asked for as one: nodes refuse its form."""
    wrong = Failure(Code.INVALID_ARGUMENT, "FIELD", "serial: must be 1 to 64 letters")
    cli.node.answer(TOKEN, NO_TOKEN if settings.SERIAL.fullmatch(name) else wrong)
    cli.node.answer(USER, user_with("1", "2"))
    words = words_of(command, cli.node)
    result = cli(*(name if each == SERIAL else each for each in words))
    assert f"user {name} has 2 tokens; name one by its serial: 1, 2" in " ".join(
        result.stderr.split()
    )
    assert [each.username for each in cli.node.requests(USER)] == [name]


def test_an_unknown_name_is_answered_with_near_ones(cli: Cli) -> None:
    near = [users_pb2.User(username=each) for each in ("first.last", "fiona", "zoe")]
    cli.node.answer(USER, NO_USER)
    cli.node.answer("UserService/ListUsers", users_pb2.ListUsersResponse(users=near))
    result = cli("emergency", "show", "first.lasst")
    assert result.exit_code == 1
    words = " ".join(result.stderr.split())
    assert "no token and no user first.lasst: did you mean first.last? Search" in words
    assert "sparecode users list --search TEXT" in words
    cli.node.answer("UserService/ListUsers", users_pb2.ListUsersResponse())
    assert "did you mean" not in cli("emergency", "show", "first.lasst").stderr


def test_neither_a_token_nor_a_user_is_not_found(cli: Cli) -> None:
    cli.node.answer(TOKEN, NO_TOKEN)
    cli.node.answer(USER, NO_USER)
    result = cli("emergency", "show", "nobody")
    assert result.exit_code == 1
    assert "there is no token and no user nobody" in result.stderr


def test_only_naming_and_deleting_a_token_need_its_serial() -> None:
    takes = {
        name
        for name, command in ALL.items()
        for each in command.params
        if each.name == "serial" and each.metavar == "SERIAL"
    }
    assert takes == {"tokens enroll", "tokens assign", "tokens delete"}


def completed(cli: Cli, line: str) -> Result:
    runner = CliRunner(
        env={
            "SPARECODE_NODES": cli.node.address,
            "SPARECODE_CA": str(cli.ca),
            "SPARECODE_SESSION_FILE": str(cli.session_file),
            "_SPARECODE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - (not line.endswith(" "))),
        }
    )
    return runner.invoke(app, [], prog_name="sparecode")


def test_the_shell_completes_names_and_serials(cli: Cli) -> None:
    users = users_pb2.ListUsersResponse(
        users=[users_pb2.User(username="alice"), users_pb2.User(username="alan")]
    )
    cli.node.answer("UserService/ListUsers", users)
    cli.node.answer("TokenService/ListTokens", answers.TOKENS)
    cli.node.answer(
        "AgentService/ListAgents",
        agents_pb2.ListAgentsResponse(
            agents=[agents_pb2.Agent(name="vpn"), agents_pb2.Agent(name="portal")]
        ),
    )
    cli.node.answer(
        "ClusterService/ListMembers",
        cluster_pb2.ListMembersResponse(
            members=[cluster_pb2.ListedMember(node_id=each) for each in ("n1", "n2")]
        ),
    )
    for line, words in {
        "sparecode users show al": ["alice", "alan"],
        "sparecode emergency issue al": ["alice", "alan"],
        "sparecode tokens assign 0001": [SERIAL],
        "sparecode agents show v": ["vpn"],
        "sparecode cluster remove ": ["n1", "n2"],
        "sparecode explain WRONG_PI": ["WRONG_PIN"],
    }.items():
        assert completed(cli, line).stdout.split() == words, line
    (request, *_) = cli.node.requests("UserService/ListUsers")
    assert (request.username_prefix, request.stale_ok) == ("al", True)


def test_without_a_session_nothing_is_completed(cli: Cli) -> None:
    cli.session_file.unlink()
    result = completed(cli, "sparecode users show al")
    assert result.stdout.split() == []
    assert result.stderr == ""
