# SPDX-License-Identifier: Apache-2.0
"""
`sparecode explain`: what a reason means, and what to do.

Works without a node. `make docs` writes `reasons.json` from the node's table of
reasons. Here are the reasons of the client, and the meaning of those whose message is
different in each case, or which only the audit log shows.
"""

import difflib
import json
from functools import cache
from importlib import resources
from typing import Annotated, Any

import typer

from sparecode_client.cli.terminal.exit_codes import (
    NEXT,
    UsageError,
    report_errors,
)
from sparecode_client.cli.terminal.settings import settings_of

AUDIT_LOG = {
    "AGENT_DISABLED": "the agent is disabled",
    "CHALLENGE_NOT_VALID": "the next step was answered too late, twice, or by another "
    "agent; the user must start over",
    "CODE_NOT_LIVE": "PIN and emergency code are right, but the code was already used, or "
    "is void",
    "LOCKED": "too many wrong passcodes or passwords: it is locked for a time, and what "
    "was typed was not judged",
    "RECOVERED_TOKEN_REFUSED": "the token counts as lost, and its recovery policy refuses "
    "it; reinstate it if the user has it again",
    "RESOURCE_NOT_COVERED": "PIN and emergency code are right, but the agent protects a "
    "resource where emergency codes are not accepted",
    "SET_EXPIRED": "PIN and emergency code are right, but the codes have expired",
    "USER_NOT_ALLOWED": "the agent's allow list does not have the user or a group of theirs",
    "WRONG_PASSCODE": "the passcode matches no tokencode and no emergency code of the user",
    "WRONG_PIN": "the code is right, but the PIN is wrong or missing",
}
"""Reasons of refused passcodes: an agent learns none of them (A6)."""

BY_CASE = {
    "CODE_FORMAT": "the policy's code length or alphabet does not fit such codes; the "
    "message names the bound",
    "GUESS_ODDS": "with this number of live codes of this length, guessing one would be too "
    "likely; the message has the numbers",
    "LIFETIME_BEYOND_CAP": "the codes would be valid longer than the policy allows",
    "LIFETIME_NEEDED": "the policy requires that codes expire",
    "TOKEN_FORMAT": "a value of the token is out of its bounds; the message names it",
}

OF_THE_CLIENT = {
    "NO_ANSWER": "no node answered in time; the request was perhaps applied",
    "SESSION_FILE": "the file with the session cannot be used",
    "UNREACHABLE": "no node could be reached; nothing was changed",
    "USAGE": "the command line is wrong",
}
"""Reasons that no node sends."""

_ADVICE = {
    "AGENT_DISABLED": "Enable it: sparecode agents enable NAME",
    "LOCKED": "Wait, or unlock the user: sparecode users unlock USER",
    "RECOVERED_TOKEN_REFUSED": "Reinstate it: sparecode tokens reinstate SERIAL",
    "CODE_NOT_LIVE": "Show the codes: sparecode emergency show SERIAL",
    "SET_EXPIRED": "Issue new codes: sparecode emergency issue SERIAL",
    "USER_NOT_ALLOWED": "Show the allow list: sparecode agents show NAME",
    "UNREACHABLE": "Check --node and --ca, and that the nodes are running.",
}


@cache
def _of_nodes() -> dict[str, dict[str, Any]]:
    text = resources.files("sparecode_client.cli").joinpath("reasons.json").read_text()
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def reasons() -> list[str]:
    """Return all reasons, by name."""
    return sorted({*_of_nodes(), *OF_THE_CLIENT})


def complete_reason(incomplete: str) -> list[str]:
    """Return the reasons that begin with what was typed, for the shell."""
    return [each for each in reasons() if each.startswith(incomplete.upper())]


def explain(
    context: typer.Context,
    reason: Annotated[
        str,
        typer.Argument(
            metavar="REASON",
            help="Reason of an error or of an audit event, such as TOKEN_EXPIRED.",
            autocompletion=complete_reason,
        ),
    ],
) -> None:
    """
    Explain why a call was refused or failed, and what to do.

    Works without a node. The reason is in the error with --output json, and in the
    audit log.
    """
    output = settings_of(context).output
    name = reason.strip().upper().replace("-", "_")
    with report_errors():
        if name not in reasons():
            close = difflib.get_close_matches(name, reasons())
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"there is no reason {name}{hint}")
    row = _of_nodes().get(name, {})
    meaning = (
        AUDIT_LOG.get(name)
        or BY_CASE.get(name)
        or OF_THE_CLIENT.get(name)
        or str(row["message"])
    )
    explanation = {
        "reason": name,
        "meaning": meaning,
        "next_step": _ADVICE.get(name) or NEXT.get(name) or row.get("advice", ""),
        "audit_log_only": name in AUDIT_LOG,
        "status": row.get("status"),
        "retry_after_s": row.get("retry_s"),
    }
    if output.is_json:
        output.json(explanation)
        return
    output.say(f"{name}: {meaning}.")
    if step := str(explanation["next_step"]):
        output.say(f"{step[0].upper()}{step[1:]}".rstrip(".") + ".")
    if explanation["retry_after_s"]:
        output.say(f"Programs try again after {explanation['retry_after_s']:g} s.")
    if name in AUDIT_LOG:
        output.say("Agents and users do not learn this reason. The audit log has it.")
