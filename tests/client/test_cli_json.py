# SPDX-License-Identifier: Apache-2.0
"""The keys of every `--output json`, recorded, because scripts rely on them."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from sparecode.v1 import (
    agents_pb2,
    emergency_access_pb2,
    tokens_pb2,
    users_pb2,
)
from tests.client import answers
from tests.client.conftest import Cli

SERIAL = "000123456789"
KEYS = Path(__file__).parent / "testdata" / "json_keys.txt"
EMERGENCY = "EmergencyAccessService"

CASES: dict[str, dict[str, Message]] = {
    "whoami": {"SessionService/WhoAmI": answers.WHO},
    "users create alice": {
        "UserService/CreateUser": users_pb2.CreateUserResponse(commit=answers.COMMIT)
    },
    "users show alice": {"UserService/GetUser": answers.USER},
    "users list": {"UserService/ListUsers": answers.USERS},
    f"tokens show {SERIAL}": {"TokenService/GetToken": answers.TOKEN},
    "tokens list": {"TokenService/ListTokens": answers.TOKENS},
    f"tokens assign {SERIAL} alice": {
        "TokenService/AssignToken": tokens_pb2.AssignTokenResponse(
            commit=answers.COMMIT
        )
    },
    f"emergency issue {SERIAL} --expires 7d": {
        "TokenService/GetToken": answers.TOKEN,
        f"{EMERGENCY}/GenerateTokencodes": answers.GENERATED,
        f"{EMERGENCY}/SaveEmergencyAccess": answers.SAVED,
    },
    f"emergency fixed {SERIAL}": {
        "TokenService/GetToken": answers.TOKEN,
        f"{EMERGENCY}/IssueFixedTokencode": answers.FIXED,
    },
    f"emergency show {SERIAL}": {f"{EMERGENCY}/GetEmergencyAccess": answers.ACCESS},
    "emergency list": {f"{EMERGENCY}/ListEmergencyAccess": answers.ACCESSES},
    f"emergency disable {SERIAL}": {
        f"{EMERGENCY}/DisableEmergencyAccess": (
            emergency_access_pb2.DisableEmergencyAccessResponse(commit=answers.COMMIT)
        )
    },
    "agents list": {"AgentService/ListAgents": answers.AGENTS},
    "agents add vpn spiffe://example.com/vpn": {
        "AgentService/RegisterAgent": agents_pb2.RegisterAgentResponse(
            commit=answers.COMMIT
        )
    },
    "admins list": {"AdministratorService/ListAdministrators": answers.ADMINISTRATORS},
    "policy show": {"PolicyService/GetPolicy": answers.POLICY},
    "audit list": {"AuditService/ListAuditEvents": answers.AUDIT},
    "cluster status": {"ClusterService/GetStatus": answers.STATUS},
}


def paths(value: Any, at: str = "") -> set[str]:
    """Return the paths and types of values; the items of a list share one path."""
    match value:
        case dict():
            return {
                path
                for name, each in value.items()
                for path in paths(each, f"{at}.{name}" if at else name)
            } or {f"{at} {{}}"}
        case list():
            return {path for each in value for path in paths(each, f"{at}[]")} or {
                f"{at}[]"
            }
        case _:
            return {f"{at} {type(value).__name__}"}


def recorded() -> dict[str, set[str]]:
    """Return the recorded paths of each command."""
    value_paths: dict[str, set[str]] = {}
    for block in KEYS.read_text().split("\n\n"):
        command, *lines = block.strip().splitlines()
        value_paths[command] = {line.strip() for line in lines}
    return value_paths


def test_keys_of_every_answer_are_as_recorded(cli: Cli, *, rewrite: bool) -> None:
    """A key may be added, but never renamed, removed, or changed in type."""
    value_paths = {}
    for command, methods in CASES.items():
        for method, answer in methods.items():
            cli.node.answer(method, answer)
        result = cli(*command.split(), "--output", "json")
        assert result.exit_code == 0, (command, result.output)
        value_paths[command] = paths(json.loads(result.stdout))
    if rewrite:
        KEYS.parent.mkdir(exist_ok=True)
        blocks = [
            "\n  ".join([name, *sorted(value_paths[name])]) for name in value_paths
        ]
        KEYS.write_text("\n\n".join(blocks) + "\n")
    recorded_paths = recorded()
    assert set(recorded_paths) == set(value_paths)
    lost = {name: recorded_paths[name] - value_paths[name] for name in recorded_paths}
    assert not {name: each for name, each in lost.items() if each}


@pytest.mark.parametrize(
    ("value", "value_paths"),
    [
        ({"a": {"b": 1}}, {"a.b int"}),
        ({"a": [{"b": None}, {"c": "x"}]}, {"a[].b NoneType", "a[].c str"}),
        ({"a": []}, {"a[]"}),
    ],
)
def test_paths_name_every_value(value: Any, value_paths: set[str]) -> None:
    assert paths(value) == value_paths
