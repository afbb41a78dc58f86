# SPDX-License-Identifier: Apache-2.0
"""
The table formats of the feature levels, and the way from each to the next and back.

A format has the number of its level; SQLite stores it as `user_version`. In a running
node the tables have the newest format that the software knows. What other members and
other releases read has the format of the cluster's level: snapshots and backups, the
digest, and the database of a stopped node. So until the level is raised, members of
both releases take each other's snapshots, and a node can go back to the older one.
"""

import contextlib
import functools
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from sparecode_node.domain.slots import slot_of
from sparecode_node.fault_points import Point, reach
from sparecode_node.statemachine.tables import schema
from sparecode_node.statemachine.tables.agent_keys import AGENT_KEY_TABLES
from sparecode_node.statemachine.tables.alarms import ALARM_TABLES
from sparecode_node.statemachine.tables.allowance_counts import ALLOWANCE_TABLES
from sparecode_node.statemachine.tables.archives import ARCHIVE_TABLES
from sparecode_node.statemachine.tables.authorities import AUTHORITY_TABLES
from sparecode_node.statemachine.tables.browser_logins import BROWSER_LOGIN_TABLES
from sparecode_node.statemachine.tables.known_secrets import SECRET_TABLES
from sparecode_node.statemachine.tables.membership import MEMBER_KEY_TABLES
from sparecode_node.statemachine.tables.moves import MOVE_TABLES, SLOT_INDEX
from sparecode_node.statemachine.tables.notices import NOTICE_TABLES
from sparecode_node.statemachine.tables.radius import RADIUS_TABLES
from sparecode_node.statemachine.tables.sealed_codes import SEALED_CODE_TABLES
from sparecode_node.statemachine.tables.segments import SEGMENT_TABLES
from sparecode_node.statemachine.tables.set_ends import SET_END_TABLES
from sparecode_node.statemachine.tables.skips import SKIP_TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """The scripts between one format and the next."""

    forward: str
    """
    Appends new columns last, as in `schema.TABLES`, and fills the rows with the value
    that a new replica writes: migrated and new replicas have equal digests.
    """
    back: str
    """
    Removes all of it. Nothing gets lost: what a level adds is not written before the
    level is raised.
    """


MIGRATIONS: Mapping[int, Migration] = {
    1: Migration(
        forward="""
ALTER TABLE administrators ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE approvals ADD COLUMN basis TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN owners TEXT NOT NULL DEFAULT '[]';
ALTER TABLE approvals ADD COLUMN used TEXT NOT NULL DEFAULT '[]';
ALTER TABLE approvals ADD COLUMN recipient TEXT NOT NULL DEFAULT '';
ALTER TABLE former_tokens ADD COLUMN fingerprint BLOB NOT NULL DEFAULT x'';
ALTER TABLE sessions ADD COLUMN proved_at_ms INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET proved_at_ms = opened_at_ms;
ALTER TABLE sessions ADD COLUMN node_id TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN door TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN factor TEXT NOT NULL DEFAULT '';
UPDATE sessions SET factor = 'code' WHERE administrator IN (
    SELECT name FROM administrators WHERE length(sealed_factor) > 0
);
ALTER TABLE join_tickets ADD COLUMN address TEXT;
ALTER TABLE join_tickets ADD COLUMN hosts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE join_tickets ADD COLUMN with_authority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN hosts TEXT;
ALTER TABLE tokens ADD COLUMN maybe_spent INTEGER NOT NULL DEFAULT -1;
ALTER TABLE users ADD COLUMN language TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN manager_email TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN email_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN manager_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;
UPDATE users SET slot = sparecode_slot(name_key);
ALTER TABLE nodes ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN in_reserve INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit_events ADD COLUMN
"""
        + schema.AUTHENTICATION_ID
        + ";"
        + schema.AUTHENTICATION_INDEX
        + AGENT_KEY_TABLES
        + ALARM_TABLES
        + ALLOWANCE_TABLES
        + ARCHIVE_TABLES
        + AUTHORITY_TABLES
        + BROWSER_LOGIN_TABLES
        + schema.FORMER_CODE_TABLES
        + schema.FORMER_INDEX
        + schema.FINGERPRINT_TABLES
        + MEMBER_KEY_TABLES
        + MOVE_TABLES
        + NOTICE_TABLES
        + schema.PASSKEY_TABLES
        + RADIUS_TABLES
        + schema.REFUSAL_TABLES
        + schema.RESET_TABLES
        + SEALED_CODE_TABLES
        + SECRET_TABLES
        + SEGMENT_TABLES
        + SET_END_TABLES
        + schema.SIGN_IN_TABLES
        + SKIP_TABLES
        + schema.TOKEN_INDEXES
        + SLOT_INDEX,
        back="""
ALTER TABLE administrators DROP COLUMN replaced;
ALTER TABLE approvals DROP COLUMN basis;
ALTER TABLE approvals DROP COLUMN owners;
ALTER TABLE approvals DROP COLUMN used;
ALTER TABLE approvals DROP COLUMN recipient;
DROP INDEX former_tokens_by_fingerprint;
ALTER TABLE former_tokens DROP COLUMN fingerprint;
ALTER TABLE sessions DROP COLUMN proved_at_ms;
ALTER TABLE sessions DROP COLUMN node_id;
ALTER TABLE sessions DROP COLUMN address;
ALTER TABLE sessions DROP COLUMN door;
ALTER TABLE sessions DROP COLUMN factor;
ALTER TABLE join_tickets DROP COLUMN address;
ALTER TABLE join_tickets DROP COLUMN hosts;
ALTER TABLE join_tickets DROP COLUMN with_authority;
ALTER TABLE nodes DROP COLUMN hosts;
ALTER TABLE nodes DROP COLUMN suspect;
ALTER TABLE tokens DROP COLUMN maybe_spent;
ALTER TABLE users DROP COLUMN language;
ALTER TABLE users DROP COLUMN manager_email;
ALTER TABLE users DROP COLUMN email_since_ms;
ALTER TABLE users DROP COLUMN manager_since_ms;
DROP INDEX users_by_slot;
ALTER TABLE users DROP COLUMN slot;
ALTER TABLE requests DROP COLUMN in_reserve;
DROP INDEX audit_events_by_authentication;
DROP INDEX audit_events_of_decisions;
ALTER TABLE audit_events DROP COLUMN authentication_id;
DROP TABLE agent_keys;
DROP TABLE alarms;
DROP TABLE former_codes;
DROP TABLE allowance_counts;
DROP TABLE authority_keys;
DROP TABLE due_authorities;
DROP TABLE authority_successors;
DROP TABLE member_keys;
DROP TABLE move_administrators;
DROP TABLE moved_slots;
DROP TABLE moves;
DROP TABLE seed_fingerprints;
DROP TABLE notice_senders;
DROP TABLE notices;
DROP TABLE personal_counts;
DROP TABLE former_addresses;
DROP TABLE channels;
DROP TABLE passkeys;
DROP TABLE browser_logins;
DROP TABLE radius_secrets;
DROP TABLE radius_networks;
DROP TABLE radius_clients;
DROP TABLE accept_attributes;
DROP TABLE equal_refusals;
DROP TABLE administrator_resets;
DROP TABLE audit_segments;
DROP TABLE segment_holders;
DROP TABLE lost_segments;
DROP TABLE archived_segments;
DROP TABLE archive_places;
DROP TABLE removed_segments;
DROP TABLE sealed_codes;
DROP TABLE set_ends;
DROP TABLE known_secrets;
DROP TABLE secrets_known_elsewhere;
DROP TABLE sets_issued_elsewhere;
DROP TABLE former_names;
DROP TABLE user_creators;
DROP TABLE sign_in_waits;
DROP TABLE skip_statements;
DROP TABLE skipped_entries;
DROP INDEX tokens_without_pin;
DROP INDEX tokens_lettered;
""",
    ),
}
"""
The way from each format to the next. A level without an entry changes no tables, but its
format has its number all the same.
"""


class SchemaError(Exception):
    """The database has a table format that this software does not read."""


def prepare(db: sqlite3.Connection) -> None:
    """
    Create the tables in an empty database, or give those of an older level the newest form.

    Raises `SchemaError` for a database of a newer format.
    """
    if _version(db):
        convert(db, schema.VERSION)
    else:
        _run(db, schema.TABLES, schema.VERSION)


def convert(db: sqlite3.Connection, level: int) -> None:
    """
    Give the tables the format of a feature level, an older or a newer one.

    Foreign keys should be off. Raises `SchemaError` for a format newer than this software.
    """
    version = _version(db)
    if not 0 < version <= schema.VERSION:
        raise SchemaError(
            f"the state database has format {version}, and this software reads formats "
            f"up to {schema.VERSION}: install the release that the other members run"
        )
    if version != level:
        reach(Point.FORMAT_CHANGE)
        _change(db, version, level)


def _change(db: sqlite3.Connection, version: int, level: int) -> None:
    steps = [MIGRATIONS[each].forward for each in _between(version, level)]
    steps += [MIGRATIONS[each].back for each in reversed(_between(level, version))]
    _run(db, "".join(steps), level)


def _between(older: int, newer: int) -> list[int]:
    return [each for each in range(older, newer) if each in MIGRATIONS]


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _run(db: sqlite3.Connection, script: str, version: int) -> None:
    db.create_function("sparecode_slot", 1, slot_of, deterministic=True)
    # `executescript` commits first, so the version is set in the same script: a
    # crash in between leaves either nothing or all of it.
    db.executescript(f"BEGIN IMMEDIATE;{script}PRAGMA user_version = {version};COMMIT;")


@functools.cache
def columns(level: int) -> Mapping[str, tuple[str, ...]]:
    """Return the columns of each table in the format of a level, in their order."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        prepare(db)
        _change(db, _version(db), level)  # Of no node: no fault point.
        tables: dict[str, tuple[str, ...]] = {}
        for table, column in db.execute(
            "SELECT tables.name, found.name FROM sqlite_schema AS tables, "
            "pragma_table_info(tables.name) AS found WHERE tables.type = 'table' "
            "AND tables.name NOT LIKE 'sqlite_%' ORDER BY tables.name, found.cid"
        ):
            tables[table] = (*tables.get(table, ()), column)
        return tables
