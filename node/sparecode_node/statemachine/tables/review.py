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
RADIUS_CLIENTS = """
    SELECT identity, name, allow_unsigned, allow_unsigned_proxied,
        unsigned_until_signed, secret_id, created_at_ms
    FROM radius_clients JOIN agents USING (identity)
    LEFT JOIN radius_secrets USING (identity)
    WHERE ends_at_ms IS NULL
    ORDER BY identity, secret_id
"""
"""Each with its current secret: one that was rotated after the backup is valid again."""
AGENT_KEYS = """
    SELECT identity, name, bearer_id, created_at_ms, networks
    FROM agent_keys JOIN agents USING (identity)
    WHERE ends_at_ms IS NULL
    ORDER BY identity, bearer_id
"""
"""Each agent's current key: one that was replaced after the backup is valid again."""
ACCEPT_ATTRIBUTES = """
    SELECT identity, filter_id, class_attribute, session_timeout_s
    FROM accept_attributes ORDER BY identity
"""
"""What an Access-Accept tells each agent: a gateway may choose the user's role by it."""
RADIUS_NETWORKS = "SELECT identity, network FROM radius_networks ORDER BY network"
REVIEWED = (
    ADMINISTRATORS,
    AGENTS,
    DISABLED_USERS,
    DENIED_CERTIFICATES,
    RADIUS_CLIENTS,
    RADIUS_NETWORKS,
    AGENT_KEYS,
    ACCEPT_ATTRIBUTES,
)
"""
A query without rows adds nothing to the mark. So a member that does not know the last
four computes the same mark: below feature level 2 there are no RADIUS clients, keys and
attributes.
"""

MARK_DIGITS = 16


def mark_of(answers: Iterable[Iterable[Sequence[object]]]) -> str:
    """Return the mark of a review: a hash over the answers to `REVIEWED`, in order."""
    total = hashlib.sha256()
    for number, rows in enumerate(answers):
        for row in rows:
            total.update(f"{number} {tuple(row)!a}\n".encode())
    return total.hexdigest()[:MARK_DIGITS]
