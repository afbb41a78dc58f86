# SPDX-License-Identifier: Apache-2.0
"""
Results of commands.

They are stored with the request ids, so their names and fields never change.
"""

import enum
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.radius import NO_ATTRIBUTES, AcceptAttributes


class Decision(enum.StrEnum):
    """What an agent learns about a passcode (A6)."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NEXT_TOKENCODE_REQUIRED = "next_tokencode_required"
    NEW_PIN_REQUIRED = "new_pin_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The command was applied and committed at *index*."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated:
    """A passcode was judged. The decision is committed at *index*."""

    index: int
    decision: Decision
    authentication_id: str
    challenge: Challenge | None = None
    """The challenge of the next step, for decisions that require one (K3)."""
    attributes: AcceptAttributes = NO_ATTRIBUTES
    """
    What an acceptance tells the agent, over RADIUS and RadSec.

    Apply knows it: the node that answers may be behind.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyAccessSaved:
    """A set of emergency codes is live since *index*."""

    index: int
    at_ms: int
    set_id: str
    codes: int
    """Codes in this set."""
    live_codes: int
    """Live codes of the token, kept sets included."""
    voided_codes: int
    ends_at_ms: int | None
    """Effective end: the earlier of the set's and the token's (I7)."""
    pin_missing_warning: bool
    """`DENY` was chosen for a token that has no PIN (R)."""
    recipient: str = ""
    """The address that codes by message go to (I13); empty: they are shown."""
    to_manager: bool = False
    """Whether that is the address of the user's manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """An administrator has signed in."""

    index: int
    administrator: str
    role: str
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTicketCreated:
    """A ticket was created, valid until *ends_at_ms* (P5)."""

    index: int
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPending:
    """The command waits for another administrator to approve it (P3)."""

    index: int
    approval_id: int
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierPassed:
    """Everything committed before *index* is applied; *at_ms* is the primary's time."""

    index: int
    at_ms: int


Result = (
    Applied
    | Authenticated
    | EmergencyAccessSaved
    | SessionOpened
    | JoinTicketCreated
    | ApprovalPending
    | BarrierPassed
    | Rejected
)

_TYPES: dict[str, type[Result]] = {
    each.__name__: each
    for each in (
        Applied,
        Authenticated,
        EmergencyAccessSaved,
        SessionOpened,
        JoinTicketCreated,
        ApprovalPending,
        BarrierPassed,
        Rejected,
    )
}


_FIELDS = {
    each: tuple(field.name for field in fields(each)) for each in _TYPES.values()
}
_COMPACT = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def to_json(result: Result) -> str:
    """Return the result as JSON, the same text for the same result."""
    written: dict[str, Any] = {"type": type(result).__name__}
    for name in _FIELDS[type(result)]:
        written[name] = getattr(result, name)
    if isinstance(result, Authenticated):
        if result.challenge is None:
            del written["challenge"]  # Most results have none: save the room.
        else:
            written["challenge"] = asdict(result.challenge)
        if result.attributes == NO_ATTRIBUTES:
            del written["attributes"]  # No agent has any below feature level 2.
        else:
            written["attributes"] = asdict(result.attributes)
    elif isinstance(result, EmergencyAccessSaved) and not result.recipient:
        # Below feature level 2 no codes go by message.
        del written["recipient"], written["to_manager"]
    return _COMPACT.encode(written)


def from_json(text: str) -> Result:
    """Return the result of a text from `to_json`. Raises `ValueError` for other texts."""
    try:
        read = json.loads(text)
        kind = _TYPES[read.pop("type")]
        if kind is Rejected:
            read["reason"] = Reason(read["reason"])
        elif kind is Authenticated:
            read["decision"] = Decision(read["decision"])
            if "challenge" in read:
                read["challenge"] = _challenge(read["challenge"])
            if "attributes" in read:
                read["attributes"] = AcceptAttributes(**read["attributes"])
        return kind(**read)
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError("not a result") from error


def _challenge(read: dict[str, Any]) -> Challenge:
    return Challenge(**{**read, "step": NextStep(read["step"])})
