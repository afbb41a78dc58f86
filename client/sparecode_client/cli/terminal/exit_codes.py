# SPDX-License-Identifier: Apache-2.0
"""Errors on the terminal: a message, the next step, and an exit code."""

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer

from sparecode_client.cli.terminal.session_file import SessionFileError
from sparecode_client.cli.terminal.words import plain, wrap
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
    """Exit codes of `sparecode`."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_PERMITTED = 4


INTERRUPTED = 130
"""The exit code of a program that the user stops with Ctrl-C."""

AS_JSON: ContextVar[bool] = ContextVar("errors_as_json", default=False)
"""Whether programs read the errors of this command. The app sets it."""


class UsageError(Exception):
    """The command line is wrong. The message says how to correct it."""


NEXT: dict[str, str] = {
    "ADMINISTRATOR_EXISTS": "List the administrators: sparecode admins list",
    "ADMINISTRATOR_UNKNOWN": "List the administrators: sparecode admins list",
    "SEGMENT_HELD": "See which member has it: sparecode cluster status",
    "SEGMENT_UNKNOWN": "See which segments are missing: sparecode cluster status",
    "SESSION_UNKNOWN": "List the sessions: sparecode sessions list",
    "AGENT_EXISTS": "List the agents: sparecode agents list",
    "AGENT_UNKNOWN": "List the agents: sparecode agents list",
    "ALLOW_LIST_LIMIT": "Show the allow list: sparecode agents show NAME",
    "ALREADY_INITIALIZED": "Nothing needs to be done. See: sparecode cluster status",
    "ALREADY_OPEN": "Nothing needs to be done. See: sparecode cluster status",
    "APPROVALS_FULL": "Approve or reject some first: sparecode approvals list",
    "APPROVAL_UNKNOWN": "List the waiting requests: sparecode approvals list",
    "CERTIFICATE_DENIED": "List the denied certificates: sparecode agents denied",
    "CERTIFICATE_NOT_DENIED": "List the denied certificates: sparecode agents denied",
    "CHANNELS_FULL": "List the channels: sparecode notices channels list",
    "CHANNEL_EXISTS": "List the channels: sparecode notices channels list",
    "CHANNEL_SETTINGS": "Show its settings: sparecode notices channels list",
    "CHANNEL_UNKNOWN": "List the channels: sparecode notices channels list",
    "CODES_LIVE": "List the tokens with live codes: sparecode emergency list",
    "AUTHORITY_NOT_DUE": "List what is due: sparecode cluster status",
    "CODE_COUNT": "Show the maximum number of live codes: sparecode policy show",
    "CODE_FORMAT": "Make codes longer: sparecode policy update --set code_length=8",
    "COUNTING": "The count goes on: repeat the command, or add --timeout 120 to wait.",
    "DRAFT_STALE": "Issue again: sparecode emergency issue SERIAL",
    "GROUP_LIMIT": "Remove the user from a group: sparecode users update USER --leave GROUP",
    "GUESS_ODDS": "Show the policy that the odds depend on: sparecode policy show",
    "LAST_SUPER_ADMIN": "Add another first: sparecode admins create NAME --role super-admin",
    "LAST_SEGMENT_HOLDER": "Nothing was changed. See: sparecode cluster status",
    "LIFETIME_BEYOND_CAP": "Set an earlier end: --expires TIME",
    "LIFETIME_NEEDED": "Set an end: --expires 7d",
    "LIFETIME_PAST": "Set an end in the future: --expires 7d",
    "MEMBER_EXISTS": "List the members: sparecode cluster members",
    "MEMBER_NOT_READY": "Nothing was changed. See: sparecode cluster status",
    "MEMBER_UNKNOWN": "List the members: sparecode cluster members",
    "NO_BACKUP_RECIPIENT": "Set a recipient: sparecode policy update --set backup_recipients=KEY",
    "NOT_BY_MESSAGE": "Issue the codes without --by-message, and give them in person.",
    "NO_EMERGENCY_ACCESS": "List the tokens with live codes: sparecode emergency list",
    "BROWSER_LOGIN_REFUSED": "If it was not you, change your password.",
    "BROWSER_LOGIN_UNKNOWN": "Start again: sparecode login --browser NAME",
    "PASSKEY_NEEDED": "Approve it in a browser: sparecode login --browser NAME",
    "PASSWORD_CHANGE_NEEDED": "Change your password: sparecode admins change-password",
    "PINS_LETTERED": "Set other PINs for those tokens: sparecode tokens set-pin SERIAL",
    "PIN_FORMAT": "Leave --keep-pin out, and set a PIN: sparecode tokens set-pin SERIAL",
    "PIN_NOT_SET": "Set a PIN: sparecode tokens set-pin SERIAL",
    "PIN_NOT_USED": "Its passcodes are the code alone. See: sparecode tokens show SERIAL",
    "POLICY_VALUE": "Show the current values: sparecode policy show",
    "REAUTHENTICATION_NEEDED": "Repeat it at a terminal, or sign in: sparecode login NAME",
    "RECOVERY_END_TOO_LATE": "Set an earlier end: --expires 7d",
    "RECOVERY_NEEDS_END": "Set an end: --expires 7d",
    "RECOVERY_WEAKENED": "To do it anyway, add --weaken-recovery-policy.",
    "RESET_UNKNOWN": "List the requested resets: sparecode cluster status",
    "SECOND_FACTOR_NEEDED": "Sign in with the code that your app shows: sparecode login NAME",
    "SECOND_FACTOR_NOT_CONFIRMED": "Check the clock of the device with the app, and "
    "type the next code.",
    "SECOND_FACTOR_NOT_SET": "List who has one: sparecode admins list",
    "SECOND_FACTOR_REQUIRED": "Approve it in a browser: sparecode login --browser NAME",
    "SECOND_FACTOR_SET": "Ask a super administrator for: "
    "sparecode admins second-factor remove NAME",
    "SECOND_FACTOR_WRONG": "Sign in with the next code: sparecode login NAME",
    "SESSION_ENDED": "Sign in: sparecode login NAME",
    "SIGN_IN_REFUSED": "Wait a minute and try again: sparecode login NAME",
    "TOKENCODES_NOT_CONSECUTIVE": "Type the next two tokencodes that the token shows.",
    "TOKENCODE_MAYBE_SPENT": "Until then: sparecode emergency issue SERIAL",
    "TOKENCODE_SPENT": "Type the next two tokencodes that the token shows.",
    "TOKEN_ASSIGNED": "Unassign it first: sparecode tokens unassign SERIAL",
    "TOKEN_DISABLED": "Enable it: sparecode tokens enable SERIAL",
    "TOKEN_EXISTS": "Show it: sparecode tokens show SERIAL",
    "SEED_EXISTS": "If this one takes its place: sparecode tokens delete SERIAL",
    "TOKEN_EXPIRED": "Or set a later expiry: sparecode tokens expire SERIAL --at TIME",
    "TOKEN_FORMAT": "Show the allowed values: sparecode tokens enroll --help",
    "TOKEN_LIMIT": "Unassign one of the user's tokens: sparecode tokens unassign SERIAL",
    "TOKEN_NOT_ASSIGNED": "Assign it: sparecode tokens assign SERIAL USER",
    "TOKEN_NOT_LOST": "Nothing needs to be done. See: sparecode tokens show SERIAL",
    "TOKEN_OUT_OF_STEP": "Resynchronize it: sparecode tokens resynchronize SERIAL",
    "TOKEN_UNKNOWN": "List the tokens: sparecode tokens list",
    "USER_DISABLED": "Enable the user: sparecode users enable USER",
    "USER_EXISTS": "Show the user: sparecode users show USER",
    "USER_HAS_TOKENS": "Unassign the tokens first: sparecode tokens unassign SERIAL",
    "USER_IS_ADMINISTRATOR": "Remove the administrator first: sparecode admins list",
    "USER_UNKNOWN": "Search the users: sparecode users list --search TEXT",
    "VERSION": "It was changed in the meantime. Read it again, then repeat your change.",
    "WRONG_PASSWORD": "Repeat the command with the right password.",
}
"""The next step for a reason, if a command or an option helps."""


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
    """Return the next step after *error*; empty if its message already names it."""
    match error:
        case InvalidArgument(field="password"):
            return "Use --password-file FILE or --ask-password."
        case ApprovalNeeded():
            return (
                f"Another super administrator approves it: sparecode approvals approve "
                f"{error.approval_id}. For codes, a ticket, a PIN, a replacement or "
                "resynchronizing, then repeat this command."
            )
        case Unavailable(reason="UNREACHABLE"):
            return "Nothing was changed. Check --node and --ca, and that the nodes are running."
        case Unavailable(reason="REMOVED"):
            return (
                "Nothing was changed. Set --node (SPARECODE_NODES) to nodes of the cluster. "
                "For this machine see docs/runbooks/removed-node.md."
            )
        case Unavailable():
            return "Nothing was changed. Try again, or check: sparecode cluster status"
        case OutcomeUnknown():
            return (
                "It may have been done. To find out, repeat the command with --request-id "
                f"{error.request_id}. It is never done twice."
            )
        case Overloaded():
            again = f"Nothing was changed. Try again in {error.retry_after_s:.0f} s."
            return NEXT.get(error.reason, again)
        case NodeFailed(reason="UNIMPLEMENTED"):
            return "Check the port: agents connect to 7300, administrators to 7304."
        case NodeFailed():
            return "It may have been done: check before you repeat it."
        case _:
            return NEXT.get(error.reason, "")


def fail(
    code: ExitCode, words: str, then: str = "", *, reason: str = "", **facts: object
) -> typer.Exit:
    """
    Print an error and the next step; return the exception to raise.

    Programs get one line of JSON on stderr, with the *reason* and the *facts*.
    """
    if AS_JSON.get():
        error = {
            "reason": reason or code.name,
            "message": words,
            "next_step": then,
            "exit_code": code,
            **facts,
        }
        sys.stderr.write(f"{json.dumps(error)}\n")
        return typer.Exit(code)
    for line in (f"sparecode: {plain(words)}", plain(then)):
        if line:
            sys.stderr.write(f"{wrap(line, sys.stderr)}\n")
    return typer.Exit(code)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn errors into messages and exit codes."""
    try:
        yield
    except SparecodeError as error:
        raise fail(
            exit_code(error),
            error.words,
            next_step(error),
            reason=error.reason,
            **_facts(error),
        ) from None
    except UsageError as error:
        raise fail(ExitCode.USAGE, str(error)) from None
    except SessionFileError as error:
        raise fail(ExitCode.NOT_PERMITTED, str(error), reason="SESSION_FILE") from None


def _facts(error: SparecodeError) -> dict[str, object]:
    """Return what a program may need of an error, besides its reason."""
    match error:
        case InvalidArgument():
            return {"field": error.field}
        case ApprovalNeeded():
            return {"approval_id": error.approval_id}
        case OutcomeUnknown():
            return {"request_id": error.request_id}
        case Overloaded():
            return {"retry_after_s": error.retry_after_s}
        case _:
            return {}
