# SPDX-License-Identifier: Apache-2.0
"""The hash of the whole state, for comparing replicas."""

import hashlib
import sqlite3

from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.tables import formats

NOT_HASHED = "applied_index"
"""The row of `meta` that changes even if the state does not."""

UNSEALED = (
    "WHERE sequence > (SELECT coalesce(max(last_sequence), 0) FROM audit_segments)"
)
"""The audit events that belong to the state."""


def digest(db: sqlite3.Connection) -> str:
    """
    Return SHA-256, in hex, over every row of every table.

    Tables are ordered by name, rows by primary key; values are hashed with their types.
    What the cluster's feature level does not have yet is left out, so that members of
    both releases have the same digest during an upgrade. Sealed audit events are left
    out, too: their segment stands for them, and nodes discard them at other moments.
    This reads the whole database. Call it in a read transaction if others may write.
    """
    total = hashlib.sha256()
    tables = formats.columns(feature_level.read(db))
    for table, columns in tables.items():
        total.update(f"table {table}\n".encode())
        keys = db.execute(
            "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)
        )
        order = ", ".join(name for (name,) in keys)
        fields = ", ".join(columns)
        unsealed = table == "audit_events" and "audit_segments" in tables
        condition = UNSEALED if unsealed else ""
        for row in db.execute(
            f"SELECT {fields} FROM {table} {condition} ORDER BY {order}"
        ):
            if table == "meta" and row[0] == NOT_HASHED:
                continue
            # `ascii` is exact and unambiguous for integers, strings, bytes and None.
            # Which characters `repr` escapes depends on the version of Python.
            total.update(ascii(row).encode())
            total.update(b"\n")
    return total.hexdigest()
