# SPDX-License-Identifier: Apache-2.0
"""
Errors in words for the administrator, shown beside the field at fault.

Most of the words come from the rules (`Rejected.detail`). This module adds what the
rules do not know: the name of the field on the page, and what to do next.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.navigation import role_in_sentence
from sparecode_node.console.kit.rendering import action_words, plain_time
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.outcomes import Reason
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.replication.errors import (
    NoPrimaryError,
    NoQuorumError,
    OlderMemberError,
    OutcomeUnknownError,
    OverloadedError,
    RemovedError,
    StoppingError,
)
from sparecode_node.services.access.authorization import permitted
from sparecode_node.services.errors import (
    CountingError,
    InvalidFieldError,
    NotPermittedError,
    Outdated,
    RateError,
    Refused,
)

UNAVAILABLE = (NoQuorumError, NoPrimaryError)
"""Nothing can be decided now, but this node can show what it knows."""

EXPLAINED = (
    InvalidFieldError,
    MissingSegmentError,
    Refused,
    NoQuorumError,
    NoPrimaryError,
    OlderMemberError,
    OverloadedError,
    OutcomeUnknownError,
    RemovedError,
    StoppingError,
)
"""Errors that a page explains; any other is a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error to show on a page."""

    words: str
    field: str = ""
    """Empty: the error concerns no single field."""
    status: int = 422
    retry: bool = False
    """The same form must be sent again to learn the outcome."""
    advice: "Advice | None" = None
    """What to do first; the page asks it only of a role that may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What must be done before a change is possible."""

    words: str
    method: str
    """The method that does it."""


_WORDS: dict[Reason, str] = {
    Reason.SIGN_IN_REFUSED: N_(
        "The name or password is wrong, or the wait after a wrong "
        "password is not over yet. Try again in a moment."
    ),
    Reason.PASSWORD_CHANGE_NEEDED: N_(
        "This password is temporary. Choose your own first."
    ),
    Reason.REAUTHENTICATION_NEEDED: N_("Confirm with your password that it is you."),
    Reason.SELF_SERVICE_FORBIDDEN: N_(
        "You cannot do this for yourself. Ask another administrator."
    ),
    Reason.DRAFT_STALE: N_(
        "Something about this user, token or policy has changed since "
        "the codes were generated, or they are already saved. Generate codes again."
    ),
    Reason.RECOVERY_WEAKENED: N_(
        "This token was marked lost with “Deny authentication "
        "with token”. Confirm below that you want to replace it with the weaker option."
    ),
    Reason.RECOVERY_NEEDS_END: N_(
        "This option needs an expiration: without one the token "
        "would never work again. Choose “Expires on”; kept codes need an expiration too."
    ),
    Reason.RECOVERY_END_TOO_LATE: N_(
        "With this option the codes must expire before the "
        "token itself does, or the token would never work again."
    ),
    Reason.LIFETIME_PAST: N_("This time is in the past. Choose a later one."),
    Reason.TOKEN_DISABLED: N_("The token is disabled."),
    Reason.TOKEN_EXPIRED: N_("The token has expired."),
    Reason.TOKEN_NOT_ASSIGNED: N_("The token is not assigned."),
    Reason.USER_DISABLED: N_("The user is disabled."),
    Reason.PIN_NOT_SET: N_("The token needs a PIN and has none."),
    Reason.TOKEN_NOT_LOST: N_("The token is not marked as lost."),
    Reason.TOKENCODES_NOT_CONSECUTIVE: N_(
        "These are not two consecutive tokencodes of this token. Wait for two new ones."
    ),
    Reason.WRONG_PASSWORD: N_("The old password is wrong."),
    Reason.SECOND_FACTOR_NEEDED: N_(
        "Your account has a second factor. Enter the code that "
        "your app shows now, and your password again."
    ),
    Reason.SECOND_FACTOR_WRONG: N_(
        "This code is wrong or was already used. Wait for the "
        "next one and enter it with your password."
    ),
    Reason.SECOND_FACTOR_REQUIRED: N_(
        "The policy requires a second factor. Set it up first."
    ),
    Reason.PASSKEY_NEEDED: N_(
        "Your account has a passkey. Enter your password again, then use the passkey."
    ),
    Reason.PASSKEY_WRONG: N_(
        "The passkey was not accepted. Enter your password again, then "
        "use a passkey of this account."
    ),
    Reason.BROWSER_LOGIN_UNKNOWN: N_(
        "No sign-in with this code waits for you: it has ended or "
        "was already decided, or the code is wrong."
    ),
    Reason.VERSION: N_(
        "Another administrator has changed this in the meantime. The page shows the "
        "newest values: check them, then save again."
    ),
    Reason.REQUEST_TABLE_FULL: N_(
        "The cluster is overloaded. Nothing was changed. Try again in a few seconds."
    ),
    Reason.STALE_PARAMETERS: N_(
        "Another change came at the same time. Nothing was changed. Try again."
    ),
    Reason.REQUEST_ID_REUSED: N_(
        "This page was sent before with other values. "
        "Nothing was changed this time. Check it and send it again."
    ),
    Reason.USER_HAS_TOKENS: N_("The user still has tokens."),
    Reason.PIN_NOT_USED: N_("This token is used without a PIN."),
    Reason.LAST_SUPER_ADMIN: N_(
        "This is the last super administrator who can sign in, "
        "so the change could not be undone."
    ),
}

_ADVICE: dict[Reason, Advice] = {
    reason: Advice(words=words, method=method)
    for reason, words, method in (
        (Reason.TOKEN_DISABLED, N_("Enable it first."), "TokenService/EnableToken"),
        (
            Reason.TOKEN_EXPIRED,
            N_("Replace it with another one."),
            "TokenService/ReplaceToken",
        ),
        (
            Reason.TOKEN_NOT_ASSIGNED,
            N_("Assign it to a user first."),
            "TokenService/AssignToken",
        ),
        (Reason.USER_DISABLED, N_("Enable the user first."), "UserService/UpdateUser"),
        (Reason.PIN_NOT_SET, N_("Set a PIN first."), "TokenService/SetPin"),
        (
            Reason.USER_HAS_TOKENS,
            N_("Unassign them first."),
            "TokenService/UnassignToken",
        ),
    )
}
"""What to do first, for the roles that may."""

_FIELDS: dict[Reason, str] = {
    Reason.LIFETIME_PAST: "expires",
    Reason.LIFETIME_BEYOND_CAP: "expires",
    Reason.LIFETIME_NEEDED: "expires",
    Reason.RECOVERY_NEEDS_END: "recovery",
    Reason.RECOVERY_END_TOO_LATE: "recovery",
    Reason.RECOVERY_WEAKENED: "weaken",
    Reason.CODE_COUNT: "count",
    Reason.VERSION: "",
    Reason.GUESS_ODDS: "count",
    Reason.DRAFT_STALE: "codes",
    Reason.TOKENCODES_NOT_CONSECUTIVE: "first_tokencode",
    Reason.WRONG_PASSWORD: "old_password",
    Reason.SECOND_FACTOR_NEEDED: "second_factor",
    Reason.SECOND_FACTOR_WRONG: "second_factor",
    Reason.BROWSER_LOGIN_UNKNOWN: "user_code",
    Reason.PASSKEY_NEEDED: "",
    Reason.PASSKEY_WRONG: "",
    Reason.PASSKEY_REFUSED: "",
}
"""The field of the page beside which a refusal is shown."""

_NOT_FOUND = frozenset(
    {
        Reason.USER_UNKNOWN,
        Reason.TOKEN_UNKNOWN,
        Reason.AGENT_UNKNOWN,
        Reason.CHANNEL_UNKNOWN,
        Reason.ADMINISTRATOR_UNKNOWN,
        Reason.SESSION_UNKNOWN,
        Reason.APPROVAL_UNKNOWN,
        Reason.MEMBER_UNKNOWN,
        Reason.PASSKEY_UNKNOWN,
    }
)


_NOT_NOW: Mapping[type[Exception], str] = {
    CountingError: N_(
        "This node is still counting the live codes that the change depends on. Nothing "
        "was changed. Send it again in a few seconds: the count goes on."
    ),
    OverloadedError: N_(
        "This node is overloaded. Nothing was changed. Try again in a few seconds."
    ),
    RemovedError: N_(
        "This node was removed from the cluster and shows nothing any "
        "more. Nothing was changed. Use another node’s console. Operators find "
        "the next steps in docs/runbooks/removed-node.md."
    ),
    StoppingError: N_("This node is stopping. Try again on another node’s console."),
    MissingSegmentError: N_(
        "This node lacks older audit events, which it is fetching from the "
        "other members. Try again later, or use another node’s console."
    ),
    OlderMemberError: N_(
        "One of the nodes runs an older release that does not know this. "
        "Nothing was changed. Ask the operator to upgrade it."
    ),
}
_TOO_FEW_NODES = N_(
    "Too few nodes are in contact to decide, so nothing was changed. "
    "Try again, or use another node’s console."
)


def explain(error: Exception, fields: Mapping[str, str] | None = None) -> Problem:
    """
    Return the words for one of `EXPLAINED`.

    *fields*: what the page calls the fields of the request.
    """
    named = fields or {}
    match error:
        case InvalidFieldError(field=field, message=message):
            return Problem(words=sentence(message), field=named.get(field, field))
        case NotPermittedError():
            return Problem(
                words=_(
                    "Your role cannot do this. Ask an administrator whose role can."
                ),
                status=403,
            )
        case Refused(rejected=Outdated(event=event)):
            return Problem(
                words=_(
                    "Nothing was saved: changed by %(who)s at %(time)s: %(what)s. The fields that you have not changed show the newest values: check them, then save again.",
                    who=event.actor.removeprefix("administrator:").replace(":", " "),
                    time=plain_time(event.at_ms, seconds=True),
                    what=event.detail or action_words(event.action),
                ),
                status=409,
            )
        case Refused(rejected=rejected):
            words = _(_WORDS.get(rejected.reason, "")) or rejected.detail
            field = named.get(rejected.field) or _FIELDS.get(
                rejected.reason, rejected.field
            )
            return Problem(
                words=sentence(words or rejected.reason.value.replace("_", " ")),
                field=field,
                status=404 if rejected.reason in _NOT_FOUND else 409,
                advice=_ADVICE.get(rejected.reason),
            )
        case OutcomeUnknownError():
            return Problem(
                words=_(
                    "The primary was lost while it handled this, so the outcome is "
                    "unknown. Send the same form again: it is never applied twice."
                ),
                status=503,
                retry=True,
            )
        case RateError(retry_after_s=wait_s):
            return Problem(
                words=_(
                    "Too many requests. Wait %(seconds)s s, then send it again.",
                    seconds=max(1, round(wait_s)),
                ),
                status=429,
            )
        case _:
            words = next(
                (each for kind, each in _NOT_NOW.items() if isinstance(error, kind)),
                _TOO_FEW_NODES,
            )
            return Problem(words=_(words), status=503)


def advised(problem: Problem, may: Callable[[str], bool]) -> Problem:
    """Return the problem with its advice; of a role that may not, whom to ask."""
    if problem.advice is None:
        return problem
    words = _(problem.advice.words)
    if not may(problem.advice.method):
        roles = [
            role_in_sentence(role)
            for role in Role
            if permitted(role, problem.advice.method)
        ]
        either = " " + _("or") + " "
        words = _(
            "%(advice)s: your role may not, so ask a %(roles)s.",
            advice=words[:-1],
            roles=either.join(roles),
        )
    return replace(problem, words=f"{problem.words} {words}", advice=None)


def sentence(words: str) -> str:
    """Return the words with a capital and a full stop; a name such as `n1` stays."""
    text = words.strip()
    if not text:
        return text
    is_name = any(character.isdigit() for character in text.split()[0])
    begun = text if is_name else text[0].upper() + text[1:]
    return begun + ("" if text[-1] in ".!?" else ".")
