# SPDX-License-Identifier: Apache-2.0
"""The hash of the whole state, by which replicas are compared."""

import hashlib
import sqlite3

NOT_HASHED = "applied_index"
"""The row of `meta` that moves without a change of the state."""


def digest(db: sqlite3.Connection) -> str:
    """
    Return SHA-256, in hex, over every row of every table.

    Tables by name, rows by primary key, values with their types. Call it in a
    read transaction where others may write. Reads everything.
    """
    total = hashlib.sha256()
    tables = db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' "
        "AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        total.update(f"table {table}\n".encode())
        columns = db.execute(
            "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)
        )
        order = ", ".join(name for (name,) in columns)
        for row in db.execute(f"SELECT * FROM {table} ORDER BY {order}"):
            if table == "meta" and row[0] == NOT_HASHED:
                continue
            # Exact and unambiguous for integers, strings, bytes and None. Not `repr`:
            # which characters that escapes depends on the version of Python.
            total.update(ascii(row).encode())
            total.update(b"\n")
    return total.hexdigest()
