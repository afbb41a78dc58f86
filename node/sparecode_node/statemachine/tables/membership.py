# SPDX-License-Identifier: Apache-2.0
"""Rows of tickets and nodes."""

import json
import sqlite3

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import KnownNode, MemberKey, Ticket

MEMBER_KEY_TABLES = """
CREATE TABLE member_keys (              -- what members show to each other, see P5a
    node_id TEXT PRIMARY KEY,        -- also of removed members
    fingerprint TEXT NOT NULL,       -- SHA-256 of the public key, hex
    former TEXT NOT NULL,            -- the previous one, for a moment; else empty
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_TICKET = (
    "node_id, ticket_id, certificate, good_until_ms, ends_at_ms, used_by, address, "
    "hosts, with_authority"
)

_NODE = "node_id, address, removed, changed_at_ms, hosts, suspect"


def find_ticket(db: sqlite3.Connection, ticket_id: str) -> Ticket | None:
    """Return a ticket that is still known."""
    row = db.execute(
        f"SELECT {_TICKET} FROM join_tickets WHERE ticket_id = ?",
        (ticket_id,),
    ).fetchone()
    if row is None:
        return None
    return Ticket(
        node_id=NodeId(row[0]),
        ticket_id=row[1],
        certificate=row[2],
        good_until_ms=row[3],
        ends_at_ms=row[4],
        used_by=row[5],
        address=row[6],
        hosts=tuple(json.loads(row[7])),
        with_authority=bool(row[8]),
    )


def save_ticket(db: sqlite3.Connection, ticket: Ticket) -> None:
    """Save a ticket; it replaces an earlier ticket of the same node."""
    db.execute(
        f"INSERT OR REPLACE INTO join_tickets ({_TICKET}) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            ticket.node_id,
            ticket.ticket_id,
            ticket.certificate,
            ticket.good_until_ms,
            ticket.ends_at_ms,
            ticket.used_by,
            ticket.address,
            _json(ticket.hosts),
            int(ticket.with_authority),
        ),
    )


def count_tickets(db: sqlite3.Connection, *, excluding: NodeId) -> int:
    """Return the number of known tickets, not counting those of one node."""
    count: int = db.execute(
        "SELECT count(*) FROM join_tickets WHERE node_id != ?", (excluding,)
    ).fetchone()[0]
    return count


def ticket_certificates(db: sqlite3.Connection) -> tuple[bytes, ...]:
    """Return the certificates (DER) with which joiners may connect."""
    rows = db.execute("SELECT certificate FROM join_tickets ORDER BY ticket_id")
    return tuple(row[0] for row in rows)


def find_node(db: sqlite3.Connection, node_id: NodeId) -> KnownNode | None:
    """Return a node that joined or left."""
    row = db.execute(
        f"SELECT {_NODE} FROM nodes WHERE node_id = ?",
        (node_id,),
    ).fetchone()
    return _node(row) if row else None


def admitted(db: sqlite3.Connection) -> tuple[NodeId, ...]:
    """Return the nodes that were admitted and not removed; not those of the beginning."""
    rows = db.execute("SELECT node_id FROM nodes WHERE NOT removed ORDER BY node_id")
    return tuple(NodeId(row[0]) for row in rows)


def find_node_at(db: sqlite3.Connection, address: str) -> KnownNode | None:
    """Return the node that joined with this address."""
    row = db.execute(
        f"SELECT {_NODE} FROM nodes WHERE address = ? AND NOT removed",
        (address,),
    ).fetchone()
    return _node(row) if row else None


def save_node(db: sqlite3.Connection, node: KnownNode) -> None:
    """Save a node."""
    db.execute(
        f"INSERT OR REPLACE INTO nodes ({_NODE}) VALUES (?, ?, ?, ?, ?, ?)",
        (
            node.node_id,
            node.address,
            int(node.removed),
            node.changed_at_ms,
            None if node.hosts is None else _json(node.hosts),
            int(node.suspect),
        ),
    )


def member_keys(db: sqlite3.Connection) -> dict[NodeId, MemberKey]:
    """Return the public keys of the members that have told theirs."""
    rows = db.execute("SELECT node_id, fingerprint, former FROM member_keys")
    return {
        NodeId(node_id): MemberKey(fingerprint=fingerprint, former=former)
        for node_id, fingerprint, former in rows
    }


def save_member_key(
    db: sqlite3.Connection, node_id: NodeId, key: MemberKey, now_ms: int
) -> None:
    """Save the public key of a member, in place of an earlier one."""
    db.execute(
        "INSERT OR REPLACE INTO member_keys (node_id, fingerprint, former, since_ms) "
        "VALUES (?, ?, ?, ?)",
        (node_id, key.fingerprint, key.former, now_ms),
    )


def _node(row: tuple[str, str, int, int, str | None, int]) -> KnownNode:
    return KnownNode(
        node_id=NodeId(row[0]),
        address=row[1],
        removed=bool(row[2]),
        changed_at_ms=row[3],
        hosts=None if row[4] is None else tuple(json.loads(row[4])),
        suspect=bool(row[5]),
    )


def _json(hosts: tuple[str, ...]) -> str:
    return json.dumps(hosts, separators=(",", ":"))
