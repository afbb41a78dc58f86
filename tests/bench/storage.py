# SPDX-License-Identifier: Apache-2.0
"""How many bytes of the state what is kept takes: for the rules of thumb."""

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
"""The bytes of what grows with what is asked; all else grows with users here."""
EVENTS = """
SELECT count(*), sum(bytes) * 1.0 / (SELECT sum(bytes) FROM events)
FROM events WHERE action = 'Authenticate'
"""
"""How many events are of authentications, and their share of the bytes of all."""


def state(bench: Bench, estate: Estate) -> None:
    """See what a user, a remembered request id and an audit event take on disk."""
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

    Whole pages with all indexes, so that many of each are needed; the event is that of
    an authentication. Raises `RuntimeError` if there are none, and
    `sqlite3.OperationalError` where SQLite was built without its table of pages.
    """
    of_requests, of_events, of_others = db.execute(PAGES).fetchone()
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
        "a_user_with_token_and_codes": round(of_others / users),
        "a_remembered_request": round(of_requests / requests),
        "an_authentication_in_the_audit_log": round(of_events * share / events),
    }
