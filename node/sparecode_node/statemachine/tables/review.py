# SPDX-License-Identifier: Apache-2.0
"""
The review before a restored cluster serves agents (E2).

A restored state brings back removed people and earlier permissions. The operator reads
the results of these queries, and apply compares their hash. So only the state that was
reviewed can be opened.
"""

import hashlib
from collections.abc import Iterable, Sequence

ADMINISTRATORS = "SELECT name, role, enabled, version FROM administrators ORDER BY name"
AGENTS = "SELECT name, identity, enabled, restricted FROM agents ORDER BY name"
DISABLED_USERS = "SELECT username FROM users WHERE NOT enabled ORDER BY name_key"
DENIED_CERTIFICATES = (
    "SELECT mark, value, denied_at_ms, denied_by FROM denied_certificates "
    "ORDER BY mark, value"
)
REVIEWED = (ADMINISTRATORS, AGENTS, DISABLED_USERS, DENIED_CERTIFICATES)

MARK_DIGITS = 16


def mark_of(answers: Iterable[Iterable[Sequence[object]]]) -> str:
    """Return the mark of a review: a hash over the answers to `REVIEWED`, in order."""
    total = hashlib.sha256()
    for number, rows in enumerate(answers):
        for row in rows:
            total.update(f"{number} {tuple(row)!a}\n".encode())
    return total.hexdigest()[:MARK_DIGITS]
