# SPDX-License-Identifier: Apache-2.0
"""Rows of tokens."""

import sqlite3

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName, parameters_of
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine.tables.rows import Row, upsert

TOKEN_COLUMNS = (
    "serial, algorithm, hash_name, digits, period_s, sealed_seed, key_id, pin_rule, "
    "expires_at_ms, enabled, user_id, pin_verifier, pin_key_id, spent, drift, lost, "
    "recovery, sealed_pin, out_of_step, pin_lettered, maybe_spent"
)


def token_of(row: Row) -> Token:
    """Return the token of a row with `TOKEN_COLUMNS`."""
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
        maybe_spent=row[20],
    )


def find_token(db: sqlite3.Connection, serial: TokenSerial) -> Token | None:
    """Return the token with this serial."""
    row = db.execute(
        f"SELECT {TOKEN_COLUMNS} FROM tokens WHERE serial = ?", (serial,)
    ).fetchone()
    return token_of(row) if row else None


def find_tokens_of(db: sqlite3.Connection, user_id: UserId) -> list[Token]:
    """Return the tokens of a user, ordered by serial."""
    rows = db.execute(
        f"SELECT {TOKEN_COLUMNS} FROM tokens WHERE user_id = ? ORDER BY serial",
        (user_id,),
    )
    return [token_of(row) for row in rows]


def save_token(db: sqlite3.Connection, token: Token) -> None:
    """Save a token."""
    upsert(
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
        maybe_spent=token.maybe_spent,
    )


def delete_token(db: sqlite3.Connection, serial: TokenSerial) -> None:
    """Delete a token, its sets and their codes."""
    db.execute("DELETE FROM tokens WHERE serial = ?", (serial,))
