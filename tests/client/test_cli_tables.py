# SPDX-License-Identifier: Apache-2.0
"""Tables and JSON of commands that show something."""

import grpc
import pytest

from sparecode.v1 import (
    users_pb2,
)
from tests.client import answers
from tests.client.conftest import Cli

SERIAL = "000123456789"
Code = grpc.StatusCode


def test_users_as_a_table(cli: Cli) -> None:
    cli.node.answer("UserService/ListUsers", answers.USERS)

    lines = cli("users", "list").stdout.splitlines()

    assert lines[0].split() == ["User", "name", "Display", "name", "State", "Tokens"]
    assert lines[1].split() == ["alice", "Alice", "Example", "enabled", SERIAL]
    assert lines[2].split() == ["bob", "disabled"]


def test_table_in_a_terminal_has_its_colors_only(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    cli.node.answer("UserService/ListUsers", answers.USERS)

    output = cli("users", "list").stdout

    assert "\x1b[1m" in output
    assert "\N{REPLACEMENT CHARACTER}" not in output


def test_users_as_json(cli: Cli) -> None:
    cli.node.answer("UserService/ListUsers", answers.USERS)

    answer = cli.json("users", "list")

    assert answer["complete"] is True
    assert answer["position"] == {
        "node_id": "n2",
        "applied_index": 1042,
        "stale": False,
    }
    assert answer["users"][0]["username"] == "alice"
    assert answer["users"][0]["token_serials"] == [SERIAL]
    assert answer["users"][1]["locked"] is True


def test_list_reads_pages_up_to_the_limit(cli: Cli) -> None:
    pages = [
        users_pb2.ListUsersResponse(
            users=[users_pb2.User(username=f"u{n}")], next_page_token=f"t{n}"
        )
        for n in range(3)
    ]
    cli.node.answer("UserService/ListUsers", *pages)

    result = cli("users", "list", "--limit", "2")

    requests = cli.node.requests("UserService/ListUsers")
    assert [(r.page_size, r.page_token) for r in requests] == [(2, ""), (1, "t0")]
    assert "u1" in result.stdout
    assert "u2" not in result.stdout
    assert "more than 2 users" in result.stderr


def test_names_cannot_control_the_terminal(cli: Cli) -> None:
    """A display name with control characters cannot change the administrator's screen."""
    evil = users_pb2.User(username="eve", display_name="\x1b[2J[red]\x9b31m\u202e")
    cli.node.answer("UserService/GetUser", users_pb2.GetUserResponse(user=evil))
    cli.node.answer("UserService/ListUsers", users_pb2.ListUsersResponse(users=[evil]))

    for command in ("show", "list"):
        args = ["eve"] if command == "show" else []
        output = cli("users", command, *args).stdout
        assert "[red]" in output
        assert not {"\x1b", "\x9b", "\u202e"} & set(output)


def test_a_user_is_explained_obstacles_first(cli: Cli) -> None:
    """(U3) Then the attempts, newest first, with where each came from."""
    cli.node.answer("UserService/ExplainUser", answers.EXPLANATION)

    lines = cli("users", "explain", "alice").stdout.splitlines()

    assert lines[0] == (
        "Emergency codes are locked until 2026-12-01 12:00 UTC after 5 wrong passcodes. "
        "Unlock the user."
    )
    assert lines[1] == ""
    assert lines[2].startswith("2026-12-01")
    assert lines[2].endswith(" at vpn, from 192.0.2.1, to mail, through node n2:")
    assert lines[3].startswith("The passcode")
    assert cli.json("users", "explain", "alice")["blockers"][0]["failures"] == 5


def test_a_user_without_obstacles_is_explained(cli: Cli) -> None:
    cli.node.answer(
        "UserService/ExplainUser", users_pb2.ExplainUserResponse(username="alice")
    )

    output = cli("users", "explain", "ALICE").stdout

    assert output == (
        "Nothing stands in the way of alice.\nNo sign-in attempt is known.\n"
    )


def test_a_node_that_fetches_older_attempts_says_so(cli: Cli) -> None:
    """(U1, U3) It does not look as if the user had never tried."""
    answer = users_pb2.ExplainUserResponse(
        username="alice", older_attempts_missing=True
    )
    answer.position.node_id = "n3"
    cli.node.answer("UserService/ExplainUser", answer)

    result = cli("users", "explain", "alice", columns=200)

    assert result.stdout == "Nothing stands in the way of alice.\n"
    assert result.stderr == (
        "Node n3 is still fetching older audit events: older sign-in attempts may be "
        "missing. Another node may have them (--node).\n"
    )
    assert cli.json("users", "explain", "alice")["older_attempts_missing"] is True


def test_tokens_as_a_table(cli: Cli) -> None:
    cli.node.answer("TokenService/ListTokens", answers.TOKENS)

    lines = cli("tokens", "list", "--enabled", "--user", "alice").stdout.splitlines()

    assert "TOTP 6 digits" in lines[1]
    assert "enabled, lost, 2 codes" in lines[1]
    assert "HOTP SHA256 8 digits" in lines[2]
    assert "none needed" in lines[2]
    assert max(map(len, lines)) <= 80
    (request,) = cli.node.requests("TokenService/ListTokens")
    assert (request.enabled, request.username) == (True, "alice")


def test_token_as_json_has_times_and_seconds(cli: Cli) -> None:
    cli.node.answer("TokenService/GetToken", answers.TOKEN)

    answer = cli.json("tokens", "show", SERIAL)

    assert answer["algorithm"] == "totp"
    assert answer["period"] == 30
    assert answer["expire_time"] == "2027-06-01T00:00:00Z"
    assert answer["pin_rule"] == "prepended"


def test_emergency_access_shows_where_each_code_was_used(cli: Cli) -> None:
    cli.node.answer("EmergencyAccessService/GetEmergencyAccess", answers.ACCESS)

    result = cli("emergency", "show", SERIAL)

    assert "on, 1 live code, until 2026-12-01 12:00 UTC" in result.stdout
    assert "Set issued by root on 2026-11-24 12:00 UTC (node n2, log index 1042)" in (
        result.stdout
    )
    used = next(line for line in result.stdout.splitlines() if " used " in line)
    assert used.split() == [
        "1",
        "used",
        *["2026-11-25", "12:00", "UTC", "vpn", "n3", "1050"],
    ]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_emergency_access_is_listed(cli: Cli) -> None:
    cli.node.answer("EmergencyAccessService/ListEmergencyAccess", answers.ACCESSES)

    result = cli(
        *("emergency", "list", "--live-max", "2", "--ends-before", "2026-12-02T00:00Z")
    )

    assert f"{SERIAL}" in result.stdout
    assert "2026-12-01 12:00 UTC" in result.stdout
    (request,) = cli.node.requests("EmergencyAccessService/ListEmergencyAccess")
    assert request.live_codes_max == 2
    assert request.end_before.ToJsonString() == "2026-12-02T00:00:00Z"


def test_cluster_status_compares_digests(cli: Cli) -> None:
    cli.node.answer("ClusterService/GetStatus", answers.STATUS)

    result = cli("cluster", "status", "--digest")

    assert result.exit_code == 0
    assert "primary n1, quorum reached" in result.stdout
    assert "All 3 members have the same state." in result.stdout
    assert "-12 ms" in result.stdout
    assert (
        "Audit log: event 57, head cdcdcdcdcdcdcdcd, identical on 3 of 3 members."
        in result.stdout.splitlines()
    )
    assert "unreachable" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert cli.node.requests("ClusterService/GetStatus")[0].digest


def test_cluster_status_without_a_quorum_is_exit_code_3(cli: Cli) -> None:
    lost = type(answers.STATUS)()
    lost.CopyFrom(answers.STATUS)
    lost.quorum, lost.primary = False, ""
    lost.members[1].digest = "cd" * 32
    cli.node.answer("ClusterService/GetStatus", lost)

    result = cli("cluster", "status", "--digest")

    assert result.exit_code == 3
    assert "no primary known, NO QUORUM" in result.stdout
    assert "The states DIFFER" in result.stdout


def test_cluster_status_compares_the_heads_of_the_audit_logs(cli: Cli) -> None:
    """(U1) Only heads with the same number of events can be compared."""
    status = type(answers.STATUS)()
    status.CopyFrom(answers.STATUS)
    status.members[1].audit_sequence, status.members[1].audit_head = 56, "ef" * 32
    status.members[2].audit_sequence, status.members[2].audit_head = 0, ""
    behind = type(status)()
    behind.CopyFrom(status)
    status.members[2].audit_sequence, status.members[2].audit_head = 57, "00" * 32
    silent = type(status)()
    silent.CopyFrom(status)
    for member in silent.members:
        member.audit_head = ""
    cli.node.answer("ClusterService/GetStatus", behind, status, silent)

    assert "identical on 1 of 3 members" in cli("cluster", "status").stdout
    assert "The audit logs DIFFER at event 57" in cli("cluster", "status").stdout
    assert "no member has reported its head" in cli("cluster", "status").stdout


def test_cluster_status_as_json_has_the_heads(cli: Cli) -> None:
    """(U1)."""
    cli.node.answer("ClusterService/GetStatus", answers.STATUS)
    members = cli.json("cluster", "status")["members"]
    assert {each["audit_sequence"] for each in members} == {57}
    assert {each["audit_head"] for each in members} == {"cd" * 32}
