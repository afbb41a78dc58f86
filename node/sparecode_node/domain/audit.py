# SPDX-License-Identifier: Apache-2.0
"""
Audit events, and the hash chain that links each event to all earlier ones (U1).

The hash of an event covers the previous event's hash and every field in canonical
form. So an edit, a gap or a reordering changes every later hash.
"""

import hashlib
import json
from dataclasses import dataclass, fields

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
