# SPDX-License-Identifier: Apache-2.0
"""
Check of the size of the table of request ids (Q3).

A row stays for the policy's `request_retention`, and no row makes way for another one. One
caller that floods gets two thirds of the common part of the table (`statemachine/shares`),
so the others share the last third until the rows of the flood end.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.domain.policy import BOUNDS, SECOND_MS
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.requests import REQUESTS_TIME
from sparecode_node.statemachine.shares import FACTOR, RESERVED_PART
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, ok, warn

NAME = "request ids"

_ROUND = 10_000


def room_for_others(rows_max: int) -> int:
    """Return the rows that one flooding caller leaves to all others together."""
    common = rows_max - rows_max // RESERVED_PART
    return common // (FACTOR + 1)


def check_request_table(path: Path) -> Iterator[Finding]:
    """Compare the requests of the last minutes in the state with the size of the table."""
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as db,
    ):
        policy = find_policy(db)
        if policy is None:
            return
        now_ms = meta.read(db, REQUESTS_TIME, 0)
        (rows,) = db.execute(
            "SELECT count(*) FROM requests WHERE at_ms >= ?",
            (now_ms - policy.request_retention_ms,),
        ).fetchone()
        room = room_for_others(policy.requests_max)
        per_s = room / (policy.request_retention_ms / SECOND_MS)
        words = (
            f"{rows:,} kept of at most {policy.requests_max:,}. While one caller floods, "
            f"and for {policy.request_retention_ms // 60_000} minutes afterwards, all "
            f"others together have {per_s:.1f} calls a second"
        )
        if rows <= room:
            yield ok(NAME, words)
            return
        wanted = _enough_for(int(rows))
        yield warn(
            NAME,
            f"{words}. That is less than they make now: they would be refused "
            "(OVERLOADED). If no flood is under way, raise it: sparecode policy update "
            f"--set requests_max={wanted}",
        )


def _enough_for(rows: int) -> int:
    """Return the size that leaves room for these rows beside a flood, rounded up."""
    wanted = rows * (FACTOR + 1) * RESERVED_PART // (RESERVED_PART - 1) + 1
    return min(-(-wanted // _ROUND) * _ROUND, BOUNDS["requests_max"][1])
