# SPDX-License-Identifier: Apache-2.0
"""A table format after the newest, for tests: a release may have the newest of all."""

import pytest

from sparecode_node.statemachine.tables import schema

FORMAT = schema.VERSION + 1
COLUMN = "extra INTEGER NOT NULL DEFAULT 7"
"""What the tables of the next format have more, for each agent."""


def begin_next_format(patch: pytest.MonkeyPatch) -> None:
    """Let this software have tables of the next format, and the migration to it."""
    tables = schema._TABLES
    end = "\n) STRICT, WITHOUT ROWID;\n"
    at = tables.index(end, tables.index("CREATE TABLE agents "))
    patch.setattr(schema, "_TABLES", f"{tables[:at]},\n    {COLUMN}{tables[at:]}")
    script = f"ALTER TABLE agents ADD COLUMN {COLUMN};"
    patch.setitem(schema._MIGRATIONS, schema.VERSION, script)
    patch.setattr(schema, "VERSION", FORMAT)
