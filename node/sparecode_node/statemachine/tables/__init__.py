# SPDX-License-Identifier: Apache-2.0
"""
Rows to domain objects and back: the only SQL that writes users and tokens.

Sets and codes have theirs in `code_tables`, agents in `agent_tables`.

`find_*` returns None for what is not there; `save_*` inserts or replaces.
"""

import sqlite3
from typing import Any

from sparecode_node.domain.administrators import Administrator, Role, SecondFactor
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    NO_KEY,
    AdministratorName,
    NameKey,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.lockout import FREE, Factor, Lockout
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName, parameters_of
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User

Row = tuple[Any, ...]
"""One row, as sqlite3 gives it: its columns are what the statement names."""


def _upsert(
    db: sqlite3.Connection, table: str, keys: tuple[str, ...], **columns: object
) -> None:
    """Insert a row, or replace the columns of the one with the same keys."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    # Table and column names are this module's own; values are always bound.
    db.execute(
        f"INSERT INTO {table} ({names}) VALUES ({marks}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}",
        tuple(columns.values()),
    )


# --- Users -------------------------------------------------------------------

USER_COLUMNS = (
    "user_id, username, name_key, name_tag, display_name, email, enabled, "
    "auth_version, pin_salt, code_salt, tag_key_id"
)


def user_of(row: Row) -> User:
    """Return the user of a row of `USER_COLUMNS`."""
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
    )


def _find_user(db: sqlite3.Connection, where: str, value: object) -> User | None:
    row = db.execute(
        f"SELECT {USER_COLUMNS} FROM users WHERE {where} = ?", (value,)
    ).fetchone()
    return user_of(row) if row else None


def find_user(db: sqlite3.Connection, user_id: UserId) -> User | None:
    """Return the user of that id."""
    return _find_user(db, "user_id", user_id)


def find_user_by_name(db: sqlite3.Connection, name_key: NameKey) -> User | None:
    """Return the user of that folded name."""
    return _find_user(db, "name_key", name_key)


def find_user_by_tag(db: sqlite3.Connection, name_tag: bytes) -> User | None:
    """Return the user whose folded name has that keyed hash."""
    return _find_user(db, "name_tag", name_tag)


def save_user(db: sqlite3.Connection, user: User) -> None:
    """Save a user."""
    _upsert(
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
    """Return the lockout of the columns failures to off."""
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
    _upsert(
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


# --- Tokens ------------------------------------------------------------------

TOKEN_COLUMNS = (
    "serial, algorithm, hash_name, digits, period_s, sealed_seed, key_id, pin_rule, "
    "expires_at_ms, enabled, user_id, pin_verifier, pin_key_id, spent, drift, lost, "
    "recovery, sealed_pin, out_of_step, pin_lettered"
)


def token_of(row: Row) -> Token:
    """Return the token of a row of `TOKEN_COLUMNS`."""
    return Token(
        serial=row[0],
        parameters=parameters_of(
            row[0],
            algorithm=Algorithm(row[1]),
            hash_name=HashName(row[2]),
            digits=row[3],
            period_s=row[4],
        ),
        sealed_seed=row[5],
        key_id=row[6],
        pin_rule=PinRule(row[7]),
        expires_at_ms=row[8],
        enabled=bool(row[9]),
        user_id=row[10],
        pin_verifier=row[11],
        pin_key_id=row[12],
        spent=row[13],
        drift=row[14],
        lost=bool(row[15]),
        recovery=RecoveryPolicy(row[16]),
        sealed_pin=row[17],
        out_of_step=bool(row[18]),
        pin_lettered=bool(row[19]),
    )


def find_token(db: sqlite3.Connection, serial: TokenSerial) -> Token | None:
    """Return the token of that serial."""
    row = db.execute(
        f"SELECT {TOKEN_COLUMNS} FROM tokens WHERE serial = ?", (serial,)
    ).fetchone()
    return token_of(row) if row else None


def find_tokens_of(db: sqlite3.Connection, user_id: UserId) -> list[Token]:
    """Return the tokens of a user, in the order of their serials."""
    rows = db.execute(
        f"SELECT {TOKEN_COLUMNS} FROM tokens WHERE user_id = ? ORDER BY serial",
        (user_id,),
    )
    return [token_of(row) for row in rows]


def save_token(db: sqlite3.Connection, token: Token) -> None:
    """Save a token."""
    _upsert(
        db,
        "tokens",
        ("serial",),
        serial=token.serial,
        algorithm=token.parameters.algorithm,
        hash_name=token.parameters.hash_name,
        digits=token.parameters.digits,
        period_s=token.parameters.period_s,
        sealed_seed=token.sealed_seed,
        key_id=token.key_id,
        pin_rule=token.pin_rule,
        expires_at_ms=token.expires_at_ms,
        enabled=token.enabled,
        user_id=token.user_id,
        pin_verifier=token.pin_verifier,
        pin_key_id=token.pin_key_id,
        spent=token.spent,
        drift=token.drift,
        lost=token.lost,
        recovery=token.recovery,
        sealed_pin=token.sealed_pin,
        out_of_step=token.out_of_step,
        pin_lettered=token.pin_lettered,
    )


def delete_token(db: sqlite3.Connection, serial: TokenSerial) -> None:
    """Delete a token, its sets and their codes."""
    db.execute("DELETE FROM tokens WHERE serial = ?", (serial,))


# --- Administrators ----------------------------------------------------------


def find_administrator(
    db: sqlite3.Connection, name: AdministratorName
) -> Administrator | None:
    """Return the administrator of that folded name."""
    row = db.execute(
        "SELECT name, role, password_salt, password_verifier, key_id, version, "
        "enabled, failures, blocked_until_ms, user_id, temporary, sealed_factor, "
        "factor_key_id, factor_spent FROM administrators WHERE name = ?",
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
    )


def save_administrator(db: sqlite3.Connection, administrator: Administrator) -> None:
    """Save an administrator."""
    factor = administrator.second_factor
    _upsert(
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
    )


def delete_administrator(db: sqlite3.Connection, name: AdministratorName) -> None:
    """Delete an administrator, who has no session any more."""
    db.execute("DELETE FROM administrators WHERE name = ?", (name,))


def administrators_of(db: sqlite3.Connection, user_id: UserId) -> list[str]:
    """Return the names of the administrators who are that user."""
    rows = db.execute(
        "SELECT name FROM administrators WHERE user_id = ? ORDER BY name", (user_id,)
    )
    return [row[0] for row in rows]
