# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, in one or two lines and an exit code."""

import enum
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from sparecode_client.cli.terminal.session_file import SessionFileError
from sparecode_client.cli.terminal.words import for_terminal, plain
from sparecode_client.errors import (
    ApprovalNeeded,
    InvalidArgument,
    NodeFailed,
    NotPermitted,
    NotSignedIn,
    OutcomeUnknown,
    Overloaded,
    SparecodeError,
    Unavailable,
)


class ExitCode(enum.IntEnum):
    """What a script learns."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_PERMITTED = 4


class UsageError(Exception):
    """What was typed makes no sense; the message says what would."""


NEXT: dict[str, str] = {
    "ADMINISTRATOR_EXISTS": "See who there is: sparecode admins list",
    "ADMINISTRATOR_UNKNOWN": "See who there is: sparecode admins list",
    "AGENT_EXISTS": "See which there are: sparecode agents list",
    "AGENT_UNKNOWN": "See which there are: sparecode agents list",
    "ALLOW_LIST_LIMIT": "See who is on it: sparecode agents show NAME",
    "ALREADY_INITIALIZED": "Nothing is left to do. See: sparecode cluster status",
    "ALREADY_OPEN": "Nothing is left to do. See: sparecode cluster status",
    "APPROVALS_FULL": "See them: sparecode approvals list",
    "APPROVAL_UNKNOWN": "See what waits: sparecode approvals list",
    "CERTIFICATE_DENIED": "See which are: sparecode agents denied",
    "CERTIFICATE_NOT_DENIED": "See which are: sparecode agents denied",
    "CODES_LIVE": "See whose they are: sparecode emergency list",
    "CODE_COUNT": "See how many may live: sparecode policy show",
    "CODE_FORMAT": "Make codes longer: sparecode policy update --set code_length=8",
    "DRAFT_STALE": "Issue again: sparecode emergency issue SERIAL",
    "GROUP_LIMIT": "Take some away: sparecode users update USER --leave GROUP",
    "GUESS_ODDS": "See what the odds depend on: sparecode policy show",
    "LAST_SUPER_ADMIN": "Add another first: sparecode admins create NAME --role super-admin",
    "LIFETIME_BEYOND_CAP": "Give an earlier end: --expires.",
    "LIFETIME_NEEDED": "Give an end: --expires 7d",
    "LIFETIME_PAST": "Give an end that lies ahead: --expires 7d",
    "MEMBER_EXISTS": "See them: sparecode cluster members",
    "MEMBER_NOT_READY": "Nothing was changed. See: sparecode cluster status",
    "MEMBER_UNKNOWN": "See them: sparecode cluster members",
    "NO_BACKUP_RECIPIENT": "Name one: sparecode policy update --set backup_recipients=KEY",
    "NO_EMERGENCY_ACCESS": "See which tokens are: sparecode emergency list",
    "PASSWORD_CHANGE_NEEDED": "Change it: sparecode admins change-password",
    "PINS_LETTERED": "Give those tokens another PIN: sparecode tokens set-pin SERIAL",
    "PIN_FORMAT": "Leave --keep-pin out, and set one: sparecode tokens set-pin SERIAL",
    "PIN_NOT_SET": "Set one: sparecode tokens set-pin SERIAL",
    "PIN_NOT_USED": "Its passcodes are the code alone. See: sparecode tokens show SERIAL",
    "POLICY_VALUE": "See the values of now: sparecode policy show",
    "RECOVERY_END_TOO_LATE": "Give an earlier end: --expires 7d",
    "RECOVERY_NEEDS_END": "Give an end: --expires 7d",
    "RECOVERY_WEAKENED": "If you mean it, add --weaken-recovery-policy.",
    "SECOND_FACTOR_NEEDED": "Give the code that your app shows now: sparecode login NAME",
    "SECOND_FACTOR_NOT_CONFIRMED": "Check the clock of its device, and type the next code "
    "as it comes.",
    "SECOND_FACTOR_NOT_SET": "See who has one: sparecode admins list",
    "SECOND_FACTOR_SET": "Have it taken away: "
    "sparecode admins second-factor remove NAME",
    "SECOND_FACTOR_WRONG": "Wait for the next code: sparecode login NAME",
    "SESSION_ENDED": "Sign in: sparecode login NAME",
    "SIGN_IN_REFUSED": "Wait a minute, and try again: sparecode login NAME",
    "TOKENCODES_NOT_CONSECUTIVE": "Wait for the next two, and type them as they come.",
    "TOKENCODE_SPENT": "Wait for the next two, and type them as they come.",
    "TOKEN_ASSIGNED": "Take it away: sparecode tokens unassign SERIAL",
    "TOKEN_DISABLED": "Enable it: sparecode tokens enable SERIAL",
    "TOKEN_EXISTS": "See it: sparecode tokens show SERIAL",
    "TOKEN_EXPIRED": "Or give it a later end: sparecode tokens expire SERIAL --at TIME",
    "TOKEN_FORMAT": "See what a token is made of: sparecode tokens enroll --help",
    "TOKEN_LIMIT": "Take one away: sparecode tokens unassign SERIAL",
    "TOKEN_NOT_ASSIGNED": "Assign it: sparecode tokens assign SERIAL USER",
    "TOKEN_NOT_LOST": "Nothing is left to do. See: sparecode tokens show SERIAL",
    "TOKEN_OUT_OF_STEP": "Have it shown twice: sparecode tokens resynchronize SERIAL",
    "TOKEN_UNKNOWN": "See which there are: sparecode tokens list",
    "USER_DISABLED": "Enable the user: sparecode users enable USER",
    "USER_EXISTS": "See it: sparecode users show USER",
    "USER_HAS_TOKENS": "Take them away: sparecode tokens unassign SERIAL",
    "USER_IS_ADMINISTRATOR": "Remove that one first: sparecode admins list",
    "USER_UNKNOWN": "See who there is: sparecode users list",
    "VERSION": "Somebody changed it meanwhile. Read it again, and change that.",
    "WRONG_PASSWORD": "Try again: sparecode admins change-password",
}
"""Where a command or an option helps."""


def exit_code(error: SparecodeError) -> ExitCode:
    """Return the exit code of *error*."""
    match error:
        case InvalidArgument():
            return ExitCode.USAGE
        case NotSignedIn() | NotPermitted():
            return ExitCode.NOT_PERMITTED
        case Unavailable() | OutcomeUnknown() | Overloaded() | NodeFailed():
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.REFUSED


def next_step(error: SparecodeError) -> str:
    """Return what to do about *error*; empty where its words have said it."""
    match error:
        case InvalidArgument(field="password"):
            return "Give it: --password-file FILE, or --ask-password"
        case ApprovalNeeded():
            return (
                f"Another one approves it: sparecode approvals approve "
                f"{error.approval_id}. Codes are issued by the same command then."
            )
        case Unavailable(reason="UNREACHABLE"):
            return "Nothing was changed. Check --node and --ca, and that the nodes run."
        case Unavailable():
            return "Nothing was changed. Try again, or see: sparecode cluster status"
        case OutcomeUnknown():
            return (
                "It may have been done. The same command with --request-id "
                f"{error.request_id} tells, or does it if it was not."
            )
        case Overloaded():
            return f"Nothing was changed. Try again in {error.retry_after_s:.0f} s."
        case NodeFailed(reason="UNIMPLEMENTED"):
            return (
                "Is it the right port? Agents are served on 7300, "
                "administrators on 7304."
            )
        case NodeFailed():
            return "It may have been done: look before you do it again."
        case _:
            return NEXT.get(error.reason, "")


def fail(code: ExitCode, words: str, then: str = "") -> typer.Exit:
    """Tell what went wrong and what to do next; return what is to be raised."""
    for line in (f"sparecode: {plain(words)}", plain(then)):
        if line:
            sys.stderr.write(f"{for_terminal(line, sys.stderr)}\n")
    return typer.Exit(code)


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn errors into words and exit codes."""
    try:
        yield
    except SparecodeError as error:
        raise fail(exit_code(error), error.words, next_step(error)) from None
    except UsageError as error:
        raise fail(ExitCode.USAGE, str(error)) from None
    except SessionFileError as error:
        raise fail(ExitCode.NOT_PERMITTED, str(error)) from None
