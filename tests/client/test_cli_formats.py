# SPDX-License-Identifier: Apache-2.0
"""The forms for programs: JSON, YAML and CSV, and errors as JSON on stderr."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import grpc
import pytest
import yaml

from sparecode.v1 import cluster_pb2, users_pb2
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import OUTCOME_UNKNOWN, Failure

Code = grpc.StatusCode
SERIAL = "000123456789"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_yaml_has_the_values_of_json(cli: Cli) -> None:
    cli.node.answer("TokenService/GetToken", answers.TOKEN)
    shown = cli("tokens", "show", SERIAL, "-o", "yaml")
    assert shown.exit_code == 0
    assert yaml.safe_load(shown.stdout) == cli.json("tokens", "show", SERIAL)


@pytest.mark.parametrize("option", [["-o", "csv"], ["-ocsv"], ["--output=csv"]])
def test_csv_has_one_row_for_each_item(cli: Cli, option: list[str]) -> None:
    cli.node.answer("UserService/ListUsers", answers.USERS)
    shown = cli("users", "list", *option)
    assert shown.exit_code == 0, shown.stderr
    alice, bob = rows(shown.stdout)
    assert alice["username"] == "alice"
    assert alice["token_serials"] == SERIAL
    assert (bob["enabled"], bob["locked"]) == ("false", "true")


def test_csv_separates_the_items_of_a_list_by_semicolons(cli: Cli) -> None:
    """A spreadsheet and `cut` read them; an item that has a semicolon stays one."""
    user = users_pb2.User(
        username="eve", token_serials=["11", "22"], groups=["a;b", "c\\d", "=1"]
    )
    none = users_pb2.User(username="adam", groups=["=1"])
    cli.node.answer(
        "UserService/ListUsers", users_pb2.ListUsersResponse(users=[user, none])
    )
    eve, adam = rows(cli("users", "list", "-o", "csv").stdout)
    assert eve["token_serials"] == "11;22"
    assert eve["groups"] == r"a\;b;c\\d;=1"
    assert (adam["token_serials"], adam["groups"]) == ("", "'=1")


def test_csv_has_values_in_a_list_as_json(cli: Cli) -> None:
    cli.node.answer("EmergencyAccessService/GetEmergencyAccess", answers.ACCESS)
    (row,) = rows(cli("emergency", "show", SERIAL, "-o", "csv").stdout)
    (shown,) = cli.json("emergency", "show", SERIAL)["sets"]
    assert json.loads(row["sets"].replace("\\;", ";")) == shown


def test_csv_of_one_thing_is_one_row(cli: Cli) -> None:
    cli.node.answer(
        "UserService/CreateUser", users_pb2.CreateUserResponse(commit=answers.COMMIT)
    )
    (row,) = rows(cli("users", "create", "alice", "-o", "csv").stdout)
    assert row == {
        "username": "alice",
        "node_id": answers.COMMIT.node_id,
        "index": str(answers.COMMIT.index),
    }


def test_no_spreadsheet_executes_a_name(cli: Cli) -> None:
    evil = users_pb2.User(username="eve", display_name="=HYPERLINK(0)")
    cli.node.answer("UserService/ListUsers", users_pb2.ListUsersResponse(users=[evil]))
    (row,) = rows(cli("users", "list", "-o", "csv").stdout)
    assert row["display_name"] == "'=HYPERLINK(0)"


def test_watched_members_have_one_header(cli: Cli) -> None:
    status = cluster_pb2.WatchStatusResponse(status=answers.STATUS)
    cli.node.answer("ClusterService/WatchStatus", ([status, status], None))
    shown = cli("cluster", "watch", "--count", "2", "-o", "csv")
    assert [row["node_id"] for row in rows(shown.stdout)] == ["n1", "n2", "n3"] * 2
    cli.node.answer("ClusterService/WatchStatus", ([status, status], None))
    shown = cli("cluster", "watch", "--count", "2", "-o", "yaml")
    assert [each["primary"] for each in yaml.safe_load_all(shown.stdout)] == ["n1"] * 2


def test_an_empty_list_has_no_row(cli: Cli) -> None:
    cli.node.answer("UserService/ListUsers", users_pb2.ListUsersResponse())
    assert cli("users", "list", "-o", "csv").stdout == ""


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (
            Failure(Code.FAILED_PRECONDITION, "TOKEN_EXPIRED", "the token has expired"),
            {"reason": "TOKEN_EXPIRED", "message": "the token has expired"},
        ),
        (
            Failure(Code.INVALID_ARGUMENT, "FIELD", "too long", field="email"),
            {"reason": "FIELD", "field": "email", "exit_code": 2},
        ),
        (
            Failure(Code.RESOURCE_EXHAUSTED, "RATE", "", retry_after_s=60),
            {"reason": "RATE", "retry_after_s": 60.0, "exit_code": 3},
        ),
        (
            Failure(Code.UNAUTHENTICATED, "SESSION_ENDED", "ended"),
            {"next_step": "Sign in: sparecode login NAME", "exit_code": 4},
        ),
    ],
)
@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
def test_an_error_is_json_with_its_reason(
    cli: Cli, failure: Failure, error: dict[str, Any], form: str
) -> None:
    cli.node.answer("UserService/GetUser", failure)
    result = cli("users", "show", "alice", "-o", form)
    assert result.stdout == ""
    shown = json.loads(result.stderr)
    assert {name: shown[name] for name in error} == error
    assert result.exit_code == shown["exit_code"]


def test_an_unknown_outcome_has_the_request_id(cli: Cli) -> None:
    """(A7) A program repeats the command with it."""
    cli.node.answer(
        "UserService/CreateUser", replace(OUTCOME_UNKNOWN, retry_after_s=60)
    )
    result = cli("users", "create", "alice", "-o", "json")
    (request_id,) = {
        each.request_id for each in cli.node.requests("UserService/CreateUser")
    }
    assert json.loads(result.stderr)["request_id"] == request_id


@pytest.mark.parametrize(
    "arguments",
    [
        ["users", "show"],
        ["users", "display", "alice"],
        ["users", "list", "--limit", "0"],
        ["--no-such-option"],
        ["cluster", "remove", "n3"],
    ],
)
def test_wrong_usage_is_json_too(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments, "-o", "json")
    assert result.exit_code == 2
    shown = json.loads(result.stderr)
    assert (shown["reason"], shown["exit_code"]) == ("USAGE", 2)
    assert shown["message"]
    # And not once more for the next command, which a person reads.
    assert "Usage: " in cli("users", "show").stderr


def test_version_and_short_help(cli: Cli) -> None:
    assert cli("--version").stdout.startswith("sparecode ")
    assert cli("-h").stdout == cli("--help").stdout
    assert cli("users", "list", "-h").stdout == cli("users", "list", "--help").stdout
