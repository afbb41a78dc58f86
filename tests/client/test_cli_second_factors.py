# SPDX-License-Identifier: Apache-2.0
"""`sparecode login` and `sparecode admins second-factor`."""

import grpc

from sparecode.v1 import administrators_pb2, sessions_pb2
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

LOGIN = "SessionService/Login"
NEEDED = Failure(
    grpc.StatusCode.UNAUTHENTICATED,
    "SECOND_FACTOR_NEEDED",
    "a code of the second factor is needed",
)


def test_login_prompts_for_a_needed_code(cli: Cli) -> None:
    """The second try has other content, so it is another request (Q1)."""
    cli.node.answer(LOGIN, NEEDED, sessions_pb2.LoginResponse(session="s", role="x"))
    result = cli("login", "root", text="secret password\n123456\n")
    assert result.exit_code == 0, result.output
    first, second = cli.node.requests(LOGIN)
    assert (first.second_factor, second.second_factor) == ("", "123456")
    assert first.request_id != second.request_id
    assert "123456" not in result.output


def test_secret_is_shown_once_and_confirmed_by_a_code(cli: Cli) -> None:
    cli.node.answer(
        "AdministratorService/EnrollSecondFactor",
        administrators_pb2.EnrollSecondFactorResponse(
            secret="JBSWY3DPEHPK3PXP",
            uri="otpauth://totp/Sparecode:root?secret=JBSWY3DPEHPK3PXP",
            draft=b"draft",
        ),
    )
    cli.node.answer(
        "AdministratorService/ConfirmSecondFactor",
        administrators_pb2.ConfirmSecondFactorResponse(commit=answers.COMMIT),
    )
    result = cli("admins", "second-factor", "enroll", text="123456\n")
    assert result.exit_code == 0, result.output
    assert "JBSWY3DPEHPK3PXP" in result.stderr
    assert "you need a code to sign in" in result.stdout
    (confirmed,) = cli.node.requests("AdministratorService/ConfirmSecondFactor")
    assert (confirmed.draft, confirmed.code) == (b"draft", "123456")
