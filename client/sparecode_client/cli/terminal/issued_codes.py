# SPDX-License-Identifier: Apache-2.0
"""Issued codes, shown once: on the terminal, on a sheet, or as JSON."""

import math
from collections.abc import Sequence

from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.words import plural, show_code, show_time
from sparecode_client.values.emergency_access import (
    IssuedFixedTokencode,
    IssuedTokencodes,
    MailOutcome,
    RecoveryPolicy,
    SentTokencodes,
)
from sparecode_client.values.tokens import PinRule, Token
from sparecode_client.values.users import Blocker

Issued = IssuedTokencodes | IssuedFixedTokencode

POLICY_WORDS = {
    RecoveryPolicy.DENY: "it is refused until an administrator reinstates it",
    RecoveryPolicy.ALLOW_AND_DISABLE: "it works, and its first use voids the codes",
    RecoveryPolicy.ALLOW_AFTER_EXPIRY: "it works once the codes have expired",
}
ROWS_MIN = 10
COLUMNS_MAX = 4
"""Number of codes with a box that fit on a line of 80 characters."""


def issued_json(
    token: Token, issued: IssuedTokencodes, blockers: Sequence[Blocker]
) -> dict[str, object]:
    """Return the codes as JSON for programs. It contains secrets."""
    return {
        **_target_json(token, issued),
        "codes": [
            {"ordinal": code.ordinal, "code": show_code(code.code)}
            for code in issued.codes
        ],
        "live_codes": issued.saved.live_codes,
        **_saved_json(issued),
        "blockers": list(blockers),
    }


def fixed_json(
    token: Token, issued: IssuedFixedTokencode, blockers: Sequence[Blocker]
) -> dict[str, object]:
    """Return a fixed tokencode as JSON for programs. It contains the code."""
    return {
        **_target_json(token, issued),
        "code": show_code(issued.code),
        **_saved_json(issued),
        "blockers": list(blockers),
    }


def sent_json(
    token: Token, sent: SentTokencodes, blockers: Sequence[Blocker]
) -> dict[str, object]:
    """Return what became of codes that went by message, as JSON for programs."""
    saved = sent.saved
    return {
        "serial": sent.serial,
        "username": token.username,
        "set_id": saved.set_id,
        "outcome": sent.outcome,
        "recipient": sent.recipient,
        "to_manager": sent.to_manager,
        "cause": sent.cause,
        "open_until": sent.open_until,
        "live_codes": saved.live_codes,
        "voided_codes": saved.voided_codes,
        "end_time": saved.end_time,
        "commit_time": saved.commit_time,
        "node_id": saved.commit.node_id,
        "index": saved.commit.index,
        "warnings": saved.warnings,
        "blockers": list(blockers),
    }


def say_sent(output: Output, token: Token, sent: SentTokencodes) -> None:
    """Tell on the terminal what became of codes that went by message."""
    whom = f"the manager of {token.username}" if sent.to_manager else token.username
    who, until = f"{whom} at {sent.recipient}", show_time(sent.open_until)
    if sent.outcome is MailOutcome.FAILED:
        output.say(f"The mail to {who} was not sent: {sent.cause}.")
        output.say(
            "The codes are void. Correct the address or the channel and send again, or "
            "issue codes without --by-message."
        )
        return
    if sent.outcome is MailOutcome.SENT:
        output.say(f"A link to the codes was mailed to {who}.")
        output.say("It shows them once. You cannot see them.")
        if sent.to_manager:
            output.say(f"The manager gives them to {token.username} in person.")
    else:
        output.say(f"A link to the codes was perhaps mailed to {who}: {sent.cause}.")
        output.say("Ask whether the mail has arrived. If not, send again.")
    output.say(f"If they are not opened by {until}, the codes are void.")
    for warning in sent.saved.warnings:
        output.note(f"Warning: {warning}")


def _target_json(token: Token, issued: Issued) -> dict[str, object]:
    return {
        "serial": issued.serial,
        "username": token.username,
        "set_id": issued.saved.set_id,
    }


def _saved_json(issued: Issued) -> dict[str, object]:
    saved = issued.saved
    return {
        "voided_codes": saved.voided_codes,
        "end_time": saved.end_time,
        "commit_time": saved.commit_time,
        "node_id": saved.commit.node_id,
        "index": saved.commit.index,
        "warnings": saved.warnings,
    }


def say_issued(
    output: Output, token: Token, issued: IssuedTokencodes, policy: RecoveryPolicy
) -> None:
    """Show the codes on the terminal."""
    output.say(f"Emergency codes for token {issued.serial} of {token.username}")
    output.say()
    for line in columns(
        [f"{code.ordinal:>4}  {show_code(code.code)}" for code in issued.codes]
    ):
        output.say(line)
    output.say()
    _say_facts(
        output,
        token,
        issued,
        policy,
        live=[("Live codes", str(issued.saved.live_codes))],
    )
    output.say("Each code works once. They cannot be shown again: hand them over now.")
    _note_warnings(output, issued)


def say_fixed(
    output: Output, token: Token, issued: IssuedFixedTokencode, policy: RecoveryPolicy
) -> None:
    """Show a fixed tokencode on the terminal."""
    output.say(f"Fixed tokencode for token {issued.serial} of {token.username}")
    output.say()
    output.say(f"      {show_code(issued.code)}")
    output.say()
    _say_facts(output, token, issued, policy)
    output.say(
        "The code works until it expires. It cannot be shown again: hand it over now."
    )
    _note_warnings(output, issued)


def _say_facts(
    output: Output,
    token: Token,
    issued: Issued,
    policy: RecoveryPolicy,
    live: Sequence[tuple[str, str]] = (),
) -> None:
    saved = issued.saved
    voided = (
        [("Voided", plural(saved.voided_codes, "earlier code"))]
        if saved.voided_codes
        else []
    )
    output.facts(
        [
            ("Type", code_usage(token)),
            ("Valid until", show_time(saved.end_time, never="no end")),
            ("If recovered", POLICY_WORDS[policy]),
            *live,
            *voided,
            (
                "Committed",
                f"through node {saved.commit.node_id} at log index {saved.commit.index}",
            ),
        ]
    )
    output.say()


def say_sheet(output: Output, token: Token, issued: IssuedTokencodes) -> None:
    """Write a sheet for the user. Warnings go to the administrator on stderr."""
    commit = issued.commit
    output.say("EMERGENCY CODES")
    output.say()
    output.facts(
        [
            ("User", token.username),
            ("Token", issued.serial),
            ("Valid until", show_time(issued.end_time, never="no end")),
            ("Issued", f"through node {commit.node_id} at log index {commit.index}"),
        ]
    )
    output.say()
    output.say("Each code works once. Tick its box when you have used it.")
    output.say(f"At the passcode prompt, type {code_usage(token)}.")
    output.say("Upper or lower case, with or without the hyphen.")
    output.say("Keep this sheet apart from your token, and show it to no one.")
    output.say()
    for line in columns(
        [f"[ ] {code.ordinal:>2}  {show_code(code.code)}" for code in issued.codes]
    ):
        output.say(line)
    _note_warnings(output, issued)


def note_blockers(output: Output, blockers: Sequence[Blocker]) -> None:
    """Write on stderr what would make agents refuse the codes, each with the next step."""
    for each in blockers:
        where = "by some agents" if each.agents else "at present"
        output.note(
            f"Warning: these codes are refused {where}. {each.words} {each.next_step}".rstrip()
        )


def code_usage(token: Token) -> str:
    """Return how to type a code in a passcode of *token* (A1)."""
    if token.pin_rule is PinRule.NONE:
        return "the code alone, without a PIN"
    return "the PIN, then the code"


def columns(cells: list[str]) -> list[str]:
    """Return *cells* as lines of columns, filled from top to bottom."""
    rows = max(ROWS_MIN, math.ceil(len(cells) / COLUMNS_MAX))
    rows = min(rows, len(cells))
    return ["  ".join(cells[row::rows]) for row in range(rows)]


def _note_warnings(output: Output, issued: Issued) -> None:
    for warning in issued.saved.warnings:
        output.note(f"Warning: {warning}")
