# SPDX-License-Identifier: Apache-2.0
"""A feature level after the newest, with tables of its own, for tests."""

import pytest

from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.tables import formats, schema

FORMAT = schema.VERSION + 1
COLUMN = "extra INTEGER NOT NULL DEFAULT 7"
"""What the tables of the next format have more, for each agent."""


def begin_next_format(patch: pytest.MonkeyPatch) -> None:
    """Let this software know the next level, with its tables and the migration."""
    tables = schema.TABLES
    end = "\n) STRICT, WITHOUT ROWID;\n"
    at = tables.index(end, tables.index("CREATE TABLE agents "))
    patch.setattr(schema, "TABLES", f"{tables[:at]},\n    {COLUMN}{tables[at:]}")
    migration = formats.Migration(
        forward=f"ALTER TABLE agents ADD COLUMN {COLUMN};",
        back="ALTER TABLE agents DROP COLUMN extra;",
    )
    patch.setitem(formats.MIGRATIONS, schema.VERSION, migration)  # type: ignore[arg-type]
    patch.setattr(schema, "VERSION", FORMAT)
    patch.setattr(feature_level, "NEWEST", FORMAT)
