# SPDX-License-Identifier: Apache-2.0
"""The hash of the state: the same for the same state, on any machine."""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.tables import formats
from tests.databases import open_database
from tests.statemachine.world import World


def test_the_digest_never_changes_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Tables by name, rows by primary key, values with their types, in ASCII.

    Replicas may run different versions of Python, which do not agree on which
    characters are printable, so only ASCII is hashed.
    """
    db = open_database()
    db.executescript(
        "CREATE TABLE users (a TEXT, b INTEGER, c ANY, PRIMARY KEY (b, a)) STRICT;"
        "CREATE TABLE agents (a INTEGER PRIMARY KEY) STRICT;"
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY) STRICT;"
    )
    tables = {"agents": ("a",), "users": ("a", "b", "c")}
    monkeypatch.setattr(formats, "columns", lambda _: tables)
    db.executemany(
        "INSERT INTO users VALUES (?, ?, ?)",
        [("zo\u00eb", 2, 1), ("\U0001f511", 1, b"1"), ("z", 1, "1"), ("y", 3, None)],
    )
    rows = r"""table agents
table users
('z', 1, '1')
('\U0001f511', 1, b'1')
('zo\xeb', 2, 1)
('y', 3, None)
"""
    assert digest(db) == hashlib.sha256(rows.encode("ascii")).hexdigest()


def other(value: Any) -> Any:
    """Return another value of the same type."""
    match value:
        case int():
            return value + 7
        case str():
            return value + "x"
        case bytes():
            return value + b"x"
        case _:
            return 7


def last_rows(db: sqlite3.Connection) -> Iterator[tuple[str, str, list[Any]]]:
    """Return of each table its name, and a condition that only its last row meets."""
    for (table,) in db.execute(
        "SELECT name FROM sqlite_schema "
        "WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
        "AND name NOT LIKE 'request_counts%'"  # They are no state.
    ).fetchall():
        keys = [
            name
            for (name,) in db.execute(
                "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk",
                (table,),
            )
        ]
        order = ", ".join(f"{key} DESC" for key in keys)
        row = db.execute(
            f"SELECT {', '.join(keys)} FROM {table} ORDER BY {order}"  # noqa: S608
        ).fetchone()
        yield table, " AND ".join(f"{key} = ?" for key in keys), list(row)


def test_any_changed_cell_changes_the_digest() -> None:
    """Everything that replicas must agree on is hashed, to the last column."""
    world = World()
    for directive, arguments in (
        ("begin", {}),
        ("create-user", {"name": "alice"}),
        ("enroll", {"serial": "1001", "pin-rule": "none"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("save", {"serial": "1001", "draft": "d1"}),
        ("authenticate", {"user": "alice", "code": "WRONG"}),
        ("enroll", {"serial": "1002"}),
        ("assign", {"serial": "1002", "user": "alice"}),
        ("set-pin", {"serial": "1002", "pin": "1234"}),
        ("create-admin", {"name": "eve"}),
        ("sign-in", {"as": "eve", "password": "temporary", "session": "e0"}),
        (
            "change-password",
            {"name": "eve", "old": "temporary", "new": "hers", "session": "e0"},
        ),
        ("update-policy", {"codes_per_set_default": "5"}),
        ("update-agent", {"name": "vpn", "allow": "alice", "allow-group": "staff"}),
        ("update-user", {"name": "alice", "join": "staff"}),
        ("deny-certificate", {"fingerprint": "f1"}),
        # A challenge that was answered: of a token without a PIN.
        ("enroll", {"serial": "1002"}),
        ("assign", {"serial": "1002", "user": "alice"}),
        ("authenticate", {"user": "alice", "serial": "1002", "step": "1"}),
        ("continue", {"challenge": "", "new-pin": "4711"}),
        # Rows that outlast a token and its assignment.
        ("enroll", {"serial": "1003", "pin-rule": "none"}),
        ("assign", {"serial": "1003", "user": "alice"}),
        ("save", {"serial": "1003", "set": "B"}),
        ("delete-token", {"serial": "1003"}),
        ("unassign", {"serial": "1001"}),
        # A node that joined with a ticket.
        ("ticket", {"node": "n4", "certificate": "door"}),
        ("admit", {"certificate": "door"}),
        ("enroll", {"serial": "1004", "pin-rule": "none"}),
        ("assign", {"serial": "1004", "user": "alice"}),
        # A local reset that is announced.
        ("raise-feature-level", {"level": "2"}),
        ("enroll", {"serial": "1005"}),
        # A user whose creator is known, and a deleted user.
        ("create-user", {"name": "dave"}),
        ("create-user", {"name": "carol"}),
        ("assign", {"serial": "1005", "user": "carol"}),
        ("unassign", {"serial": "1005"}),
        ("delete-user", {"name": "carol"}),
        ("reset-admin", {"name": "eve", "password": "lent"}),
        # A RADIUS client and its secret.
        (
            "register-radius",
            {"name": "gate", "networks": "192.0.2.0/24", "filter-id": "x"},
        ),
        ("create-key", {"name": "vpn", "id": "k1", "key": "first"}),
        # A set that counts towards the allowance of its issuer.
        ("save", {"serial": "1004", "set": "C"}),
        ("sign-in", {"as": "eve", "password": "wrong", "device": "laptop"}),
        ("delete-user", {"name": "nobody"}),
        ("start-login", {"login": "1"}),
    ):
        world.handle(directive, dict(arguments))
    db = world.db
    db.execute("INSERT INTO consumed_challenges VALUES ('c1', 7)")
    db.execute(
        "INSERT INTO moves VALUES (1, 'm1', 'arriving', 1, 2, 'c1', 'c2', 1, x'07', x'07', "
        "x'07', 1, x'07', 1, x'07', 0, 1, 7, 7, 'a', 0, 0)"
    )
    db.execute("INSERT INTO move_administrators VALUES ('m1', 'root')")
    db.execute("INSERT INTO moved_slots VALUES (1, 1)")
    db.execute("INSERT INTO audit_segments VALUES (1, 1, 1, 7, 7, x'07', x'07')")
    db.execute("INSERT INTO former_codes VALUES (1, 'u-alice', '1003', 1, 7, x'07')")
    db.execute(
        "INSERT INTO channels VALUES ('siem', 'SIEM', 'webhook', 1, 'https://s.example/', "
        "'tokens', 0, 'PEM', x'07', 1, 7, 1, 1, 7, 7, 7, 's', 'l', 'c')"
    )
    db.execute(
        "INSERT INTO notices VALUES (1, 'siem', 'c-7-1', 2, 'tokens', 7, 7, 'a', 'n1', "
        "'CreateUser', 'alice', 'applied', 'r', 'd', 7, 0, 'c', 'k', 'r', 'p', 'l', 0, "
        "'u', 0)"
    )
    db.execute("INSERT INTO notice_senders VALUES ('siem', 1, 'a', 1)")
    db.execute("INSERT INTO secrets_known_elsewhere VALUES ('1005', 'seed')")
    db.execute("INSERT INTO sets_issued_elsewhere VALUES ('C')")
    db.execute("INSERT INTO former_addresses VALUES ('u-alice', 0, 'a@example.com', 7)")
    db.execute(
        "INSERT INTO sealed_codes VALUES ('C', 'o', x'07', 'a@example.com', 7, 'p', 0)"
    )
    db.execute("INSERT INTO set_ends VALUES ('C', 7, 7)")
    db.execute(
        "INSERT INTO alarms VALUES ('u-alice', 'c-1-1', 'codes_issued', 5, 6, 7)"
    )
    db.execute("INSERT INTO personal_counts VALUES ('u-alice', 'codes_issued', 1, 7)")
    db.execute("INSERT INTO authority_keys VALUES ('n1', 'agents', 'aa', 1)")
    db.execute(
        "INSERT INTO due_authorities VALUES ('agents', 'aa', 'n1', 1, 'policy', 0)"
    )
    db.execute(
        "INSERT INTO authority_successors "
        "VALUES ('agents', 'aa', 'n2', 'bb', x'01', x'02', 1, 0)"
    )
    db.execute("INSERT INTO segment_holders VALUES ('n1', 7, '[1,2]', 7)")
    db.execute("INSERT INTO lost_segments VALUES (1, 7, 'r')")
    db.execute("INSERT INTO archived_segments VALUES (1, 'n1', 7)")
    db.execute("INSERT INTO archive_places VALUES ('n1', '/archive', 7, 'aa', 3)")
    db.execute("INSERT INTO removed_segments VALUES (1, 7, 'n1')")
    db.execute("INSERT INTO member_keys VALUES ('n1', 'aa', 'bb', 1)")
    db.execute("INSERT INTO passkeys VALUES (x'01', 'root', 'Laptop', x'02', 1, 2, 3)")
    db.execute("INSERT INTO skipped_entries VALUES (7, 1, 'digest', 'cluster', 1)")
    db.execute("INSERT INTO skip_statements VALUES (7, 'n1', 'ada', 'bug', 1, '{}')")
    db.execute("PRAGMA foreign_keys = OFF")
    digests, cells = {digest(db)}, 0
    for table, condition, key in last_rows(db):
        # Without generated columns, which follow from the others.
        columns = [
            name
            for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))
        ]
        row = db.execute(
            f"SELECT {', '.join(columns)} FROM {table} WHERE {condition}",  # noqa: S608
            key,
        )
        for column, value in zip(columns, row.fetchone(), strict=True):
            cells += 1
            db.execute("BEGIN")
            db.execute(
                f"UPDATE {table} SET {column} = ? WHERE {condition}",  # noqa: S608
                [other(value), *key],
            )
            digests.add(digest(db))
            db.execute("ROLLBACK")
    assert cells > 80
    assert len(digests) == 1 + cells


def test_the_applied_index_is_not_hashed() -> None:
    """A node that has applied an entry of the engine has the same state."""
    world = World()
    world.begin()
    before = digest(world.db)
    world.db.execute("UPDATE meta SET value = 99 WHERE name = 'applied_index'")
    assert digest(world.db) == before
