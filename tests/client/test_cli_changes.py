# SPDX-License-Identifier: Apache-2.0
"""Requests of commands that change something, and the secrets typed for them."""

from pathlib import Path

import grpc
import pytest

from sparecode.v1 import (
    agents_pb2,
    emergency_access_pb2,
    moves_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from tests.client import answers
from tests.client.conftest import Cli, Pki

SERIAL = "000123456789"
SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
Code = grpc.StatusCode


def test_change_reports_where_it_was_committed(cli: Cli) -> None:
    cli.node.answer(
        "UserService/CreateUser", users_pb2.CreateUserResponse(commit=answers.COMMIT)
    )

    words = cli("users", "create", "alice", "--display-name", "Alice Example")
    answer = cli.json("users", "create", "alice")

    assert words.stdout == "User alice created (node n2, log index 1042).\n"
    assert answer == {"username": "alice", "node_id": "n2", "index": 1042}
    first, _ = cli.node.requests("UserService/CreateUser")
    assert first.display_name == "Alice Example"


@pytest.mark.parametrize(
    ("args", "method", "answer", "fields"),
    [
        (
            ["users", "update", "alice", "--email", "a@example.com"],
            "UserService/UpdateUser",
            users_pb2.UpdateUserResponse(),
            {"username": "alice", "email": "a@example.com"},
        ),
        (
            ["users", "enable", "alice"],
            "UserService/UpdateUser",
            users_pb2.UpdateUserResponse(),
            {"username": "alice", "enabled": True},
        ),
        (
            ["users", "disable", "alice"],
            "UserService/UpdateUser",
            users_pb2.UpdateUserResponse(),
            {"username": "alice", "enabled": False},
        ),
        (
            ["users", "delete", "alice"],
            "UserService/DeleteUser",
            users_pb2.DeleteUserResponse(),
            {"username": "alice"},
        ),
        (
            ["users", "unlock", "alice"],
            "UserService/UnlockUser",
            users_pb2.UnlockUserResponse(),
            {"username": "alice"},
        ),
        (
            ["tokens", "assign", SERIAL, "alice"],
            "TokenService/AssignToken",
            tokens_pb2.AssignTokenResponse(),
            {"serial": SERIAL, "username": "alice"},
        ),
        (
            ["tokens", "reinstate", SERIAL],
            "TokenService/ReinstateToken",
            tokens_pb2.ReinstateTokenResponse(),
            {"serial": SERIAL},
        ),
        (
            ["tokens", "unassign", SERIAL],
            "TokenService/UnassignToken",
            tokens_pb2.UnassignTokenResponse(),
            {"serial": SERIAL},
        ),
        (
            ["tokens", "enable", SERIAL],
            "TokenService/EnableToken",
            tokens_pb2.EnableTokenResponse(),
            {"serial": SERIAL},
        ),
        (
            ["tokens", "disable", SERIAL],
            "TokenService/DisableToken",
            tokens_pb2.DisableTokenResponse(),
            {"serial": SERIAL},
        ),
        (
            ["tokens", "expire", SERIAL, "--never"],
            "TokenService/UpdateToken",
            tokens_pb2.UpdateTokenResponse(),
            {"serial": SERIAL, "never_expires": True},
        ),
        (
            ["tokens", "expire", SERIAL, "--at", "2026-12-01T12:00Z"],
            "TokenService/UpdateToken",
            tokens_pb2.UpdateTokenResponse(),
            {"serial": SERIAL, "expire_time": answers.at(answers.END)},
        ),
        (
            ["tokens", "delete", SERIAL],
            "TokenService/DeleteToken",
            tokens_pb2.DeleteTokenResponse(),
            {"serial": SERIAL},
        ),
        (
            ["tokens", "replace", SERIAL, "987654321", "--keep-pin"],
            "TokenService/ReplaceToken",
            tokens_pb2.ReplaceTokenResponse(),
            {"serial": SERIAL, "replacement_serial": "987654321", "keep_pin": True},
        ),
        (
            ["tokens", "clear-pin", SERIAL],
            "TokenService/ClearPin",
            tokens_pb2.ClearPinResponse(),
            {"serial": SERIAL},
        ),
        (
            ["emergency", "disable", SERIAL, "--reinstate-token"],
            "EmergencyAccessService/DisableEmergencyAccess",
            emergency_access_pb2.DisableEmergencyAccessResponse(),
            {"serial": SERIAL, "reinstate_token": True},
        ),
        (
            ["agents", "add", "vpn", "spiffe://vpn", "--protects", "cloud"],
            "AgentService/RegisterAgent",
            agents_pb2.RegisterAgentResponse(),
            {
                "name": "vpn",
                "certificate_identity": "spiffe://vpn",
                "protects": types_pb2.AGENT_PROTECTS_CLOUD,
            },
        ),
    ],
)
def test_command_sends_exactly_this(cli, args, method, answer, fields) -> None:
    cli.node.answer(method, answer)

    result = cli(*args)

    assert result.exit_code == 0, result.output
    (request,) = cli.node.requests(method)
    sent = {field.name: value for field, value in request.ListFields()}
    assert sent.pop("request_id")
    assert sent == fields


@pytest.mark.parametrize(
    ("options", "ends"), [((), None), (("--slots", "0-99"), (0, 99))]
)
def test_every_step_of_a_reclaim_names_its_slots(
    cli: Cli, options: tuple[str, ...], ends: tuple[int, int] | None
) -> None:
    """A step without them would take back users who have moved on."""
    states = [moves_pb2.MOVE_STATE_RECLAIMING, moves_pb2.MOVE_STATE_RETURNED]
    reclaim = "MoveService/ReclaimMove"
    cli.node.answer(
        reclaim, *(moves_pb2.ReclaimMoveResponse(state=each) for each in states)
    )
    cli("cluster", "export-users", "reclaim", "m1", "--reason", "it burned", *options)
    requests = cli.node.requests(reclaim)
    assert len(requests) == len(states)
    for each in requests:
        assert each.HasField("first_slot") is each.HasField("last_slot")
        named = (
            (each.first_slot, each.last_slot) if each.HasField("last_slot") else None
        )
        assert named == ends


def test_update_of_nothing_is_wrong_usage(cli: Cli) -> None:
    result = cli("users", "update", "alice")

    assert result.exit_code == 2
    assert (
        "use --display-name, --email, --language, --manager-email, --join or --leave"
        in result.stderr
    )


@pytest.mark.parametrize("args", [(), ("--at", "1d", "--never")])
def test_end_of_a_token_is_a_time_or_never(cli: Cli, args: tuple[str, ...]) -> None:
    result = cli("tokens", "expire", SERIAL, *args)

    assert result.exit_code == 2
    assert "use either --at TIME or --never" in result.stderr
    assert cli.node.calls == []


def test_agents_are_listed(cli: Cli) -> None:
    cli.node.answer("AgentService/ListAgents", answers.AGENTS)

    assert "spiffe://example.com/vpn" in cli("agents", "list").stdout


def test_seed_is_typed_without_echo(cli: Cli) -> None:
    cli.node.answer(
        "TokenService/EnrollToken",
        tokens_pb2.EnrollTokenResponse(commit=answers.COMMIT),
    )

    result = cli(
        *("tokens", "enroll", SERIAL, "--digits", "8", "--expires", "2027-06-01"),
        text="GEZD GNBV gy3t-QOJQ GEZDGNBVGY3TQOJQ\n",
    )

    assert result.exit_code == 0
    assert "GEZD" not in result.output
    (request,) = cli.node.requests("TokenService/EnrollToken")
    assert request.seed == b"12345678901234567890"
    assert (request.digits, request.period_seconds) == (8, 30)
    assert request.expire_time.ToJsonString() == "2027-06-01T00:00:00Z"


def test_hex_seed_from_a_file(cli: Cli, tmp_path: Path) -> None:
    cli.node.answer("TokenService/EnrollToken", tokens_pb2.EnrollTokenResponse())
    seed = tmp_path / "seed"
    seed.write_text("31323334353637383930 31323334353637383930\n")

    cli(
        *("tokens", "enroll", SERIAL, "--algorithm", "hotp", "--counter", "5"),
        *("--seed-file", str(seed), "--seed-format", "hex", "--pin-rule", "none"),
    )

    (request,) = cli.node.requests("TokenService/EnrollToken")
    assert request.seed == b"12345678901234567890"
    assert (request.counter, request.period_seconds) == (5, 0)


def test_securid_token_has_its_own_period(cli: Cli) -> None:
    cli.node.answer("TokenService/EnrollToken", tokens_pb2.EnrollTokenResponse())

    cli(
        *("tokens", "enroll", "000612345678", "--algorithm", "securid"),
        *("--seed-format", "hex"),
        text="0102030405060708090a0b0c0d0e0f10\n",
    )

    (request,) = cli.node.requests("TokenService/EnrollToken")
    assert request.algorithm == types_pb2.TOKEN_ALGORITHM_SECURID
    assert (request.period_seconds, len(request.seed)) == (60, 16)


def test_wrong_seed_is_not_in_the_message(cli: Cli) -> None:
    result = cli("tokens", "enroll", SERIAL, text="not a seed 189\n")

    assert result.exit_code == 2
    assert "the seed is not base32" in result.stderr
    assert "189" not in result.output


def enrolling(cli: Cli) -> Cli:
    commit = answers.COMMIT
    for name, answer in {
        "EnrollToken": tokens_pb2.EnrollTokenResponse(commit=commit),
        "AssignToken": tokens_pb2.AssignTokenResponse(commit=commit),
        "SetPin": tokens_pb2.SetPinResponse(commit=commit),
    }.items():
        cli.node.answer(f"TokenService/{name}", answer)
    return cli


def test_a_token_is_enrolled_for_a_user_with_a_pin(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("2718\n")

    result = enrolling(cli)(
        *("tokens", "enroll", SERIAL, "--user", "alice"),
        *("--pin-file", str(tmp_path / "pin")),
        text=f"{SEED}\n",
    )

    assert result.exit_code == 0, result.output
    assert "enrolled, assigned to alice, PIN set (node" in result.stdout
    called = [call.method.partition("/")[2] for call in cli.node.calls]
    assert called == ["EnrollToken", "AssignToken", "SetPin"]
    (pin,) = cli.node.requests("TokenService/SetPin")
    assert (pin.serial, pin.pin) == (SERIAL, "2718")
    assert len({call.request.request_id for call in cli.node.calls}) == 3


def test_a_missing_pin_file_enrolls_nothing(cli: Cli, tmp_path: Path) -> None:
    result = enrolling(cli)(
        *("tokens", "enroll", SERIAL, "--user", "alice"),
        *("--pin-file", str(tmp_path / "no file")),
        text=f"{SEED}\n",
    )

    assert result.exit_code == 2
    assert not cli.node.calls


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pin-file", "pin"], "--pin-file needs --user"),
        (["--user", "alice", "--request-id", "r"], "it names one change"),
    ],
)
def test_options_that_do_not_fit_together_enroll_nothing(
    cli: Cli, options: list[str], words: str
) -> None:
    result = enrolling(cli)("tokens", "enroll", SERIAL, *options)

    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not cli.node.calls


def test_pin_is_typed_twice_without_echo(cli: Cli) -> None:
    cli.node.answer(
        "TokenService/SetPin", tokens_pb2.SetPinResponse(commit=answers.COMMIT)
    )

    result = cli("tokens", "set-pin", SERIAL, text="2718\n2718\n")

    assert result.stdout.endswith(
        "PIN of token 000123456789 set (node n2, log index 1042).\n"
    )
    assert "2718" not in result.output
    assert cli.node.requests("TokenService/SetPin")[0].pin == "2718"


def test_missing_input_is_wrong_usage(cli: Cli) -> None:
    """The input ends at the prompt: exit code 2, because 1 would mean refused."""
    result = cli("tokens", "set-pin", SERIAL, text="")

    assert result.exit_code == 2
    assert "no input: nothing was done" in result.stderr
    assert cli.node.calls == []


def test_token_is_resynchronized_by_two_typed_tokencodes(cli: Cli) -> None:
    cli.node.answer(
        "TokenService/ResynchronizeToken",
        tokens_pb2.ResynchronizeTokenResponse(commit=answers.COMMIT),
    )

    result = cli("tokens", "resynchronize", SERIAL, text="271828\n314159\n")

    assert result.stdout.endswith(
        "Token 000123456789 resynchronized (node n2, log index 1042).\n"
    )
    assert "271828" not in result.output
    (request,) = cli.node.requests("TokenService/ResynchronizeToken")
    assert (request.first_tokencode, request.second_tokencode) == ("271828", "314159")


def test_empty_secret_file_is_reported(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "pin"
    empty.write_text("\n")

    result = cli("tokens", "set-pin", SERIAL, "--pin-file", str(empty))

    assert result.exit_code == 2
    assert f"{empty} is empty" in result.stderr


@pytest.mark.parametrize(
    ("answer", "words", "exit_code"),
    [(answers.ACCEPTED, "ACCEPTED", 0), (answers.REFUSED, "REFUSED", 1)],
)
def test_authenticate_acts_as_an_agent(
    pki: Pki, start_node, stranger: Cli, answer, words: str, exit_code: int
) -> None:
    node = start_node(pki.credentials(mutual=True))
    node.answer("AuthenticationService/Authenticate", answer)

    result = stranger(
        *("authenticate", "alice", "--agents-node", node.address),
        *("--certificate", str(pki.agent.certificate), "--key", str(pki.agent.key)),
        text="2718K7PM-4XQ2\n",
    )

    assert result.stdout.strip() == words
    assert result.exit_code == exit_code
    assert "2718" not in result.output
    (request,) = node.requests("AuthenticationService/Authenticate")
    assert (request.username, request.passcode) == ("alice", "2718K7PM-4XQ2")


def test_authenticate_needs_a_certificate(stranger: Cli) -> None:
    result = stranger("authenticate", "alice")

    assert result.exit_code == 2
    assert "--certificate" in result.stderr
