# SPDX-License-Identifier: Apache-2.0
"""Bytes per row are computed from the tables of the state."""

import sqlite3

import pytest

from sparecode_node.statemachine.machine import StateMachine
from tests.bench.storage import bytes_each
from tests.databases import open_database

MANY = 10_000
FILLED = """
DROP TABLE requests;
CREATE TABLE requests (what);
CREATE INDEX of_requests ON requests (what);
DROP TABLE audit_events;
CREATE TABLE audit_events (action, what);
DROP TABLE users;
CREATE TABLE users (what);
"""


def state() -> sqlite3.Connection:
    db = open_database()
    StateMachine(db)
    return db


def test_bytes_of_each_are_those_of_its_table_and_indexes() -> None:
    db = state()
    db.executescript(FILLED)
    for into, size in (
        ("requests", 200),
        ("users", 900),
        ("audit_events (what)", 100),  # Other events are shorter.
    ):
        rows = [(size,)] * MANY
        db.executemany(f"INSERT INTO {into} VALUES (zeroblob(?))", rows)  # noqa: S608
    db.execute("UPDATE audit_events SET action = 'CreateUser'")
    rows = [(500,)] * MANY
    db.executemany(
        "INSERT INTO audit_events VALUES ('Authenticate', zeroblob(?))", rows
    )
    each = bytes_each(db, MANY)
    # Pages are not quite full, and rows have a header.
    assert 2 * 200 <= each["a_remembered_request"] < 2 * 260
    assert 500 <= each["an_authentication_in_the_audit_log"] < 600
    assert 900 <= each["a_user_with_token_and_codes"] < 1100


def test_an_empty_state_is_refused() -> None:
    with pytest.raises(RuntimeError, match="nothing to divide by"):
        bytes_each(state(), MANY)
