# SPDX-License-Identifier: Apache-2.0
"""Tickets to join a cluster, and the nodes that came or went by them (P5)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.policy import MINUTE_MS

TICKET_MS = 15 * MINUTE_MS
"""For so long a ticket is good."""
TICKET_KNOWN_MS = 60 * MINUTE_MS
"""For so long after that it is known why a ticket is good no more."""
TICKETS_MAX = 16
"""Known at once: a member looks at each of them in every handshake with a stranger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Lets one node be admitted, once. What it opens by is not here."""

    node_id: NodeId
    ticket_id: str
    certificate: bytes
    good_until_ms: int
    ends_at_ms: int
    """Until then it is known why it is good no more."""
    used_by: str | None = None
    """Fingerprint of the key that was admitted by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node that came or went after the cluster's beginning."""

    node_id: NodeId
    address: str
    removed: bool
    changed_at_ms: int
