# SPDX-License-Identifier: Apache-2.0
"""Rows of sets and emergency codes."""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.emergency_access import (
    CodeState,
    EmergencyCode,
    EmergencyCodeSet,
    Use,
)
from sparecode_node.domain.ids import SetId, TokenSerial
from sparecode_node.statemachine.tables import sealed_codes, set_ends

_STATES = {state.value: state for state in CodeState}


def find_sets(db: sqlite3.Connection, serial: TokenSerial) -> list[EmergencyCodeSet]:
    """Return the sets of a token with their codes, newest first."""
    return _find_sets(db, "serial", serial)


def find_set(db: sqlite3.Connection, set_id: SetId) -> EmergencyCodeSet | None:
    """Return a set with its codes."""
    return next(iter(_find_sets(db, "set_id", set_id)), None)


def _find_sets(
    db: sqlite3.Connection, column: str, value: str
) -> list[EmergencyCodeSet]:
    rows = db.execute(
        "SELECT set_id, serial, key_id, code_length, issuer, node_id, issued_at_ms, "
        f"issued_index, ends_at_ms, voided, fixed FROM code_sets WHERE {column} = ? "
        "ORDER BY number DESC",
        (value,),
    ).fetchall()
    return [
        EmergencyCodeSet(
            set_id=row[0],
            serial=row[1],
            key_id=row[2],
            code_length=row[3],
            issuer=row[4],
            node_id=row[5],
            issued_at_ms=row[6],
            issued_index=row[7],
            ends_at_ms=row[8],
            voided=bool(row[9]),
            fixed=bool(row[10]),
            codes=_find_codes(db, row[0]),
        )
        for row in rows
    ]


def _find_codes(db: sqlite3.Connection, set_id: str) -> tuple[EmergencyCode, ...]:
    rows = db.execute(
        "SELECT ordinal, verifier, state, used_at_ms, used_agent, used_node_id, "
        "used_index FROM codes WHERE set_id = ? ORDER BY ordinal",
        (set_id,),
    )
    return tuple(
        EmergencyCode(
            ordinal=row[0],
            verifier=row[1],
            state=_STATES[row[2]],
            use=None
            if row[3] is None
            else Use(at_ms=row[3], agent=row[4], node_id=row[5], index=row[6]),
        )
        for row in rows
    )


def add_set(db: sqlite3.Connection, new: EmergencyCodeSet) -> None:
    """Add a new set with its codes."""
    db.execute(
        "INSERT INTO code_sets (set_id, serial, key_id, code_length, issuer, node_id, "
        "issued_at_ms, issued_index, ends_at_ms, voided, fixed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.set_id,
            new.serial,
            new.key_id,
            new.code_length,
            new.issuer,
            new.node_id,
            new.issued_at_ms,
            new.issued_index,
            new.ends_at_ms,
            new.voided,
            new.fixed,
        ),
    )
    db.executemany(
        "INSERT INTO codes (set_id, ordinal, verifier, state) VALUES (?, ?, ?, ?)",
        [(new.set_id, code.ordinal, code.verifier, code.state) for code in new.codes],
    )


def add_codes(
    db: sqlite3.Connection, set_id: SetId, codes: Sequence[EmergencyCode]
) -> None:
    """Add codes in any state to a set that was moved from another cluster."""
    db.executemany(
        "INSERT INTO codes (set_id, ordinal, verifier, state, used_at_ms, used_agent, "
        "used_node_id, used_index) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                set_id,
                code.ordinal,
                code.verifier,
                code.state,
                code.use.at_ms if code.use else None,
                code.use.agent if code.use else None,
                code.use.node_id if code.use else None,
                code.use.index if code.use else None,
            )
            for code in codes
        ],
    )


def update_set(
    db: sqlite3.Connection, before: EmergencyCodeSet, after: EmergencyCodeSet
) -> None:
    """Save the changes of a set: the states of its codes, and whether it is void."""
    if before.voided != after.voided:
        db.execute(
            "UPDATE code_sets SET voided = ? WHERE set_id = ?",
            (after.voided, after.set_id),
        )
        sealed_codes.delete(db, after.set_id)
    if not after.unused and before.unused:
        set_ends.delete(db, after.set_id)
    for old, code in zip(before.codes, after.codes, strict=True):
        if code == old:
            continue
        use = code.use
        db.execute(
            "UPDATE codes SET state = ?, used_at_ms = ?, used_agent = ?, "
            "used_node_id = ?, used_index = ? WHERE set_id = ? AND ordinal = ?",
            (
                code.state,
                use.at_ms if use else None,
                use.agent if use else None,
                use.node_id if use else None,
                use.index if use else None,
                after.set_id,
                code.ordinal,
            ),
        )


def delete_set(db: sqlite3.Connection, set_id: str) -> None:
    """Delete a set and its codes."""
    db.execute("DELETE FROM code_sets WHERE set_id = ?", (set_id,))


def has_set(db: sqlite3.Connection, set_id: str) -> bool:
    """Return whether a set with this id exists."""
    rows = db.execute("SELECT 1 FROM code_sets WHERE set_id = ?", (set_id,))
    return rows.fetchone() is not None
