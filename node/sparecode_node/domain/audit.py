# SPDX-License-Identifier: Apache-2.0
"""
Audit events as values, and the chain that binds each to all before it (U1).

The hash of an event covers the hash of the previous one and every field in a
canonical form, so an edit, a gap or a reordering changes every later hash.
"""

import hashlib
import json
from dataclasses import dataclass, fields

GENESIS_HASH = bytes(32)
"""What the first event has as the hash of the previous one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One decision or change, as the audit log keeps it. Never holds a secret."""

    sequence: int
    at_ms: int
    actor: str
    """`administrator:NAME`, `agent:IDENTITY` or `node:ID`."""
    node: str
    """The node that was called."""
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
        {name: getattr(event, name) for name in _FIELDS}  # In every commit: no copies.
    )
    return hashlib.sha256(previous + canonical.encode()).digest()
