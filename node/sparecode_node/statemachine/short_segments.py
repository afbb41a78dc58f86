# SPDX-License-Identifier: Apache-2.0
"""The sealed segments that too few archives have, for metrics and the doctor (U4)."""

import sqlite3
from dataclasses import dataclass

from sparecode_node.domain.policy import Policy
from sparecode_node.domain.retention import fresh_since_ms
from sparecode_node.domain.segments import Ranges, gone, ranges_of
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.tables import archives, segments


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortSegments:
    """What retention cannot remove, because too few archives have it."""

    removed: int
    """How many segments retention has removed."""
    ranges: Ranges
    """Those that fewer archives have than the policy wants; none without a retention."""
    count: int
    oldest_ms: int
    """The time of the last event of the oldest one; 0: there is none."""
    wanted: int
    """How many archives the policy wants."""


def short_segments(db: sqlite3.Connection, now_ms: int) -> ShortSegments:
    """Return them as the state of this node has them. Raises `sqlite3.Error`."""
    policy = find_policy(db) or Policy()
    removed, wanted = archives.removed(db).through, policy.audit_archive_copies
    short: list[tuple[int, int]] = []
    if policy.audit_retention_ms is not None:
        exempt = gone(segments.lost(db), segments.holdings(db).values())
        short = [
            (number, last_at_ms)
            for number, last_at_ms in archives.short(
                db, wanted, since_ms=fresh_since_ms(now_ms)
            )
            if number not in exempt
        ]
    return ShortSegments(
        removed=removed,
        ranges=ranges_of(number for number, _ in short),
        count=len(short),
        oldest_ms=short[0][1] if short else 0,
        wanted=wanted,
    )
