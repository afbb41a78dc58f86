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


def chain_hash(previous: bytes, event: AuditEvent) -> bytes:
    """Return SHA-256 over the previous hash and the event as canonical JSON."""
    canonical = _CANONICAL.encode(
        # Runs in every commit: `dataclasses.asdict` would copy every value.
        {name: getattr(event, name) for name in _FIELDS}
    )
    return hashlib.sha256(previous + canonical.encode()).digest()
