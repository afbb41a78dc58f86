# SPDX-License-Identifier: Apache-2.0
"""
How many request ids each caller has, kept beside the state (Q3).

A node needs these numbers when it starts. Counting five million rows takes it several
seconds. So each entry writes the numbers that it changes, in its own transaction, and the
index that they belong to. They are no state: not in the digest, not in a snapshot, and
never taken from another member. A table of another index is not used: software that does
not know it has applied entries since.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

SIGN_IN = "SessionService/Login"
"""The sign-ins of an administrator are counted apart from the other calls."""


class Share(NamedTuple):
    """What is counted together."""

    caller: str
    signs_in: bool
    in_reserve: bool


Counts = dict[Share, int]

_CREATE = (
    """
CREATE TABLE request_counts (
    caller TEXT NOT NULL,
    signs_in INTEGER NOT NULL,
    in_reserve INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (caller, signs_in, in_reserve)
) STRICT, WITHOUT ROWID
""",
    "CREATE TABLE request_counts_index (applied_index INTEGER NOT NULL) STRICT",
)
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE name = 'request_counts_index'"


def read(db: sqlite3.Connection, index: int) -> Counts | None:
    """Return the numbers at an index, or None if those in the table are of another one."""
    if not db.execute(_EXISTS).fetchone():
        return None
    at = db.execute("SELECT applied_index FROM request_counts_index").fetchone()
    if at != (index,):
        return None
    return {
        Share(caller, bool(signs_in), bool(in_reserve)): rows
        for caller, signs_in, in_reserve, rows in db.execute(
            "SELECT caller, signs_in, in_reserve, rows FROM request_counts"
        )
    }


def count(db: sqlite3.Connection) -> Counts:
    """Count the rows of the table of request ids: it reads all of them."""
    return {
        Share(caller, bool(signs_in), bool(in_reserve)): rows
        for caller, signs_in, in_reserve, rows in db.execute(
            "SELECT caller, method = ?, in_reserve, count(*) FROM requests "
            "GROUP BY 1, 2, 3",
            (SIGN_IN,),
        )
    }


def update(db: sqlite3.Connection, index: int, changed: Counts) -> None:
    """Write the numbers that an entry has changed; 0 removes a row."""
    for share, rows in changed.items():
        if rows:
            db.execute(
                "INSERT INTO request_counts VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET rows = excluded.rows",
                (*share, rows),
            )
        else:
            db.execute(
                "DELETE FROM request_counts "
                "WHERE caller = ? AND signs_in = ? AND in_reserve = ?",
                share,
            )
    db.execute("UPDATE request_counts_index SET applied_index = ?", (index,))


def replace(db: sqlite3.Connection, index: int, counts: Counts) -> None:
    """Write all numbers, in the caller's transaction."""
    drop(db)
    for statement in _CREATE:
        db.execute(statement)
    db.executemany("INSERT INTO request_counts VALUES (?, ?, ?, ?)", _rows_of(counts))
    db.execute("INSERT INTO request_counts_index VALUES (?)", (index,))


def drop(db: sqlite3.Connection) -> None:
    """Remove the tables: earlier releases do not know them."""
    db.execute("DROP TABLE IF EXISTS request_counts")
    db.execute("DROP TABLE IF EXISTS request_counts_index")


def _rows_of(counts: Counts) -> Iterable[tuple[str, bool, bool, int]]:
    return ((*share, rows) for share, rows in counts.items())
