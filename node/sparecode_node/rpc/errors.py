# SPDX-License-Identifier: Apache-2.0
"""
What went wrong, and the status that says so: the one table.

A status carries `google.rpc.Status`: `ErrorInfo` with the reason (domain
`sparecode`), `BadRequest` for a field, `RetryInfo` where a retry helps. Whoever
reads the code alone is not misled: only `OUTCOME_UNKNOWN` may have been applied.

An exception that is not in the table is a bug: `INTERNAL` without any detail.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    ClockError,
    KeyMissingError,
    NoPrimaryError,
    NoQuorumError,
    OlderMemberError,
    OutcomeUnknownError,
    OverloadedError,
    StoppingError,
)
from sparecode_node.services.errors import (
    ApprovalNeededError,
    HashingOverloadedError,
    InvalidFieldError,
    RateError,
    Refused,
)
from sparecode_node.services.secrets.keyring import UnknownKeyError

DOMAIN = "sparecode"


class Audience(enum.Enum):
    """Who reads an answer. An agent learns no reason of the rules (A6)."""

    AGENT = enum.auto()
    ADMINISTRATOR = enum.auto()


class UnidentifiedError(Exception):
    """The certificate of the caller does not name exactly one agent."""


class NoTimeLeftError(Exception):
    """The caller's deadline has passed before anything was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A row of the table, and then a filled-in answer."""

    code: grpc.StatusCode
    reason: str
    words: str
    """For a person: what it is, and what to do next. The rules often say it better."""
    advice: str = ""
    """What to do next, where the rules say only what it is."""
    retry_s: float | None = None
    field: str = ""
    field_words: str = ""
    approval_id: int = 0
    """What it waits for; 0: nothing."""


_CODE = grpc.StatusCode
_AGAIN = "nothing was changed; try again"

_KEY_MISSING = Answer(
    code=_CODE.UNAVAILABLE,
    reason="KEY_MISSING",
    words="this node, or the primary, lacks a key of the ring and asks the other "
    f"members for it; {_AGAIN}, or ask another node",
    retry_s=1.0,
)

EXCEPTIONS: Mapping[type[Exception], Answer] = {
    InvalidFieldError: Answer(
        code=_CODE.INVALID_ARGUMENT, reason="FIELD", words="a field is out of bounds"
    ),
    UnidentifiedError: Answer(
        code=_CODE.UNAUTHENTICATED,
        reason="CERTIFICATE",
        words="the certificate must have exactly one URI subject name or, without "
        "any, exactly one DNS subject name",
    ),
    NoPrimaryError: Answer(
        code=_CODE.UNAVAILABLE,
        reason="NO_PRIMARY",
        words=f"no primary is known now; {_AGAIN}, or ask another node",
        retry_s=0.5,
    ),
    NoQuorumError: Answer(
        code=_CODE.UNAVAILABLE,
        reason="NO_QUORUM",
        words=f"too few nodes are in contact to decide; {_AGAIN}, or ask another node",
        retry_s=1.0,
    ),
    ClockError: Answer(
        code=_CODE.UNAVAILABLE,
        reason="CLOCK",
        words="a node's clock is more than 2 s away from those of most others, so "
        f"nothing is stamped; {_AGAIN}; if it stays so, set the nodes' clocks (NTP)",
        retry_s=1.0,
    ),
    OlderMemberError: Answer(
        code=_CODE.UNAVAILABLE,
        reason="OLDER_MEMBER",
        words="a member runs an older release that does not know this; "
        "`sparecode cluster status` shows the feature level of each: upgrade all of "
        f"them, then {_AGAIN}",
        retry_s=5.0,
    ),
    OverloadedError: Answer(
        code=_CODE.RESOURCE_EXHAUSTED,
        reason="OVERLOADED",
        words=f"this node has too much to do; {_AGAIN} a little later",
        retry_s=1.0,
    ),
    RateError: Answer(
        code=_CODE.RESOURCE_EXHAUSTED,
        reason="RATE",
        words=f"too many calls in a short time; {_AGAIN} a little later",
        retry_s=1.0,
    ),
    ChangeRefusedError: Answer(  # Use cases say more, with its own reason.
        code=_CODE.FAILED_PRECONDITION,
        reason=Reason.MEMBER_NOT_READY.name,
        words=f"the cluster cannot be changed like that now; {_AGAIN}",
    ),
    UnknownKeyError: _KEY_MISSING,
    KeyMissingError: _KEY_MISSING,
    StoppingError: Answer(
        code=_CODE.UNAVAILABLE,
        reason="STOPPING",
        words="this node is being stopped, and reads its whole state no more; ask "
        "another node, or this one when it is back",
        retry_s=1.0,
    ),
    OutcomeUnknownError: Answer(
        code=_CODE.UNAVAILABLE,
        reason="OUTCOME_UNKNOWN",
        words="it may have been done; call again with the same request_id to learn it",
        retry_s=0.5,
    ),
    TimeoutError: Answer(
        code=_CODE.DEADLINE_EXCEEDED,
        reason="OUTCOME_UNKNOWN",
        words="the time is up, and it may have been done; call again with the same "
        "request_id to learn it",
        retry_s=0.5,
    ),
    NoTimeLeftError: Answer(
        code=_CODE.DEADLINE_EXCEEDED,
        reason="DEADLINE",
        words=f"the call came with no time left; {_AGAIN}",
    ),
}


ADVICE: Mapping[Reason, str] = {
    Reason.ROLE: "ask an administrator who may",
    Reason.TOKEN_DISABLED: "enable it first",
    Reason.TOKEN_EXPIRED: "give the user another token",
    Reason.USER_DISABLED: "enable the user first",
    Reason.USER_HAS_TOKENS: "take them away first",
    Reason.APPROVAL_STALE: "have it asked for again",
    Reason.KEY_NOT_HELD: "nothing was changed; see to that node, then try again",
    Reason.KEY_REPLACED: "ask again to see how far it has got",
    Reason.APPROVALS_FULL: "have some of them decided first",
    Reason.REVIEW_STALE: "`sparecode cluster review`",
    Reason.MEMBER_EXISTS: "a machine that has lost its data comes back under a new "
    "node id",
    Reason.TICKETS_FULL: "wait until the oldest is forgotten, 75 minutes after it was "
    "made",
    Reason.TICKET_UNKNOWN: "have a new one made: sparecode cluster ticket",
    Reason.JOINER_CERTIFICATE: "bring one that the members' authority has signed for "
    "this node id, with an EC key",
    Reason.AUTHORITY_MISSING: "ask a member that has the authority's key, or bring a "
    "certificate along",
    Reason.TICKET_USED: "have a new one made: sparecode cluster ticket",
    Reason.TICKET_ENDED: "have a new one made: sparecode cluster ticket",
}
"""What to do next about a refusal whose words say only what it is."""


def _rule(reason: Reason, code: grpc.StatusCode, words: str = "") -> Answer:
    return Answer(
        code=code, reason=reason.name, words=words, advice=ADVICE.get(reason, "")
    )


_NOT_FOUND = {
    Reason.USER_UNKNOWN: "there is no such user",
    Reason.TOKEN_UNKNOWN: "there is no such token",
    Reason.AGENT_UNKNOWN: "there is no such agent",
    Reason.CERTIFICATE_NOT_DENIED: "no such certificate is denied",
    Reason.ADMINISTRATOR_UNKNOWN: "there is no such administrator",
    Reason.MEMBER_UNKNOWN: "there is no such member",
    Reason.APPROVAL_UNKNOWN: "no such approval waits",
    Reason.TICKET_UNKNOWN: "there is no such ticket",
}
_ALREADY_EXISTS = {
    Reason.USER_EXISTS: "there is a user of this name",
    Reason.TOKEN_EXISTS: "there is a token of this serial",
    Reason.ADMINISTRATOR_EXISTS: "there is an administrator of this name",
    Reason.AGENT_EXISTS: "there is an agent of this name or identity",
    Reason.CERTIFICATE_DENIED: "this certificate is denied already",
    Reason.MEMBER_EXISTS: "there is a member of this id",
}
_PERMISSION_DENIED = {
    Reason.ROLE: "your role may not do this",
    Reason.APPROVAL_NEEDED: "another super administrator has to approve it",
    Reason.PASSWORD_CHANGE_NEEDED: "the password is a temporary one; change it first",
    Reason.SELF_SERVICE_FORBIDDEN: "nobody does this for themselves; "
    "ask another administrator",
}
_UNAUTHENTICATED = {
    Reason.SESSION_ENDED: "not signed in, or the session has ended; sign in again",
    Reason.SECOND_FACTOR_NEEDED: "a code of the second factor is needed as well",
    Reason.SECOND_FACTOR_WRONG: "the code is wrong, or was used before",
    Reason.SIGN_IN_REFUSED: "name or password is wrong, or signing in has to wait "
    "after failures",
}
_INVALID_ARGUMENT = {
    Reason.REQUEST_ID_REUSED: "this request_id was used for something else; "
    "take a new one for a new request",
    Reason.POLICY_VALUE: "a field of the policy is out of its bounds",
    Reason.CODE_COUNT: "the number of codes is out of bounds",
}
_FAILED_PRECONDITION = {
    Reason.APPROVAL_STALE: "what was asked for is not what it would be now",
    Reason.APPROVALS_FULL: "as many approvals wait as one may ask for",
    Reason.KEY_IN_USE: "the key is in use still; wait until it is not",
    Reason.CODES_LIVE: "live codes have that form; wait for their end, or disable them",
    Reason.USER_DISABLED: "the user is disabled",
    Reason.KEY_NOT_HELD: "not every member could be given the new key",
    Reason.KEY_REPLACED: "another rotation came first",
    Reason.MEMBER_NOT_READY: "the members cannot be changed like that now; try again",
    Reason.MEMBER_REMOVED: "this id was a member's that was removed; take another",
    Reason.USER_IS_ADMINISTRATOR: "an administrator is linked to the user",
    Reason.LAST_SUPER_ADMIN: "there would be no super administrator any more",
    Reason.SECOND_FACTOR_NOT_CONFIRMED: "this is not the code that the secret makes now",
    Reason.SECOND_FACTOR_NOT_SET: "there is no second factor",
    Reason.SECOND_FACTOR_SET: "there is a second factor already",
    Reason.WRONG_PASSWORD: "the old password is wrong",
    Reason.GROUP_LIMIT: "there would be too many groups; take some away first",
    Reason.USER_HAS_TOKENS: "the user still has tokens",
    Reason.TOKEN_NOT_ASSIGNED: "the token is nobody's; assign it first",
    Reason.TOKEN_ASSIGNED: "the token is somebody's already",
    Reason.TOKEN_DISABLED: "the token is disabled",
    Reason.TOKEN_EXPIRED: "the token has expired",
    Reason.TOKEN_LIMIT: "the user has as many tokens as allowed",
    Reason.PIN_NOT_SET: "the token has no PIN; set one first",
    Reason.PIN_FORMAT: "this PIN cannot be folded into the token's tokencodes; "
    "set a new one",
    Reason.PINS_LETTERED: "tokens have PINs with letters; set or clear those first",
    Reason.PIN_NOT_USED: "the token's passcodes have no PIN",
    Reason.TOKEN_NOT_LOST: "the token is not marked as lost",
    Reason.TOKENCODES_NOT_CONSECUTIVE: "these are not two consecutive tokencodes of "
    "the token",
    Reason.TOKENCODE_SPENT: "a tokencode was used before",
    Reason.DRAFT_STALE: "something changed since the codes were generated; "
    "generate them again",
    Reason.RECOVERY_WEAKENED: "this replaces DENY by a weaker recovery policy; "
    "set weaken_recovery_policy to agree",
    Reason.RECOVERY_NEEDS_END: "ALLOW_AFTER_EXPIRY needs an end of the set",
    Reason.RECOVERY_END_TOO_LATE: "ALLOW_AFTER_EXPIRY needs an end before the token's",
    Reason.LIFETIME_PAST: "the end has passed",
    Reason.NO_EMERGENCY_ACCESS: "the token is not in emergency access",
    Reason.ALREADY_INITIALIZED: "the cluster exists already",
    Reason.ALREADY_OPEN: "the cluster serves agents already",
    Reason.NO_BACKUP_RECIPIENT: "the policy names nobody who could open a backup",
    Reason.REVIEW_STALE: "what was reviewed has changed since",
    Reason.TOKEN_OUT_OF_STEP: "the token has to be resynchronized first",
    Reason.TICKET_USED: "the ticket was used before",
    Reason.TICKET_ENDED: "the ticket has ended",
    Reason.TICKETS_FULL: "too many tickets were made lately",
    Reason.JOINER_CERTIFICATE: "the joiner's certificate is not fit for a member",
    Reason.AUTHORITY_MISSING: "this member signs no certificates",
    Reason.ALLOW_LIST_LIMIT: "the allow list would become too long",
}

REASONS: Mapping[Reason, Answer] = {
    # The rules say no, unless it is named below.
    **{reason: _rule(reason, _CODE.FAILED_PRECONDITION) for reason in Reason},
    **{
        reason: _rule(reason, code, words)
        for code, reasons in (
            (_CODE.NOT_FOUND, _NOT_FOUND),
            (_CODE.ALREADY_EXISTS, _ALREADY_EXISTS),
            (_CODE.PERMISSION_DENIED, _PERMISSION_DENIED),
            (_CODE.UNAUTHENTICATED, _UNAUTHENTICATED),
            (_CODE.INVALID_ARGUMENT, _INVALID_ARGUMENT),
            (_CODE.FAILED_PRECONDITION, _FAILED_PRECONDITION),
        )
        for reason, words in reasons.items()
    },
    Reason.VERSION: _rule(
        Reason.VERSION, _CODE.ABORTED, "it has changed since it was read; read it again"
    ),
    Reason.REQUEST_TABLE_FULL: replace(EXCEPTIONS[OverloadedError], retry_s=5.0),
    Reason.STALE_PARAMETERS: Answer(
        code=_CODE.UNAVAILABLE,
        reason=Reason.STALE_PARAMETERS.name,
        words=f"it was changed by others meanwhile, more than once; {_AGAIN}",
        retry_s=0.5,
    ),
    Reason.NOT_INITIALIZED: Answer(
        code=_CODE.UNAVAILABLE,
        reason=Reason.NOT_INITIALIZED.name,
        words="the cluster has no administrator yet; run `sparecode-node init` on one "
        "node, or wait until that node is up",
        retry_s=1.0,
    ),
    Reason.NOT_OPEN: Answer(
        code=_CODE.UNAVAILABLE,
        reason=Reason.NOT_OPEN.name,
        words="the cluster was restored or recovered and serves no agent yet; an "
        "operator has to review and open it: `sparecode cluster open`",
        retry_s=10.0,
    ),
}

FOR_AGENTS = frozenset(
    {
        Reason.REQUEST_ID_REUSED,
        Reason.REQUEST_TABLE_FULL,
        Reason.STALE_PARAMETERS,
        Reason.NOT_INITIALIZED,
        Reason.NOT_OPEN,
    }
)
"""Refusals that say nothing about a user or a token: all that an agent may see (A6)."""


def answer_for(error: Exception, audience: Audience) -> Answer | None:
    """Look *error* up; None: it is a bug, or nothing that *audience* may see."""
    if isinstance(error, Refused):
        rejected = error.rejected
        if audience is Audience.AGENT and rejected.reason not in FOR_AGENTS:
            return None
        row = REASONS[rejected.reason]
        return replace(
            row,
            words=_said(rejected, row),
            field=rejected.field,
            field_words=rejected.detail or row.words,
            approval_id=error.approval_id
            if isinstance(error, ApprovalNeededError)
            else 0,
        )
    kinds = (kind for kind in type(error).__mro__ if kind in EXCEPTIONS)
    kind = next(kinds, None)
    if kind is None:
        return None
    row = EXCEPTIONS[kind]
    match error:
        case InvalidFieldError(field=field, message=message):
            return replace(
                row, words=f"{field}: {message}", field=field, field_words=message
            )
        case HashingOverloadedError(retry_after_s=retry_s):
            return replace(row, retry_s=retry_s)
        case RateError(retry_after_s=retry_s):
            return replace(row, words=str(error), retry_s=retry_s)
        case _:
            return row


def _said(rejected: Rejected, row: Answer) -> str:
    """Return what the rules said of the case, or what is true of all such cases."""
    words = rejected.detail or row.words or rejected.reason.value
    return f"{words}; {row.advice}" if row.advice else words


def status_of(answer: Answer) -> grpc.Status:
    """Return the status with its details, for `abort`."""
    number: int = answer.code.value[0]
    info = error_details_pb2.ErrorInfo(reason=answer.reason, domain=DOMAIN)
    if answer.approval_id:
        info.metadata["approval_id"] = str(answer.approval_id)
    details = [_any(info)]
    if answer.field or answer.reason == "FIELD":
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=answer.field, description=answer.field_words
        )
        details.append(_any(error_details_pb2.BadRequest(field_violations=[violation])))
    if answer.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(answer.retry_s * 1000))
        details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    status: grpc.Status = rpc_status.to_status(
        status_pb2.Status(code=number, message=answer.words, details=details)
    )
    return status


def _any(message: error_details_pb2.ErrorInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
