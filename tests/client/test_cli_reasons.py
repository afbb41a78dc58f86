# SPDX-License-Identifier: Apache-2.0
"""Every refusal of the rules, as whoever typed the command reads it."""

import pytest

from sparecode_client.cli.terminal.exit_codes import NEXT
from sparecode_node.domain.outcomes import Reason
from sparecode_node.rpc.errors import REASONS
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
"""Of passcodes: no caller is told (A6)."""

SAID_BY_THE_CASE = {
    Reason.CODE_FORMAT,
    Reason.GUESS_ODDS,
    Reason.LIFETIME_BEYOND_CAP,
    Reason.LIFETIME_NEEDED,
    Reason.TOKEN_FORMAT,
}
"""Their words have numbers in them: the rules write them, for each case."""

TOLD = sorted(set(Reason) - AUDIT_ONLY)


@pytest.mark.parametrize("reason", TOLD)
def test_refusal_says_in_words_what_it_is_and_what_to_do(
    cli: Cli, reason: Reason
) -> None:
    """On standard error, in one line or two, with an exit code that says so."""
    row = REASONS[reason]
    words = row.words or ("as the rules say it" if reason in SAID_BY_THE_CASE else "")
    assert words, f"{reason.name} has no words in rpc/errors.py"
    said = f"{words}; {row.advice}" if row.advice else words
    failure = Failure(row.code, row.reason, said, retry_after_s=60)
    cli.node.answer("UserService/GetUser", failure)

    result = cli("users", "show", "alice")

    assert result.exit_code != 0
    first, *then = result.stderr.splitlines()
    assert first.startswith("sparecode: ")
    assert said in first
    assert len(then) <= 1
    # What to do: in a line of its own, or after the semicolon.
    assert then or ";" in first, f"{reason.name}: what is there to do?"


def test_advice_is_for_reasons_that_there_are() -> None:
    """A reason that was renamed takes its advice along."""
    assert set(NEXT) <= {reason.name for reason in TOLD}
    assert max(map(len, NEXT.values())) <= 80
