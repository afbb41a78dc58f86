# SPDX-License-Identifier: Apache-2.0
"""Rows of users and lockouts."""

import sqlite3

from sparecode_node.domain.ids import NameKey, UserId
from sparecode_node.domain.lockout import FREE, Factor, Lockout
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.users import User
from sparecode_node.statemachine.tables.rows import Row, upsert

USER_COLUMNS = (
    "user_id, username, name_key, name_tag, display_name, email, enabled, "
    "auth_version, pin_salt, code_salt, tag_key_id, language, manager_email, "
    "email_since_ms, manager_since_ms"
)


def user_of(row: Row) -> User:
    """Return the user of a row with `USER_COLUMNS`."""
    return User(
        user_id=row[0],
        username=row[1],
        name_key=row[2],
        name_tag=row[3],
        display_name=row[4],
        email=row[5],
        enabled=bool(row[6]),
        auth_version=row[7],
        pin_salt=row[8],
        code_salt=row[9],
        tag_key_id=row[10],
        language=row[11],
        manager_email=row[12],
        email_since_ms=row[13],
        manager_since_ms=row[14],
    )


def _find_user(db: sqlite3.Connection, where: str, value: object) -> User | None:
    row = db.execute(
        f"SELECT {USER_COLUMNS} FROM users WHERE {where} = ?", (value,)
    ).fetchone()
    return user_of(row) if row else None


def find_user(db: sqlite3.Connection, user_id: UserId) -> User | None:
    """Return the user with this id."""
    return _find_user(db, "user_id", user_id)


def find_user_by_name(db: sqlite3.Connection, name_key: NameKey) -> User | None:
    """Return the user with this folded name."""
    return _find_user(db, "name_key", name_key)


def find_user_by_tag(db: sqlite3.Connection, name_tag: bytes) -> User | None:
    """Return the user whose folded name has this keyed hash."""
    return _find_user(db, "name_tag", name_tag)


def save_user(db: sqlite3.Connection, user: User) -> None:
    """Save a user."""
    upsert(
        db,
        "users",
        ("user_id",),
        user_id=user.user_id,
        username=user.username,
        name_key=user.name_key,
        name_tag=user.name_tag,
        display_name=user.display_name,
        email=user.email,
        enabled=user.enabled,
        auth_version=user.auth_version,
        pin_salt=user.pin_salt,
        code_salt=user.code_salt,
        tag_key_id=user.tag_key_id,
        language=user.language,
        manager_email=user.manager_email,
        email_since_ms=user.email_since_ms,
        manager_since_ms=user.manager_since_ms,
        slot=slot_of(user.name_key),
    )


def delete_user(db: sqlite3.Connection, user_id: UserId) -> None:
    """Delete a user and their lockouts."""
    db.execute("DELETE FROM users WHERE user_id = ?", (user_id,))


def find_lockouts(db: sqlite3.Connection, user_id: UserId) -> dict[Factor, Lockout]:
    """Return the lockouts of a user that are not `FREE`."""
    rows = db.execute(
        "SELECT factor, failures, rung, blocked_until_ms, failed_at_ms, off "
        "FROM lockouts WHERE user_id = ?",
        (user_id,),
    )
    return {Factor(row[0]): lockout_of(row[1:]) for row in rows}


def lockout_of(row: Row) -> Lockout:
    """Return the lockout of the columns from `failures` to `off`."""
    return Lockout(
        failures=row[0],
        rung=row[1],
        blocked_until_ms=row[2],
        failed_at_ms=row[3],
        off=bool(row[4]),
    )


def save_lockout(
    db: sqlite3.Connection, user_id: UserId, factor: Factor, lockout: Lockout
) -> None:
    """Save a lockout; a free factor has no row."""
    if lockout == FREE:
        db.execute(
            "DELETE FROM lockouts WHERE user_id = ? AND factor = ?", (user_id, factor)
        )
        return
    upsert(
        db,
        "lockouts",
        ("user_id", "factor"),
        user_id=user_id,
        factor=factor,
        failures=lockout.failures,
        rung=lockout.rung,
        blocked_until_ms=lockout.blocked_until_ms,
        failed_at_ms=lockout.failed_at_ms,
        off=lockout.off,
    )
