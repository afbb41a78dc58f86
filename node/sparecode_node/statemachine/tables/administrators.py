# SPDX-License-Identifier: Apache-2.0
"""Rows of administrators."""

import hashlib
import json
import sqlite3

from sparecode_node.domain.administrators import Administrator, Role, SecondFactor
from sparecode_node.domain.ids import NO_KEY, AdministratorName, UserId
from sparecode_node.statemachine.tables.rows import upsert


def find_administrator(
    db: sqlite3.Connection, name: AdministratorName
) -> Administrator | None:
    """Return the administrator with this folded name."""
    row = db.execute(
        "SELECT name, role, password_salt, password_verifier, key_id, version, "
        "enabled, failures, blocked_until_ms, user_id, temporary, sealed_factor, "
        "factor_key_id, factor_spent, replaced, "
        "(SELECT count(*) FROM passkeys WHERE administrator = name) "
        "FROM administrators WHERE name = ?",
        (name,),
    ).fetchone()
    if row is None:
        return None
    return Administrator(
        name=row[0],
        role=Role(row[1]),
        password_salt=row[2],
        password_verifier=row[3],
        key_id=row[4],
        version=row[5],
        enabled=bool(row[6]),
        failures=row[7],
        blocked_until_ms=row[8],
        user_id=row[9],
        temporary=bool(row[10]),
        second_factor=SecondFactor(sealed_seed=row[11], key_id=row[12], spent=row[13])
        if row[11]
        else None,
        replaced=bool(row[14]),
        passkeys=row[15],
    )


def save_administrator(db: sqlite3.Connection, administrator: Administrator) -> None:
    """Save an administrator. Passkeys have rows of their own."""
    factor = administrator.second_factor
    upsert(
        db,
        "administrators",
        ("name",),
        name=administrator.name,
        role=administrator.role,
        password_salt=administrator.password_salt,
        password_verifier=administrator.password_verifier,
        key_id=administrator.key_id,
        version=administrator.version,
        enabled=administrator.enabled,
        failures=administrator.failures,
        blocked_until_ms=administrator.blocked_until_ms,
        user_id=administrator.user_id,
        temporary=administrator.temporary,
        sealed_factor=factor.sealed_seed if factor else b"",
        factor_key_id=factor.key_id if factor else NO_KEY,
        factor_spent=factor.spent if factor else -1,
        replaced=administrator.replaced,
    )


def delete_administrator(db: sqlite3.Connection, name: AdministratorName) -> None:
    """Delete an administrator without sessions."""
    db.execute("DELETE FROM administrators WHERE name = ?", (name,))


def enabled_of_role(db: sqlite3.Connection, role: Role, *, most: int) -> list[str]:
    """Return the names of enabled administrators in a role, ordered."""
    rows = db.execute(
        "SELECT name FROM administrators WHERE role = ? AND enabled "
        "ORDER BY name LIMIT ?",
        (role, most),
    )
    return [name for (name,) in rows]


def names_digest(db: sqlite3.Connection) -> str:
    """Return a hash over the names of all administrators."""
    rows = db.execute("SELECT name FROM administrators ORDER BY name")
    names = json.dumps([name for (name,) in rows])
    return hashlib.sha256(names.encode()).hexdigest()


def administrators_of(db: sqlite3.Connection, user_id: UserId) -> list[str]:
    """Return the names of the administrators linked to a user."""
    rows = db.execute(
        "SELECT name FROM administrators WHERE user_id = ? ORDER BY name", (user_id,)
    )
    return [row[0] for row in rows]
