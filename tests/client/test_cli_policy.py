# SPDX-License-Identifier: Apache-2.0
"""`sparecode policy`: what people and programs read, and what they change."""

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


def test_a_policy_that_comes_goes_back_the_same() -> None:
    position = position_in(answers.POSITION)
    value = policy_in(answers.POLICY.policy, position)

    assert policy_out(value) == answers.POLICY.policy
    assert policy_in(policy_out(value), position) == value
    assert value.lifetime_max is None


def test_the_policy_is_shown_as_it_is_typed(policy: Cli) -> None:
    shown = dict(
        line.split(None, 1) for line in policy("policy", "show").stdout.splitlines()
    )

    assert len(shown) == len(NAMES)
    assert shown["version"] == "4"
    assert shown["lifetime_max"] == "none"
    assert shown["backup_recipients"] == "none"
    assert shown["lock_max"] == "1d12h"
    assert shown["lock_until_unlocked"] == "no"


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


def test_single_values_are_changed_in_what_was_read(policy: Cli) -> None:
    result = policy(
        *("policy", "update", "--set", "lifetime_max=30d"),
        *("--set", "lock_until_unlocked=yes", "--set", "code_length=10"),
    )

    assert result.stdout == ("The policy is at version 5 (node n2, log index 1042).\n")
    (request,) = policy.node.requests(UPDATE)
    wanted = policy_pb2.Policy.FromString(answers.POLICY.policy.SerializeToString())
    wanted.lifetime_max.FromSeconds(30 * 86_400)
    wanted.lock_until_unlocked = True
    wanted.code_length = 10
    assert request.policy == wanted


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
def test_wrong_usage_asks_no_node(
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
def test_a_file_that_is_no_policy_is_refused(
    policy: Cli, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)

    result = policy("policy", "update", "--file", str(file))

    assert result.exit_code == 2
    assert words in result.stderr
    assert not policy.node.calls


@pytest.mark.parametrize("value", ['"8"', "true", "8.5", "null"])
def test_a_value_of_another_kind_is_refused(
    policy: Cli, tmp_path: Path, value: str
) -> None:
    file = tmp_path / "policy.json"
    text = policy("policy", "show", "--output", "json").stdout
    file.write_text(text.replace('"code_length": 8', f'"code_length": {value}'))

    result = policy("policy", "update", "--file", str(file))

    assert result.exit_code == 2
    assert not policy.node.requests(UPDATE)


def test_a_refusal_says_what_to_do(policy: Cli) -> None:
    changed = Failure(Code.ABORTED, "VERSION", "the policy is at version 5 by now")
    odds = Failure(Code.FAILED_PRECONDITION, "GUESS_ODDS", "1 in 10: make codes longer")
    policy.node.answer(UPDATE, changed, replace(odds))

    first = policy("policy", "update", "--set", "lock=1h")
    second = policy("policy", "update", "--set", "lock=1h")

    assert (first.exit_code, second.exit_code) == (1, 1)
    assert "version 5 by now" in first.stderr
    assert "Read it again" in first.stderr
    assert "make codes longer" in second.stderr
