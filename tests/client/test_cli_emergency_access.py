# SPDX-License-Identifier: Apache-2.0
"""`sparecode emergency issue` and `fixed`: codes shown once, and wrong usage."""

import json
from collections.abc import Callable

import grpc
import pytest

from sparecode.v1 import (
    emergency_access_pb2,
    types_pb2,
    users_pb2,
)
from tests.client import answers
from tests.client.conftest import Cli, Pki
from tests.client.fakes import Failure

SERIAL = "000123456789"
FIXED = "EmergencyAccessService/IssueFixedTokencode"
Code = grpc.StatusCode


@pytest.fixture
def issuing(cli: Cli) -> Cli:
    cli.node.answer("TokenService/GetToken", answers.TOKEN)
    cli.node.answer("EmergencyAccessService/GenerateTokencodes", answers.GENERATED)
    cli.node.answer("EmergencyAccessService/SaveEmergencyAccess", answers.SAVED)
    cli.node.answer("UserService/ExplainUser", users_pb2.ExplainUserResponse())
    return cli


def test_issued_codes_are_shown_once(issuing: Cli) -> None:
    """(I9, I7) Ordinal, grouped code, effective end, node and index, once each."""
    result = issuing("emergency", "issue", SERIAL, "--count", "2", "--expires", "7d")

    assert result.exit_code == 0
    assert result.stdout == (
        "Emergency codes for token 000123456789 of alice\n"
        "\n"
        "   1  K7PM-4XQ2\n"
        "   2  9HJT-WE3R\n"
        "\n"
        "Type          the PIN, then the code\n"
        "Valid until   2026-12-01 12:00 UTC\n"
        "If recovered  it is refused until an administrator reinstates it\n"
        "Live codes    2\n"
        "Voided        3 earlier codes\n"
        "Committed     through node n2 at log index 1042\n"
        "\n"
        "Each code works once. They cannot be shown again: hand them over now.\n"
    )
    assert result.stderr == "Warning: the token has no PIN\n"


def test_issued_codes_as_json(issuing: Cli) -> None:
    answer = issuing.json("emergency", "issue", SERIAL, "--count", "2")

    assert answer == {
        "serial": SERIAL,
        "username": "alice",
        "set_id": "set-1",
        "codes": [
            {"ordinal": 1, "code": "K7PM-4XQ2"},
            {"ordinal": 2, "code": "9HJT-WE3R"},
        ],
        "live_codes": 2,
        "voided_codes": 3,
        "end_time": "2026-12-01T12:00:00Z",
        "commit_time": "2026-11-24T12:00:00Z",
        "node_id": "n2",
        "index": 1042,
        "warnings": ["the token has no PIN"],
        "blockers": [],
    }


BLOCKED = users_pb2.ExplainUserResponse(
    username="alice",
    blockers=[
        answers.EXPLANATION.blockers[0],
        users_pb2.Blocker(
            reason="user_not_allowed",
            words="The allow lists of these agents exclude the user: vpn.",
            next_step="Add the user to an allow list.",
            agents=["vpn"],
        ),
        users_pb2.Blocker(
            reason="token_out_of_step", words="no code's", serial=SERIAL, factor="token"
        ),
        users_pb2.Blocker(
            reason="token_disabled", words="another token's", serial="000987654321"
        ),
    ],
)


@pytest.mark.parametrize("form", [[], ["--print"]])
def test_codes_that_would_be_refused_are_issued_with_a_warning(
    issuing: Cli, form: list[str]
) -> None:
    """(U3) On stderr, so that the sheet of the user does not have it."""
    issuing.node.answer("UserService/ExplainUser", BLOCKED)

    result = issuing("emergency", "issue", SERIAL, *form)

    assert result.exit_code == 0
    assert "K7PM-4XQ2" in result.stdout
    assert "locked" not in result.stdout
    assert result.stderr == (
        "Warning: the token has no PIN\n"
        "Warning: these codes are refused at present. Emergency codes are locked until "
        "2026-12-01 12:00 UTC after 5 wrong passcodes. Unlock the user.\n"
        "Warning: these codes are refused by some agents. The allow lists of these agents "
        "exclude the user: vpn. Add the user to an allow list.\n"
    )
    called = [call.method for call in issuing.node.calls]
    assert called.index("UserService/ExplainUser") < called.index(
        "EmergencyAccessService/SaveEmergencyAccess"
    )


def test_blockers_of_codes_as_json(issuing: Cli) -> None:
    issuing.node.answer("UserService/ExplainUser", BLOCKED)

    result = issuing("emergency", "issue", SERIAL, "-o", "json")

    blockers = json.loads(result.stdout)["blockers"]
    assert [each["reason"] for each in blockers] == ["locked", "user_not_allowed"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    "failure", [Code.UNIMPLEMENTED, Code.PERMISSION_DENIED], ids=lambda code: code.name
)
def test_codes_are_issued_by_a_node_that_explains_nothing(
    issuing: Cli, failure: grpc.StatusCode
) -> None:
    """A node of an earlier release does not know the call."""
    issuing.node.answer("UserService/ExplainUser", Failure(failure))

    result = issuing("emergency", "issue", SERIAL)

    assert result.exit_code == 0
    assert "K7PM-4XQ2" in result.stdout
    assert result.stderr == "Warning: the token has no PIN\n"


def test_sheet_has_a_box_for_every_code(issuing: Cli) -> None:
    result = issuing("emergency", "issue", SERIAL, "--print")

    assert "[ ]  1  K7PM-4XQ2\n[ ]  2  9HJT-WE3R\n" in result.stdout
    assert "Token        000123456789" in result.stdout
    assert "Valid until  2026-12-01 12:00 UTC" in result.stdout
    assert "Warning" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_fifty_codes_fit_on_eighty_columns(issuing: Cli) -> None:
    fifty = emergency_access_pb2.GenerateTokencodesResponse(
        codes=[
            emergency_access_pb2.Tokencode(ordinal=number, code="K7PM4XQ2")
            for number in range(1, 51)
        ]
    )
    issuing.node.answer("EmergencyAccessService/GenerateTokencodes", fifty)

    for form in ([], ["--print"]):
        result = issuing("emergency", "issue", SERIAL, "--count", "50", *form)
        assert result.stdout.count("K7PM-4XQ2") == 50
        assert max(map(len, result.stdout.splitlines())) <= 80


def test_end_is_shown_in_the_zone_of_the_administrator(
    issuing: Cli, zone: Callable[[str], None]
) -> None:
    """(I7) A time without a zone is in that zone, too."""
    zone("CET-1CEST,M3.5.0,M10.5.0/3")

    result = issuing("emergency", "issue", SERIAL, "--expires", "2026-12-01T13:00")

    assert "Valid until   2026-12-01 13:00 CET" in result.stdout
    (save,) = issuing.node.requests("EmergencyAccessService/SaveEmergencyAccess")
    assert save.lifetime.end_time.ToJsonString() == "2026-12-01T12:00:00Z"


def test_options_of_issue_reach_the_node(issuing: Cli) -> None:
    result = issuing(
        *("emergency", "issue", SERIAL, "--count", "2"),
        *("--expires", "2026-12-01T12:00Z", "--if-recovered", "allow-after-expiry"),
        *("--keep-unused", "--weaken-recovery-policy"),
    )

    assert result.exit_code == 0
    (save,) = issuing.node.requests("EmergencyAccessService/SaveEmergencyAccess")
    assert save.lifetime.end_time.ToJsonString() == "2026-12-01T12:00:00Z"
    assert save.recovery_policy == types_pb2.RECOVERY_POLICY_ALLOW_AFTER_EXPIRY
    assert save.keep_unused_codes
    assert save.weaken_recovery_policy


def mailed(
    issuing: Cli,
    outcome: emergency_access_pb2.MailOutcome,
    cause: str = "",
    *,
    to_manager: bool = False,
) -> None:
    """Let the node answer that codes went by message."""
    issuing.node.answer(
        "EmergencyAccessService/IssueTokencodes",
        emergency_access_pb2.IssueTokencodesResponse(
            saved=answers.SAVED.saved,
            message=emergency_access_pb2.SealedMessage(
                outcome=outcome,
                recipient="alice@example.com",
                cause=cause,
                end_time=answers.at(answers.END),
                to_manager=to_manager,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("outcome", "cause", "words", "code"),
    [
        (
            emergency_access_pb2.MAIL_OUTCOME_SENT,
            "",
            (
                "A link to the codes was mailed to alice at alice@example.com.\n"
                "It shows them once. You cannot see them.\n"
                "If they are not opened by 2026-12-01 12:00 UTC, the codes are void.\n"
            ),
            0,
        ),
        (
            emergency_access_pb2.MAIL_OUTCOME_UNKNOWN,
            "no answer",
            (
                "A link to the codes was perhaps mailed to alice at alice@example.com: "
                "no answer.\n"
                "Ask whether the mail has arrived. If not, send again.\n"
                "If they are not opened by 2026-12-01 12:00 UTC, the codes are void.\n"
            ),
            0,
        ),
        (
            emergency_access_pb2.MAIL_OUTCOME_FAILED,
            "answered 550 to RCPT",
            (
                "The mail to alice at alice@example.com was not sent: answered 550 to "
                "RCPT.\n"
                "The codes are void. Correct the address or the channel and send again, or "
                "issue codes without --by-message.\n"
            ),
            1,
        ),
    ],
)
def test_what_became_of_codes_by_message_is_said(
    issuing: Cli,
    outcome: emergency_access_pb2.MailOutcome,
    cause: str,
    words: str,
    code: int,
) -> None:
    """(I13) In words, as JSON and by the exit code; the codes are never generated."""
    mailed(issuing, outcome, cause)

    result = issuing(
        *("emergency", "issue", SERIAL, "--by-message", "--count", "2"),
        *("--expires", "7d", "--if-recovered", "allow-and-disable", "--keep-unused"),
    )

    assert result.exit_code == code
    assert result.stdout == words
    (issue,) = issuing.node.requests("EmergencyAccessService/IssueTokencodes")
    assert issue.by_message
    assert (issue.serial, issue.count) == (SERIAL, 2)
    assert issue.recovery_policy == types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE
    assert issue.keep_unused_codes
    assert not issuing.node.requests("EmergencyAccessService/GenerateTokencodes")

    result = issuing("emergency", "issue", SERIAL, "--by-message", "-o", "json")

    assert result.exit_code == code
    answer = json.loads(result.stdout)
    names = {0: "sent", 1: "failed"}
    assert answer["outcome"] == ("unknown" if code == 0 and cause else names[code])
    assert answer["recipient"] == "alice@example.com"
    assert answer["cause"] == cause
    assert answer["open_until"] == "2026-12-01T12:00:00Z"
    assert "codes" not in answer


def test_codes_go_by_message_to_the_manager(issuing: Cli) -> None:
    """(I13) The request names the recipient, and the answer says who it was."""
    mailed(issuing, emergency_access_pb2.MAIL_OUTCOME_SENT, "", to_manager=True)
    call = ("emergency", "issue", SERIAL, "--by-message", "--to", "manager")

    result = issuing(*call)

    assert result.exit_code == 0
    assert result.stdout == (
        "A link to the codes was mailed to the manager of alice at alice@example.com.\n"
        "It shows them once. You cannot see them.\n"
        "The manager gives them to alice in person.\n"
        "If they are not opened by 2026-12-01 12:00 UTC, the codes are void.\n"
    )
    (issue,) = issuing.node.requests("EmergencyAccessService/IssueTokencodes")
    assert issue.by_message
    assert issue.to_manager
    assert json.loads(issuing(*call, "-o", "json").stdout)["to_manager"] is True

    issuing("emergency", "issue", SERIAL, "--by-message", "--to", "user")

    *_, issue = issuing.node.requests("EmergencyAccessService/IssueTokencodes")
    assert not issue.to_manager


def test_a_recipient_is_only_for_codes_by_message(issuing: Cli) -> None:
    result = issuing("emergency", "issue", SERIAL, "--to", "manager")

    assert result.exit_code == 2
    assert "--to is only for --by-message" in result.stderr
    assert not issuing.node.requests("EmergencyAccessService/GenerateTokencodes")


def test_codes_by_message_that_are_refused_say_what_to_do(issuing: Cli) -> None:
    issuing.node.answer(
        "EmergencyAccessService/IssueTokencodes",
        Failure(
            Code.FAILED_PRECONDITION,
            "NOT_BY_MESSAGE",
            "codes cannot go by message: alice has no address on file: add one first",
        ),
    )

    result = issuing("emergency", "issue", SERIAL, "--by-message")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "alice has no address on file" in result.stderr
    assert "Issue the codes without --by-message" in result.stderr


@pytest.mark.parametrize("form", [["--print"], ["--print", "-o", "json"]])
def test_codes_by_message_have_no_sheet(issuing: Cli, form: list[str]) -> None:
    result = issuing("emergency", "issue", SERIAL, "--by-message", *form)

    assert result.exit_code == 2
    assert "use only one of --print, --by-message" in result.stderr
    assert not issuing.node.requests("EmergencyAccessService/IssueTokencodes")


def test_refused_issue_shows_no_codes(issuing: Cli) -> None:
    issuing.node.answer(
        "EmergencyAccessService/SaveEmergencyAccess",
        Failure(
            Code.FAILED_PRECONDITION,
            "RECOVERY_WEAKENED",
            "this replaces DENY by a weaker recovery policy",
        ),
    )

    result = issuing("emergency", "issue", SERIAL)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "sparecode: this replaces DENY by a weaker recovery policy\n"
        "To do it anyway, add --weaken-recovery-policy.\n"
    )


def test_without_a_count_none_is_sent(issuing: Cli) -> None:
    """(I4) A default of ten in the client would be refused if policy allows five."""
    assert issuing("emergency", "issue", SERIAL).exit_code == 0
    (generate,) = issuing.node.requests("EmergencyAccessService/GenerateTokencodes")
    assert not generate.HasField("count")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], ["--count", "1"]),
        (["--count", "101"], ["--count", "100"]),
        (["--count", "ten"], ["--count"]),
        (["--expires", "soon"], ["--expires", "'soon'", "7d", "2026-12-01T12:00Z"]),
        (["--expires", ""], ["--expires", "7d"]),
        (["--if-recovered", "maybe"], ["--if-recovered", "allow-and-disable"]),
        (["--print", "--output", "json"], ["--print", "--output"]),
        (["--output", "xml"], ["--output", "json", "yaml", "csv"]),
        (["--timeout", "0"], ["--timeout", "0.1"]),
        (["--node", "n1:port"], ["'n1:port'", "HOST:PORT"]),
        (["--ca", "/nowhere.pem"], ["/nowhere.pem", "No such file"]),
        (["--request-id", "x"], ["--request-id"]),
    ],
)
def test_wrong_usage_names_the_option_and_its_bounds(
    issuing: Cli, options: list[str], message: list[str]
) -> None:
    """(I4) Exit code 2, and no node is called."""
    result = issuing("emergency", "issue", SERIAL, *options)

    assert result.exit_code == 2
    for words in message:
        assert words in result.stderr
    assert issuing.node.calls == []


def test_key_instead_of_the_ca_is_reported(issuing: Cli, pki: Pki) -> None:
    result = issuing("--ca", str(pki.node.key), "emergency", "issue", SERIAL)

    assert result.exit_code == 4  # It is not the CA that we have signed in with.


def test_login_with_a_key_instead_of_the_ca_is_reported(
    stranger: Cli, pki: Pki
) -> None:
    result = stranger("--ca", str(pki.node.key), "login", "root", text="x\n")

    assert result.exit_code == 2
    assert "is not a PEM file with a CERTIFICATE" in result.stderr


def test_fixed_tokencode_is_shown_once(issuing: Cli) -> None:
    """(I11, I7) With its end, and a note that it works until then."""
    issuing.node.answer(FIXED, answers.FIXED)

    result = issuing("emergency", "fixed", SERIAL, "--expires", "7d")

    assert result.exit_code == 0
    assert result.stdout == (
        "Fixed tokencode for token 000123456789 of alice\n"
        "\n"
        "      K7PM-4XQ2\n"
        "\n"
        "Type          the PIN, then the code\n"
        "Valid until   2026-12-01 12:00 UTC\n"
        "If recovered  it is refused until an administrator reinstates it\n"
        "Voided        3 earlier codes\n"
        "Committed     through node n2 at log index 1042\n"
        "\n"
        "The code works until it expires. It cannot be shown again: hand it over now.\n"
    )
    assert result.stderr == "Warning: the token has no PIN\n"


def test_fixed_tokencode_as_json(issuing: Cli) -> None:
    issuing.node.answer(FIXED, answers.FIXED)

    answer = issuing.json(
        *("emergency", "fixed", SERIAL, "--expires", "3d"),
        *("--if-recovered", "allow-and-disable", "--weaken-recovery-policy"),
    )

    assert answer["code"] == "K7PM-4XQ2"
    assert answer["end_time"] == "2026-12-01T12:00:00Z"
    (request,) = issuing.node.requests(FIXED)
    assert request.recovery_policy == types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE
    assert request.weaken_recovery_policy
    assert request.lifetime.duration.seconds == 3 * 86_400


def test_fixed_tokencode_is_not_issued_under_an_earlier_id(issuing: Cli) -> None:
    """(I9) The code could not be shown."""
    result = issuing("emergency", "fixed", SERIAL, "--request-id", "x")

    assert result.exit_code == 2
    assert issuing.node.calls == []


def test_fixed_tokencode_is_shown_as_one(cli: Cli) -> None:
    access = emergency_access_pb2.GetEmergencyAccessResponse()
    access.CopyFrom(answers.ACCESS)
    access.emergency_access.sets[0].fixed = True
    cli.node.answer("EmergencyAccessService/GetEmergencyAccess", access)

    assert "Fixed tokencode issued by root" in cli("emergency", "show", SERIAL).stdout


def test_void_codes_are_counted_and_not_listed(issuing: Cli) -> None:
    """Nobody can use them: the codes that are left should be seen at once."""
    answer = emergency_access_pb2.GetEmergencyAccessResponse()
    answer.CopyFrom(answers.ACCESS)
    for ordinal in (3, 4):
        answer.emergency_access.sets[0].codes.add(
            ordinal=ordinal, state=emergency_access_pb2.TOKENCODE_STATE_VOID
        )
    issuing.node.answer("EmergencyAccessService/GetEmergencyAccess", answer)
    lines = issuing("emergency", "show", SERIAL).stdout.splitlines()
    assert "2 void codes, not listed" in lines
    table = lines[lines.index("2 void codes, not listed") + 1 :]
    assert [line.split()[:2] for line in table][-2:] == [["1", "used"], ["2", "live"]]
    del answer.emergency_access.sets[0].codes[:2]
    issuing.node.answer("EmergencyAccessService/GetEmergencyAccess", answer)
    assert "State" not in issuing("emergency", "show", SERIAL).stdout
