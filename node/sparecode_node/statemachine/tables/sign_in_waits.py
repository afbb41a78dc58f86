# SPDX-License-Identifier: Apache-2.0
"""Rows of the waits of known clients after wrong passwords (L7)."""

import sqlite3

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.sign_in_waits import ClientWait
from sparecode_node.statemachine.tables.rows import upsert


def find(
    db: sqlite3.Connection, administrator: AdministratorName, client: str
) -> ClientWait | None:
    """Return the wait of a client; None: it has typed no wrong password recently."""
    row = db.execute(
        "SELECT failures, blocked_until_ms, ends_at_ms FROM sign_in_waits "
        "WHERE administrator = ? AND client = ?",
        (administrator, client),
    ).fetchone()
    if row is None:
        return None
    return ClientWait(failures=row[0], blocked_until_ms=row[1], ends_at_ms=row[2])


def count(db: sqlite3.Connection, administrator: AdministratorName) -> int:
    """Return how many clients of the administrator have a row."""
    (number,) = db.execute(
        "SELECT count(*) FROM sign_in_waits WHERE administrator = ?", (administrator,)
    ).fetchone()
    return int(number)


def save(
    db: sqlite3.Connection,
    administrator: AdministratorName,
    client: str,
    wait: ClientWait,
) -> None:
    """Save the wait of a client."""
    upsert(
        db,
        "sign_in_waits",
        ("administrator", "client"),
        administrator=administrator,
        client=client,
        failures=wait.failures,
        blocked_until_ms=wait.blocked_until_ms,
        ends_at_ms=wait.ends_at_ms,
    )


def delete(
    db: sqlite3.Connection, administrator: AdministratorName, client: str
) -> None:
    """Forget the wait of a client."""
    db.execute(
        "DELETE FROM sign_in_waits WHERE administrator = ? AND client = ?",
        (administrator, client),
    )


def delete_all(db: sqlite3.Connection, administrator: AdministratorName) -> None:
    """Forget the waits of all clients of an administrator."""
    db.execute("DELETE FROM sign_in_waits WHERE administrator = ?", (administrator,))
