# SPDX-License-Identifier: Apache-2.0
"""`sparecode policy`: output and changes."""

from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import policy_pb2
from sparecode_client.admin.policy import policy_in, policy_out
from sparecode_client.cli.commands.policy import NAMES
from sparecode_client.connection.wire import position_in
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

GET, UPDATE = "PolicyService/GetPolicy", "PolicyService/UpdatePolicy"
UPDATED = policy_pb2.UpdatePolicyResponse(commit=answers.COMMIT, version=5)
Code = grpc.StatusCode


@pytest.fixture
def policy(cli: Cli) -> Cli:
    cli.node.answer(GET, answers.POLICY)
    cli.node.answer(UPDATE, UPDATED)
    return cli


def test_a_policy_survives_a_round_trip() -> None:
    position = position_in(answers.POSITION)
    value = policy_in(answers.POLICY.policy, position)

    assert policy_out(value) == answers.POLICY.policy
    assert policy_in(policy_out(value), position) == value
    assert value.lifetime_max is None


def test_the_policy_is_shown_in_command_line_form(policy: Cli) -> None:
    output = dict(
        line.split(None, 1) for line in policy("policy", "show").stdout.splitlines()
    )

    assert len(output) == len(NAMES)
    assert output["version"] == "4"
    assert output["lifetime_max"] == "none"
    assert output["backup_recipients"] == "none"
    assert output["lock_max"] == "1d12h"
    assert output["lock_until_unlocked"] == "no"


def test_the_policy_as_json(policy: Cli) -> None:
    answer = policy.json("policy", "show")

    assert answer["version"] == 4
    assert answer["lock"] == 900.0
    assert answer["lifetime_max"] is None
    assert answer["position"] == {
        "node_id": "n2",
        "applied_index": 1042,
        "stale": False,
    }


def test_single_values_are_changed(policy: Cli) -> None:
    result = policy(
        *("policy", "update", "--set", "lifetime_max=30d"),
        *("--set", "lock_until_unlocked=yes", "--set", "code_length=10"),
    )

    assert result.stdout == ("The policy is at version 5 (node n2, log index 1042).\n")
    (request,) = policy.node.requests(UPDATE)
    values = policy_pb2.Policy.FromString(answers.POLICY.policy.SerializeToString())
    values.lifetime_max.FromSeconds(30 * 86_400)
    values.lock_until_unlocked = True
    values.code_length = 10
    assert request.policy == values


def test_a_whole_policy_comes_from_a_file(policy: Cli, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(policy("policy", "show", "--output", "json").stdout)
    policy.node.calls.clear()

    answer = policy.json("policy", "update", "--file", str(file))

    assert answer == {"version": 5, "node_id": "n2", "index": 1042}
    (request,) = policy.node.requests(UPDATE)
    assert request.policy == answers.POLICY.policy
    assert not policy.node.requests(GET)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --set NAME=VALUE or --file FILE"),
        (["--set", "lock=1h", "--file", "x"], "either --set NAME=VALUE or --file FILE"),
        (["--set", "lock"], "use NAME=VALUE"),
        (["--set", "version=7"], "use NAME=VALUE"),
        (["--set", "colour=red"], "use NAME=VALUE"),
        (["--set", "code_length=ten"], "ten is not a number"),
        (["--set", "lock=2026-12-01T12:00Z"], "is not a duration"),
        (["--set", "lock=none"], "neither a duration"),
        (["--set", "lock_until_unlocked=perhaps"], "neither yes nor no"),
    ],
)
def test_wrong_usage_calls_no_node(
    policy: Cli, arguments: list[str], words: str
) -> None:
    result = policy("policy", "update", *arguments)

    assert result.exit_code == 2
    assert words in result.stderr
    assert not policy.node.calls


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "not the output of policy show"),
        ("[]", "not the output of policy show"),
        ('{"version": 4}', "has no 'code_length'"),
    ],
)
def test_an_invalid_policy_file_is_refused(
    policy: Cli, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)

    result = policy("policy", "update", "--file", str(file))

    assert result.exit_code == 2
    assert words in result.stderr
    assert not policy.node.calls


@pytest.mark.parametrize("value", ['"8"', "true", "8.5", "null"])
def test_a_value_of_the_wrong_type_is_refused(
    policy: Cli, tmp_path: Path, value: str
) -> None:
    file = tmp_path / "policy.json"
    text = policy("policy", "show", "--output", "json").stdout
    file.write_text(text.replace('"code_length": 8', f'"code_length": {value}'))

    result = policy("policy", "update", "--file", str(file))

    assert result.exit_code == 2
    assert not policy.node.requests(UPDATE)


def test_a_refusal_names_the_next_step(policy: Cli) -> None:
    changed = Failure(Code.ABORTED, "VERSION", "the policy is at version 5 by now")
    odds = Failure(Code.FAILED_PRECONDITION, "GUESS_ODDS", "1 in 10: make codes longer")
    policy.node.answer(UPDATE, changed, replace(odds))

    first = policy("policy", "update", "--set", "lock=1h")
    second = policy("policy", "update", "--set", "lock=1h")

    assert (first.exit_code, second.exit_code) == (1, 1)
    assert "version 5 by now" in first.stderr
    assert "Read it again" in first.stderr
    assert "make codes longer" in second.stderr
