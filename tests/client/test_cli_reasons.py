# SPDX-License-Identifier: Apache-2.0
"""Messages of the CLI for every refusal of the rules."""

import grpc
import pytest

from sparecode_client.cli.terminal.exit_codes import NEXT
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.error_table import EXCEPTIONS, REASONS
from tests.client.conftest import Cli
from tests.client.fakes import Failure

AUDIT_ONLY = {
    Reason.AGENT_DISABLED,
    Reason.CHALLENGE_NOT_VALID,
    Reason.CODE_NOT_LIVE,
    Reason.LOCKED,
    Reason.RECOVERED_TOKEN_REFUSED,
    Reason.RESOURCE_NOT_COVERED,
    Reason.SET_EXPIRED,
    Reason.USER_NOT_ALLOWED,
    Reason.WRONG_PASSCODE,
    Reason.WRONG_PIN,
}
"""Reasons of refused passcodes, which no caller learns (A6)."""

SAID_BY_THE_CASE = {
    Reason.CODE_FORMAT,
    Reason.GUESS_ODDS,
    Reason.LIFETIME_BEYOND_CAP,
    Reason.LIFETIME_NEEDED,
    Reason.TOKEN_FORMAT,
}
"""Reasons whose message has numbers, which the rules write for each case."""

SHOWN = sorted(set(Reason) - AUDIT_ONLY)


@pytest.mark.parametrize("reason", SHOWN)
def test_refusal_has_a_message_and_a_next_step(cli: Cli, reason: Reason) -> None:
    """On stderr, in one or two lines, with a nonzero exit code."""
    row = REASONS[reason]
    words = row.words or ("as the rules say it" if reason in SAID_BY_THE_CASE else "")
    assert words, f"{reason.name} has no words in services/error_table.py"
    message = f"{words}; {row.advice}" if row.advice else words
    failure = Failure(
        grpc.StatusCode[row.code.name], row.reason, message, retry_after_s=60
    )
    cli.node.answer("UserService/GetUser", failure)

    result = cli("users", "show", "alice")

    assert result.exit_code != 0
    first, *then = result.stderr.splitlines()
    assert first.startswith("sparecode: ")
    assert message in first
    assert len(then) <= 1
    # What to do: in a line of its own, or after the semicolon.
    assert then or ";" in first, f"{reason.name}: what is there to do?"


def test_advice_is_only_for_known_reasons() -> None:
    """Advice exists only for known reasons, even after one is renamed."""
    others = {answer.reason for answer in EXCEPTIONS.values()}
    assert set(NEXT) <= {reason.name for reason in SHOWN} | others
    assert max(map(len, NEXT.values())) <= 80
