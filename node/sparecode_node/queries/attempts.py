# SPDX-License-Identifier: Apache-2.0
"""The latest sign-in attempts of one user, from the audit log (U1), and challenges."""

import re
import sqlite3
from dataclasses import dataclass

from sparecode_node.domain.audit import without_authentication
from sparecode_node.domain.ids import NameKey
from sparecode_node.queries import segments
from sparecode_node.queries.state import ReadTransaction

_DETAIL = re.compile(
    r"(?:token (?P<token>[^,]+)(?:, |$))?"
    r"(?:factor (?P<factor>[a-z ]+)(?:, |;|$))?"
    r"(?:client (?P<client>[^,]+)(?:, |$))?"
    r"(?:resource (?P<resource>.+?)(?:, challenge [0-9a-f-]{36}(?:; .*)?)?$)?"
)
"""The parts that apply writes. Caller's words come last: they may hold a comma."""

ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One passcode of a user, or one answer to a challenge, and its decision."""

    at_ms: int
    agent: str
    """The agent's name, or its identity if it is no longer registered."""
    node_id: str
    """The node that the agent called."""
    client_address: str
    """Where the user came from, as the agent said; may be empty."""
    resource: str
    """What the user wanted to reach, as the agent said; may be empty."""
    serial: str
    """The token of the passcode, if it was known."""
    factors: tuple[str, ...]
    outcome: str
    """`accepted`, `refused`, `next_tokencode_required` or `new_pin_required`."""
    reason: str
    authentication_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The latest attempts of a user that this node knows."""

    items: tuple[Attempt, ...]
    """Newest first, without a gap."""
    older_missing: bool
    """Whether there may be older ones: this node still fetches the events of that time."""


async def latest(
    transaction: ReadTransaction, name_key: NameKey, *, rows: int
) -> Latest:
    """Return at most *rows* attempts; those of feature level 1 are left out."""
    first = await segments.first_readable(transaction)
    events = await transaction.all(
        """
        SELECT sequence, at_ms, actor, node, outcome, reason, detail, authentication_id,
            (SELECT name FROM agents WHERE identity = substr(actor, 7)) AS agent
        FROM audit_events
        WHERE target = :target AND authentication_id IS NOT NULL
            AND sequence >= :first
            AND action IN ('Authenticate', 'ContinueAuthentication')
        ORDER BY sequence DESC LIMIT :rows
        """,
        target=name_key,
        first=first,
        rows=rows,
    )
    begin = (await segments.removed(transaction)).last_sequence + 1
    return Latest(
        items=tuple(_attempt(event) for event in events),
        older_missing=len(events) < rows and first > begin,
    )


def _attempt(event: sqlite3.Row) -> Attempt:
    match = _DETAIL.match(without_authentication(event["detail"]))
    parts = match.groupdict(default="") if match else {}
    return Attempt(
        at_ms=event["at_ms"],
        agent=event["agent"] or event["actor"].removeprefix("agent:"),
        node_id=event["node"],
        client_address=parts.get("client", ""),
        resource=parts.get("resource", ""),
        serial=parts.get("token", ""),
        factors=tuple(filter(None, parts.get("factor", "").split(" and "))),
        outcome=event["outcome"],
        reason=event["reason"],
        authentication_id=event["authentication_id"],
    )


async def is_consumed(transaction: ReadTransaction, challenge_id: str) -> bool:
    """Return whether a challenge was answered already (K3)."""
    row = await transaction.one(
        "SELECT 1 FROM consumed_challenges WHERE challenge_id = :challenge_id",
        challenge_id=challenge_id,
    )
    return row is not None
