# SPDX-License-Identifier: Apache-2.0
"""Rows of sign-ins that wait for their approval in a browser (P9)."""

import sqlite3

from sparecode_node.domain.browser_logins import (
    KNOWN_MAX,
    BrowserLogin,
    LoginState,
)
from sparecode_node.domain.caller_addresses import source_of
from sparecode_node.domain.ids import AdministratorName, SessionId
from sparecode_node.statemachine.tables.rows import upsert

BROWSER_LOGIN_TABLES = """
CREATE TABLE browser_logins (           -- sign-ins that wait for an approval, see P9
    login_id TEXT PRIMARY KEY,       -- keyed hash of the device code, hex
    code_tag BLOB NOT NULL UNIQUE,   -- keyed hash of administrator and user code
    administrator TEXT NOT NULL,     -- as typed: none may have this name
    device TEXT NOT NULL,            -- known device; empty: a stranger
    address TEXT NOT NULL,
    source TEXT NOT NULL,            -- the address, or its network
    client_name TEXT NOT NULL,
    asked_at_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,
    state TEXT NOT NULL,             -- waiting, approved, refused
    approver TEXT NOT NULL           -- session that approved; empty: none
) STRICT, WITHOUT ROWID;
CREATE INDEX browser_logins_by_end ON browser_logins (ends_at_ms);
"""


def find(db: sqlite3.Connection, login_id: str, now_ms: int) -> BrowserLogin | None:
    """Return a request that has not ended."""
    row = db.execute(
        "SELECT code_tag, administrator, device, address, client_name, asked_at_ms, "
        "ends_at_ms, state, approver FROM browser_logins "
        "WHERE login_id = ? AND ends_at_ms > ?",
        (login_id, now_ms),
    ).fetchone()
    if row is None:
        return None
    return BrowserLogin(
        login_id=login_id,
        code_tag=row[0],
        administrator=AdministratorName(row[1]),
        device=row[2],
        address=row[3],
        client_name=row[4],
        asked_at_ms=row[5],
        ends_at_ms=row[6],
        state=LoginState(row[7]),
        approver=SessionId(row[8]),
    )


def is_known_code(db: sqlite3.Connection, code_tag: bytes) -> bool:
    """Return whether another request has this user code for the same administrator."""
    row = db.execute(
        "SELECT 1 FROM browser_logins WHERE code_tag = ?", (code_tag,)
    ).fetchone()
    return row is not None


def strangers(db: sqlite3.Connection) -> int:
    """Return the number of requests of strangers."""
    (number,) = db.execute(
        "SELECT count(*) FROM browser_logins WHERE device = ''"
    ).fetchone()
    return int(number)


def strangers_of(db: sqlite3.Connection, source: str) -> int:
    """Return the number of requests of the strangers of one source."""
    (number,) = db.execute(
        "SELECT count(*) FROM browser_logins WHERE device = '' AND source = ?",
        (source,),
    ).fetchone()
    return int(number)


def make_room(db: sqlite3.Connection, administrator: AdministratorName) -> None:
    """Delete the oldest requests from known devices, so that one more has room."""
    db.execute(
        "DELETE FROM browser_logins WHERE login_id IN ("
        "    SELECT login_id FROM browser_logins "
        "    WHERE administrator = ? AND device != '' "
        "    ORDER BY asked_at_ms DESC, login_id LIMIT -1 OFFSET ?)",
        (administrator, KNOWN_MAX - 1),
    )


def save(db: sqlite3.Connection, login: BrowserLogin) -> None:
    """Save a request."""
    upsert(
        db,
        "browser_logins",
        ("login_id",),
        login_id=login.login_id,
        code_tag=login.code_tag,
        administrator=login.administrator,
        device=login.device,
        address=login.address,
        source=source_of(login.address),
        client_name=login.client_name,
        asked_at_ms=login.asked_at_ms,
        ends_at_ms=login.ends_at_ms,
        state=login.state,
        approver=login.approver,
    )


def delete(db: sqlite3.Connection, login_id: str) -> None:
    """Delete a request."""
    db.execute("DELETE FROM browser_logins WHERE login_id = ?", (login_id,))
