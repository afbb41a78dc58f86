# SPDX-License-Identifier: Apache-2.0
"""Bytes per user, request id and audit event on disk, for the rules of thumb."""

import contextlib
import sqlite3

from tests.bench.estate import Estate
from tests.bench.harness import Bench

PAGES = """
SELECT coalesce(sum(pgsize) FILTER (WHERE tbl_name = 'requests'), 0),
    coalesce(sum(pgsize) FILTER (WHERE tbl_name = 'audit_events'), 0),
    coalesce(sum(pgsize) FILTER (WHERE tbl_name NOT IN ('requests', 'audit_events')), 0)
FROM dbstat JOIN sqlite_schema USING (name)
"""
"""Bytes of request ids, of audit events, and of the rest, which grows with users."""
EVENTS = """
SELECT count(*), sum(bytes) * 1.0 / (SELECT sum(bytes) FROM events)
FROM events WHERE action = 'Authenticate'
"""
"""The number of authentication events, and their share of the bytes of all events."""


def state(bench: Bench, estate: Estate) -> None:
    """Report what a user, a remembered request id and an audit event take on disk."""
    path = estate.cluster.nodes[0].directory / "data" / "state.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        each = bytes_each(db, estate.population.users)
    bench.report.add(
        "state on disk, in bytes",
        users=estate.population.users,
        codes=estate.population.codes,
        **each,
    )


def bytes_each(db: sqlite3.Connection, users: int) -> dict[str, int]:
    """
    Return the bytes of a user with token and codes, of a request and of an event.

    Counts whole pages with all indexes, so it needs many rows of each. The event is
    an authentication. Raises `RuntimeError` if there are no rows, and
    `sqlite3.OperationalError` if SQLite was built without its table of pages.
    """
    request_bytes, event_bytes, other_bytes = db.execute(PAGES).fetchone()
    (requests,) = db.execute("SELECT count(*) FROM requests").fetchone()
    columns = [row[1] for row in db.execute("PRAGMA table_info(audit_events)")]
    length = " + ".join(f"length(CAST({column} AS BLOB))" for column in columns)
    events, share = db.execute(
        f"WITH events AS (SELECT action, {length} AS bytes FROM audit_events) {EVENTS}"  # noqa: S608
    ).fetchone()
    if not (users and requests and events):
        raise RuntimeError(
            f"nothing to divide by: {users} users, {requests} requests, {events} events"
        )
    return {
        "a_user_with_token_and_codes": round(other_bytes / users),
        "a_remembered_request": round(request_bytes / requests),
        "an_authentication_in_the_audit_log": round(event_bytes * share / events),
    }
