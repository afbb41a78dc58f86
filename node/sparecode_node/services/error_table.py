# SPDX-License-Identifier: Apache-2.0
"""
Errors and what a caller is told about them: the one table, for every door.

Only a call with the reason `OUTCOME_UNKNOWN` may have been applied. An exception that
is not in the table is a bug: `INTERNAL` without any detail.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.transaction import DamagedFileError
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    ClockError,
    KeyMissingError,
    NoPrimaryError,
    NoQuorumError,
    OlderMemberError,
    OutcomeUnknownError,
    OverloadedError,
    RemovedError,
    StoppingError,
)
from sparecode_node.replication.links import decoding
from sparecode_node.replication.links.decoding import MalformedMessageError
from sparecode_node.services.errors import (
    ApprovalNeededError,
    CertificateDeniedError,
    CountingError,
    HashingOverloadedError,
    InvalidFieldError,
    NoCredentialsError,
    NoTimeLeftError,
    OpenCallsError,
    RateError,
    Refused,
    UnidentifiedError,
)
from sparecode_node.services.secrets.keyring import UnknownKeyError


class Code(enum.StrEnum):
    """The statuses, by the names that gRPC gives them."""

    OK = enum.auto()
    CANCELLED = enum.auto()
    INVALID_ARGUMENT = enum.auto()
    DEADLINE_EXCEEDED = enum.auto()
    NOT_FOUND = enum.auto()
    ALREADY_EXISTS = enum.auto()
    PERMISSION_DENIED = enum.auto()
    UNAUTHENTICATED = enum.auto()
    RESOURCE_EXHAUSTED = enum.auto()
    FAILED_PRECONDITION = enum.auto()
    ABORTED = enum.auto()
    UNIMPLEMENTED = enum.auto()
    INTERNAL = enum.auto()
    UNAVAILABLE = enum.auto()


class Audience(enum.Enum):
    """The reader of an answer. An agent learns no reason of the rules (A6)."""

    AGENT = enum.auto()
    ADMINISTRATOR = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A row of the table, or the answer for one error made from it."""

    code: Code
    reason: str
    words: str
    """What happened and what to do next, for a person. The rules may be more specific."""
    advice: str = ""
    """What to do next, if the rules say only what happened."""
    retry_s: float | None = None
    field: str = ""
    field_words: str = ""
    approval_id: int = 0
    """The approval that the change waits for; 0: none."""


_AGAIN = "nothing was changed; try again"

_KEY_MISSING = Answer(
    code=Code.UNAVAILABLE,
    reason="KEY_MISSING",
    words="this node or the primary lacks a key of the key ring and is fetching "
    f"it from the other members; {_AGAIN}, or use another node",
    retry_s=1.0,
)

EXCEPTIONS: Mapping[type[Exception], Answer] = {
    InvalidFieldError: Answer(
        code=Code.INVALID_ARGUMENT, reason="FIELD", words="a field is out of bounds"
    ),
    MalformedMessageError: Answer(
        code=Code.INVALID_ARGUMENT, reason="MALFORMED", words=decoding.WORDS
    ),
    UnidentifiedError: Answer(
        code=Code.UNAUTHENTICATED,
        reason="CERTIFICATE",
        words="the certificate must contain exactly one URI subject alternative name "
        "or, if it has none, exactly one DNS name",
    ),
    NoCredentialsError: Answer(
        code=Code.UNAUTHENTICATED,
        reason="CREDENTIALS",
        words="the caller is unknown; show a client certificate of the agents' authority, "
        "or a bearer key that works from this address",
    ),
    CertificateDeniedError: Answer(
        code=Code.PERMISSION_DENIED,
        reason="CERTIFICATE_REFUSED",
        words="this certificate is on the deny list; install another one",
    ),
    NoPrimaryError: Answer(
        code=Code.UNAVAILABLE,
        reason="NO_PRIMARY",
        words=f"this node knows no primary at the moment; {_AGAIN}, or use another node",
        retry_s=0.5,
    ),
    NoQuorumError: Answer(
        code=Code.UNAVAILABLE,
        reason="NO_QUORUM",
        words=f"too few nodes are in contact to decide; {_AGAIN}, or use another node",
        retry_s=1.0,
    ),
    ClockError: Answer(
        code=Code.UNAVAILABLE,
        reason="CLOCK",
        words="the clock of a node differs from most others by more than 2 s, so calls "
        f"cannot be timestamped; {_AGAIN}; if this persists, synchronize the nodes' "
        "clocks (NTP)",
        retry_s=1.0,
    ),
    OlderMemberError: Answer(
        code=Code.UNAVAILABLE,
        reason="OLDER_MEMBER",
        words="nothing was changed: a member runs an older release that does not "
        "support this; upgrade all members (`sparecode cluster status` shows their "
        "feature levels), then try again",
        retry_s=5.0,
    ),
    OverloadedError: Answer(
        code=Code.RESOURCE_EXHAUSTED,
        reason="OVERLOADED",
        words=f"this node is overloaded; {_AGAIN} a little later",
        retry_s=1.0,
    ),
    CountingError: Answer(
        code=Code.RESOURCE_EXHAUSTED,
        reason="COUNTING",
        words=f"the live codes are still being counted for this change; {_AGAIN} a little "
        "later",
        retry_s=1.0,
    ),
    RateError: Answer(
        code=Code.RESOURCE_EXHAUSTED,
        reason="RATE",
        words=f"too many calls in a short time; {_AGAIN} a little later",
        retry_s=1.0,
    ),
    ChangeRefusedError: Answer(  # Use cases replace it with a specific reason.
        code=Code.FAILED_PRECONDITION,
        reason=Reason.MEMBER_NOT_READY.name,
        words=f"the cluster cannot be changed in this way now; {_AGAIN}",
    ),
    RemovedError: Answer(
        code=Code.UNAVAILABLE,
        reason="REMOVED",
        words="this node was removed from the cluster and answers no calls; use another "
        "node, and take this one out of the list of nodes",
    ),
    UnknownKeyError: _KEY_MISSING,
    KeyMissingError: _KEY_MISSING,
    StoppingError: Answer(
        code=Code.UNAVAILABLE,
        reason="STOPPING",
        words="this node is stopping and no longer reads its whole state; use another "
        "node, or this one after it restarts",
        retry_s=1.0,
    ),
    MissingSegmentError: Answer(
        code=Code.UNAVAILABLE,
        reason="AUDIT_SEGMENT_MISSING",
        words="this node lacks older audit events, which it fetches from the other "
        "members; try again later, or use another node",
        retry_s=5.0,
    ),
    DamagedFileError: Answer(
        code=Code.UNAVAILABLE,
        reason="FILE_DAMAGED",
        words="a file of this node is damaged; use another node, and look for "
        "state_not_readable in the log of this one",
        retry_s=5.0,
    ),
    OutcomeUnknownError: Answer(
        code=Code.UNAVAILABLE,
        reason="OUTCOME_UNKNOWN",
        words="the change may have been made; call again with the same request_id to "
        "find out",
        retry_s=0.5,
    ),
    TimeoutError: Answer(
        code=Code.DEADLINE_EXCEEDED,
        reason="OUTCOME_UNKNOWN",
        words="the deadline has passed, and the change may have been made; call again "
        "with the same request_id to find out",
        retry_s=0.5,
    ),
    NoTimeLeftError: Answer(
        code=Code.DEADLINE_EXCEEDED,
        reason="DEADLINE",
        words=f"the call arrived with no time left; {_AGAIN}",
    ),
}


ADVICE: Mapping[Reason, str] = {
    Reason.ROLE: "ask an administrator whose role allows it",
    Reason.TOKEN_DISABLED: "enable it first",
    Reason.TOKEN_EXPIRED: "assign the user another token",
    Reason.USER_DISABLED: "enable the user first",
    Reason.USER_HAS_TOKENS: "unassign or delete them first",
    Reason.APPROVAL_NEEDED: "`sparecode approvals list` shows why",
    Reason.APPROVAL_STALE: "its author must make the request again",
    Reason.KEY_NOT_HELD: "nothing was changed; check that node, then try again",
    Reason.KEY_REPLACED: "call again to see its progress",
    Reason.APPROVALS_FULL: "wait until some of them are decided",
    Reason.REVIEW_STALE: "review it again: `sparecode cluster review`",
    Reason.MEMBER_EXISTS: "a machine that has lost its data must join under a new "
    "node id",
    Reason.TICKETS_FULL: "wait until the oldest is deleted, 75 minutes after it was "
    "created",
    Reason.TICKET_UNKNOWN: "create a new one: sparecode cluster ticket",
    Reason.JOINER_CERTIFICATE: "use one with an EC key that the members' authority "
    "has signed for this node id",
    Reason.AUTHORITY_MISSING: "check that a member with the authority's key runs, put the "
    "key on a member (sparecode-node authority restore), or provide a certificate",
    Reason.MEMBER_YOUNG: "request the reset on an older member",
    Reason.RESET_PENDING: "wait until it is in force: `sparecode cluster status` tells when",
    Reason.TICKET_USED: "create a new one: sparecode cluster ticket",
    Reason.TICKET_ENDED: "create a new one: sparecode cluster ticket",
    Reason.TICKET_ADDRESS: "correct the address under [cluster.members] in the node's "
    "node.toml, or create a new ticket",
}
"""What to do next after a refusal whose words say only what happened."""


def _rule(reason: Reason, code: Code, words: str = "") -> Answer:
    return Answer(
        code=code, reason=reason.name, words=words, advice=ADVICE.get(reason, "")
    )


_NOT_FOUND = {
    Reason.MOVE_UNKNOWN: "there is no such move; see sparecode cluster moves",
    Reason.USER_UNKNOWN: "there is no such user",
    Reason.TOKEN_UNKNOWN: "there is no such token",
    Reason.AGENT_UNKNOWN: "there is no such agent",
    Reason.SEGMENT_UNKNOWN: "the audit log has no such segment, or it is lost already",
    Reason.CERTIFICATE_NOT_DENIED: "no such certificate is denied",
    Reason.ADMINISTRATOR_UNKNOWN: "there is no such administrator",
    Reason.SESSION_UNKNOWN: "there is no such session",
    Reason.MEMBER_UNKNOWN: "there is no such member",
    Reason.AUTHORITY_NOT_DUE: "no authority is due because of this node",
    Reason.RESET_UNKNOWN: "no reset of this administrator is pending",
    Reason.APPROVAL_UNKNOWN: "there is no such approval",
    Reason.PASSKEY_UNKNOWN: "there is no such passkey; reload the page",
    Reason.TICKET_UNKNOWN: "there is no such ticket",
    Reason.CHANNEL_UNKNOWN: "there is no such channel",
    Reason.NOTICE_UNKNOWN: "no notice has this number, or none is a dead letter; "
    "`sparecode notices list` shows them",
}
_ALREADY_EXISTS = {
    Reason.USER_EXISTS: "a user with this name already exists",
    Reason.TOKEN_EXISTS: "a token with this serial already exists",
    Reason.SEED_EXISTS: "a token with this seed already exists",
    Reason.ADMINISTRATOR_EXISTS: "an administrator with this name already exists",
    Reason.AGENT_EXISTS: "an agent with this name or identity already exists",
    Reason.CERTIFICATE_DENIED: "this certificate is already denied",
    Reason.CHANNEL_EXISTS: "a channel with this name already exists",
    Reason.MEMBER_EXISTS: "a member with this node id already exists",
}
_PERMISSION_DENIED = {
    Reason.ROLE: "your role does not allow this",
    Reason.BROWSER_LOGIN_REFUSED: "the sign-in was refused in the Security Console",
    Reason.APPROVAL_NEEDED: "another super administrator must approve this",
    Reason.PASSWORD_CHANGE_NEEDED: "the password is temporary; change it first",
    Reason.REAUTHENTICATION_NEEDED: "the session must show password and second factor "
    "again",
    Reason.SECOND_FACTOR_REQUIRED: "the policy requires a second factor that this "
    "session has not shown; set it up in the Security Console, or sign in with it",
    Reason.SELF_SERVICE_FORBIDDEN: "administrators cannot do this for themselves; "
    "ask another administrator",
}
_UNAUTHENTICATED = {
    Reason.SESSION_ENDED: "not signed in, or the session has ended; sign in again",
    Reason.SECOND_FACTOR_NEEDED: "a code of the second factor is also needed",
    Reason.SECOND_FACTOR_WRONG: "the code is wrong or was already used",
    Reason.PASSKEY_NEEDED: "a passkey is also needed, which works in a browser only; sign in "
    "to the Security Console, or approve this sign-in there",
    Reason.BROWSER_LOGIN_UNKNOWN: "there is no such sign-in, or it has ended; start again",
    Reason.PASSKEY_WRONG: "the passkey was not accepted; try again",
    Reason.SIGN_IN_REFUSED: "the name or the password is wrong, or sign-in is delayed "
    "after failures",
}
_INVALID_ARGUMENT = {
    Reason.REQUEST_ID_REUSED: "this request_id was used for a different request; "
    "use a new one for a new request",
    Reason.POLICY_VALUE: "a field of the policy is out of its bounds",
    Reason.CODE_COUNT: "the number of codes is out of bounds",
}
_FAILED_PRECONDITION = {
    Reason.SLOT_MOVED: "the user has moved to another cluster; ask that one",
    Reason.MOVE_SLOTS: "these slots cannot move now; see sparecode cluster moves",
    Reason.MOVE_STEP: "the move is at another step; see sparecode cluster moves",
    Reason.MOVE_RECEIPT: "this is no receipt of this move; take the file that the target has written",
    Reason.MOVE_EXPORT: "this export is not of this move, or is damaged; write it again",
    Reason.MOVE_CONFLICT: "this cluster has a user or token of the same name; remove it, and load again",
    Reason.APPROVAL_STALE: "the state has changed since the request was made",
    Reason.APPROVALS_FULL: "you have the maximum number of pending requests",
    Reason.KEY_IN_USE: "the key is still in use; wait until it is no longer used",
    Reason.CODES_LIVE: "live codes have this form; wait until they end, or disable them",
    Reason.USER_DISABLED: "the user is disabled",
    Reason.KEY_NOT_HELD: "not every member received the new key",
    Reason.KEY_REPLACED: "another rotation was faster",
    Reason.MEMBER_NOT_READY: "the members cannot be changed in this way now; try again",
    Reason.LAST_SEGMENT_HOLDER: "too few other members have some of its audit segments",
    Reason.SEGMENT_HELD: "a member has the audit segment; others fetch it by themselves",
    Reason.MEMBER_YOUNG: "this node has been a member for less than a day",
    Reason.RESET_PENDING: "a reset of this administrator is already requested",
    Reason.MEMBER_REMOVED: "this node id belonged to a removed member; use another one",
    Reason.USER_IS_ADMINISTRATOR: "an administrator is linked to the user",
    Reason.LAST_SUPER_ADMIN: "there would be no super administrator left",
    Reason.SECOND_FACTOR_NOT_CONFIRMED: "this is not the current code of the secret",
    Reason.SECOND_FACTOR_NOT_SET: "there is no second factor",
    Reason.SECOND_FACTOR_SET: "there is already a second factor",
    Reason.PASSKEY_REFUSED: "the passkey was not registered; try again",
    Reason.PASSKEY_LIMIT: "there are too many passkeys; remove one first",
    Reason.PASSKEYS_IN_USE: "passkeys of the old domain exist; remove them first",
    Reason.BROWSER_LOGINS_FULL: "too many sign-ins wait for an approval; try again later",
    Reason.WRONG_PASSWORD: "the password is wrong",
    Reason.GROUP_LIMIT: "there would be too many groups; remove some first",
    Reason.USER_HAS_TOKENS: "the user still has tokens",
    Reason.TOKEN_NOT_ASSIGNED: "the token is not assigned to anyone; assign it first",
    Reason.TOKEN_ASSIGNED: "the token is already assigned",
    Reason.TOKEN_DISABLED: "the token is disabled",
    Reason.TOKEN_EXPIRED: "the token has expired",
    Reason.TOKEN_LIMIT: "the user already has the maximum number of tokens",
    Reason.PIN_NOT_SET: "the token has no PIN; set one first",
    Reason.PIN_FORMAT: "this PIN cannot be combined with the token's tokencodes; "
    "set a new one",
    Reason.PINS_LETTERED: "some tokens have PINs with letters; set or clear those PINs first",
    Reason.PIN_NOT_USED: "the token's passcodes have no PIN",
    Reason.TOKEN_NOT_LOST: "the token is not marked as lost",
    Reason.TOKENCODES_NOT_CONSECUTIVE: "these are not two consecutive tokencodes of "
    "the token",
    Reason.TOKENCODE_SPENT: "a tokencode was already used",
    Reason.TOKENCODE_MAYBE_SPENT: "a tokencode may have been used before a restore",
    Reason.DRAFT_STALE: "something changed since the codes were generated; "
    "generate them again",
    Reason.RECOVERY_WEAKENED: "the token is lost with the recovery policy deny; "
    "confirm that a weaker one replaces it",
    Reason.RECOVERY_NEEDS_END: "the recovery policy allow-after-expiry needs codes "
    "that expire",
    Reason.RECOVERY_END_TOO_LATE: "the recovery policy allow-after-expiry needs "
    "codes that expire before the token does",
    Reason.LIFETIME_PAST: "the end is in the past",
    Reason.NO_EMERGENCY_ACCESS: "the token is not in emergency access",
    Reason.NOT_BY_MESSAGE: "these codes cannot go by message",
    Reason.ENTRY_SKIPPED: "this request made the nodes stop, so the operators skipped "
    "it; nothing was changed",
    Reason.ALREADY_INITIALIZED: "the cluster already exists",
    Reason.ALREADY_OPEN: "the cluster already serves agents",
    Reason.NO_BACKUP_RECIPIENT: "the policy names no backup recipients",
    Reason.REVIEW_STALE: "the state has changed since the review",
    Reason.TOKEN_OUT_OF_STEP: "the token must be resynchronized first",
    Reason.TICKET_USED: "the ticket was already used",
    Reason.TICKET_ENDED: "the ticket has expired",
    Reason.TICKETS_FULL: "too many tickets were created recently",
    Reason.TICKET_ADDRESS: "the ticket is for another address",
    Reason.JOINER_CERTIFICATE: "the joiner's certificate is not valid for a member",
    Reason.AUTHORITY_MISSING: "this member signs no certificates",
    Reason.CHANNELS_FULL: "there are too many channels; remove one first",
    Reason.CHANNEL_SETTINGS: "the channel's settings do not fit its kind",
    Reason.ALLOW_LIST_LIMIT: "the allow list would become too long",
}

REASONS: Mapping[Reason, Answer] = {
    # Every reason is a refusal by the rules, unless it is named below.
    **{reason: _rule(reason, Code.FAILED_PRECONDITION) for reason in Reason},
    **{
        reason: _rule(reason, code, words)
        for code, reasons in (
            (Code.NOT_FOUND, _NOT_FOUND),
            (Code.ALREADY_EXISTS, _ALREADY_EXISTS),
            (Code.PERMISSION_DENIED, _PERMISSION_DENIED),
            (Code.UNAUTHENTICATED, _UNAUTHENTICATED),
            (Code.INVALID_ARGUMENT, _INVALID_ARGUMENT),
            (Code.FAILED_PRECONDITION, _FAILED_PRECONDITION),
        )
        for reason, words in reasons.items()
    },
    Reason.VERSION: _rule(
        Reason.VERSION,
        Code.ABORTED,
        "the value has changed since it was read; read it again",
    ),
    Reason.REQUEST_TABLE_FULL: replace(EXCEPTIONS[OverloadedError], retry_s=5.0),
    Reason.STALE_PARAMETERS: Answer(
        code=Code.UNAVAILABLE,
        reason=Reason.STALE_PARAMETERS.name,
        words=f"other changes got in the way more than once; {_AGAIN}",
        retry_s=0.5,
    ),
    Reason.NOT_INITIALIZED: Answer(
        code=Code.UNAVAILABLE,
        reason=Reason.NOT_INITIALIZED.name,
        words="the cluster has no administrator yet; run `sparecode-node init` on one "
        "node, or wait until that node is up",
        retry_s=1.0,
    ),
    Reason.NOT_OPEN: Answer(
        code=Code.UNAVAILABLE,
        reason=Reason.NOT_OPEN.name,
        words="the cluster was restored or recovered and does not serve agents yet; an "
        "operator must review and open it: `sparecode cluster open`",
        retry_s=10.0,
    ),
    Reason.SLOT_MOVING: Answer(
        code=Code.UNAVAILABLE,
        reason=Reason.SLOT_MOVING.name,
        words="the user is on the way between two clusters; try again in a minute",
        retry_s=5.0,
    ),
}

FOR_AGENTS = frozenset(
    {
        Reason.REQUEST_ID_REUSED,
        Reason.REQUEST_TABLE_FULL,
        Reason.STALE_PARAMETERS,
        Reason.ENTRY_SKIPPED,
        Reason.NOT_INITIALIZED,
        Reason.NOT_OPEN,
        Reason.SLOT_MOVING,
        Reason.SLOT_MOVED,
    }
)
"""Refusals that reveal nothing about a user or a token. An agent sees no others (A6)."""


def answer_for(error: Exception, audience: Audience) -> Answer | None:
    """Return the answer for *error*; None: a bug, or hidden from *audience*."""
    if isinstance(error, Refused):
        rejected = error.rejected
        if audience is Audience.AGENT and rejected.reason not in FOR_AGENTS:
            return None
        row = REASONS[rejected.reason]
        return replace(
            row,
            words=_words(rejected, row),
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
        case OpenCallsError():
            return replace(row, words=str(error))
        case _:
            return row


def _words(rejected: Rejected, row: Answer) -> str:
    """Return the words of the rules for this case, or else the general words."""
    words = rejected.detail or row.words or rejected.reason.value
    return f"{words}; {row.advice}" if row.advice else words
