# SPDX-License-Identifier: Apache-2.0
"""`sparecode explain`: every reason has a meaning, without a node."""

import json

import pytest
from typer.testing import CliRunner

from sparecode_client.cli import app
from sparecode_client.cli.commands import explain
from sparecode_client.cli.terminal.exit_codes import NEXT
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.error_table import EXCEPTIONS, REASONS


def run(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_reason_is_explained() -> None:
    known = {each.reason for each in (*REASONS.values(), *EXCEPTIONS.values())}
    assert known | set(NEXT) <= set(explain.reasons())
    assert {each.name for each in Reason} <= set(explain.reasons())
    for reason in explain.reasons():
        shown = json.loads(run(reason, "-o", "json"))
        assert shown["reason"] == reason
        assert shown["meaning"], reason
        assert run(reason).startswith(f"{reason}: ")
    for texts in (explain.AUDIT_LOG, explain.BY_CASE):
        assert not [each for each in texts if REASONS[Reason[each]].words]


def test_advised_commands_exist() -> None:
    runner = CliRunner()
    for advice in explain._ADVICE.values():
        words = advice.partition(": sparecode ")[2].split()
        assert not words or runner.invoke(app, [*words[:2], "--help"]).exit_code == 0


@pytest.mark.parametrize("typed", ["wrong_pin", "WRONG-PIN", " Wrong_Pin "])
def test_a_reason_may_be_typed_as_the_audit_log_has_it(typed: str) -> None:
    assert run(typed) == (
        "WRONG_PIN: the code is right, but the PIN is wrong or missing.\n"
        "Agents and users do not learn this reason. The audit log has it.\n"
    )


def test_an_unknown_reason_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["explain", "WRONG_PNI"])
    assert result.exit_code == 2
    assert "did you mean WRONG_PIN" in result.stderr


def test_reasons_are_completed() -> None:
    assert explain.complete_reason("wrong_p") == [
        "WRONG_PASSCODE",
        "WRONG_PASSWORD",
        "WRONG_PIN",
    ]
