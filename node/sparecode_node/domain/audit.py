# SPDX-License-Identifier: Apache-2.0
"""
Audit events, and the hash chain that links each event to all earlier ones (U1).

The hash of an event covers the previous event's hash and every field in canonical
form. So an edit, a gap or a reordering changes every later hash.
"""

import hashlib
import json
from dataclasses import dataclass, fields, replace

GENESIS_HASH = bytes(32)
"""The previous hash of the first event."""


AUTHENTICATION = "authentication "
"""The beginning of the detail of an event that a decision on a passcode has made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One decision or change in the audit log. It never holds a secret."""

    sequence: int
    at_ms: int
    actor: str
    """`administrator:NAME`, `agent:IDENTITY` or `node:ID`."""
    node: str
    """The called node."""
    action: str
    target: str
    outcome: str
    """`applied`, `accepted`, `refused` or `noted` (a consequence of another event)."""
    reason: str = ""
    detail: str = ""


TEXT_MAX = 4_096
"""Characters of an actor, target or reason: a name of 128 letters can fold to 2,304."""
DETAIL_MAX = 8_192
DETAILS_MAX = {"UpdateAgent": 16_384}
"""Characters of a detail; of actions whose whole requests need more than `DETAIL_MAX`."""
_NOTE_MAX = 128
_END_SHOWN = 1_024
"""Characters that stay at the end of a long text: by whom it was requested and approved."""


def bounded(event: AuditEvent) -> AuditEvent:
    """Return an event whose texts have the bounds of its action."""
    most = DETAILS_MAX.get(event.action, DETAIL_MAX)
    return replace(
        event,
        actor=_bounded(event.actor, TEXT_MAX),
        target=_bounded(event.target, TEXT_MAX),
        reason=_bounded(event.reason, TEXT_MAX),
        detail=_bounded(event.detail, most),
    )


def _bounded(text: str, most: int) -> str:
    """Return a text, or its two ends and a hash that proves the whole of it."""
    if len(text) <= most:
        return text
    begin = text[: most - _NOTE_MAX - _END_SHOWN]
    left = len(text) - len(begin) - _END_SHOWN
    whole = hashlib.sha256(text.encode()).hexdigest()
    return (
        f"{begin} (and {left:,} more characters; SHA-256 of all: {whole}) "
        f"{text[-_END_SHOWN:]}"
    )


_CANONICAL = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"))
_FIELDS = tuple(field.name for field in fields(AuditEvent))


def detail_of(authentication_id: str, detail: str) -> str:
    """
    Return the detail of an event that the decision with this id has made.

    The id is first, before any words of a caller: the tables find it there.
    """
    return ", ".join(filter(None, (f"{AUTHENTICATION}{authentication_id}", detail)))


def without_authentication(detail: str) -> str:
    """Return the detail of an event without the id of its decision."""
    return detail.partition(", ")[2] if detail.startswith(AUTHENTICATION) else detail


def canonical(event: AuditEvent) -> bytes:
    """Return an event as canonical JSON: equal events have equal bytes."""
    # Runs in every commit: `dataclasses.asdict` would copy every value.
    return _CANONICAL.encode({name: getattr(event, name) for name in _FIELDS}).encode()


def chain_hash(previous: bytes, event: AuditEvent) -> bytes:
    """Return SHA-256 over the previous hash and the event as canonical JSON."""
    return hashlib.sha256(previous + canonical(event)).digest()
