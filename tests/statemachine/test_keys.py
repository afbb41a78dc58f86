# SPDX-License-Identifier: Apache-2.0
"""No key of the ring goes while anything in the state is sealed with it."""

import pytest

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.results import Applied, Result
from tests.statemachine.world import World

OF_NOTHING_SEALED = {"ring_keys", "former_tokens"}
"""The keys themselves; and marks of seals that are gone, which nobody opens."""

SEALED = [
    ("tokens", "key_id"),
    ("tokens", "pin_key_id"),
    ("code_sets", "key_id"),
    ("deleted_sets", "key_id"),
    ("administrators", "key_id"),
    ("administrators", "factor_key_id"),
    ("users", "tag_key_id"),
]


@pytest.fixture
def world() -> World:
    """Return a cluster that has something of everything, and a second key by now."""
    world = World()
    world.begin()
    world.play(
        ("create-user", {"name": "alice"}),
        ("enroll", {"serial": "1001"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("set-pin", {"serial": "1001", "pin": "1234"}),
        ("save", {"serial": "1001", "set": "B"}),
        ("enroll", {"serial": "1002"}),
        ("assign", {"serial": "1002", "user": "alice"}),
        ("set-pin", {"serial": "1002", "pin": "1234"}),
        ("save", {"serial": "1002", "set": "C"}),
        ("delete-token", {"serial": "1002"}),
        ("set-second-factor", {"code": "0"}),
        ("activate-key", {"fingerprint": "two"}),
        ("wait", {"16m": "yes"}),
    )
    return world


def columns(world: World) -> list[tuple[str, str]]:
    """Return every column that says by which key something is sealed."""
    tables = world.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return [
        (table, column)
        for (table,) in tables.fetchall()
        if table not in OF_NOTHING_SEALED
        for _, column, *_ in world.db.execute(f"PRAGMA table_info({table})")
        if column.endswith("key_id")
    ]


def seal_anew(world: World, table: str, column: str) -> None:
    """Have what is sealed there be of the second key."""
    world.db.execute(f"UPDATE {table} SET {column} = 2")  # noqa: S608 - our own.


def retired(world: World) -> Result:
    return world.apply(world.call("retire-key", {"key": "1"}))


def test_every_column_with_a_key_is_looked_at(world: World) -> None:
    """(P5) Whatever comes to be sealed later is in this list, or nobody looks at it."""
    assert sorted(columns(world)) == sorted(SEALED)


@pytest.mark.parametrize(("table", "column"), SEALED)
def test_a_key_stays_while_one_thing_alone_is_sealed_with_it(
    world: World, table: str, column: str
) -> None:
    """(P5, T3) Everything else is sealed anew: what is left would open no more."""
    for other, key_column in SEALED:
        if (other, key_column) != (table, column):
            seal_anew(world, other, key_column)
    used = f"SELECT count(*) FROM {table} WHERE {column} = 1"  # noqa: S608 - our own.
    assert world.db.execute(used).fetchone()[0]
    refused = retired(world)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.KEY_IN_USE
    seal_anew(world, table, column)
    assert isinstance(retired(world), Applied)


def test_a_key_stays_while_a_change_that_waits_is_sealed_with_it(world: World) -> None:
    """(P5, P3) A password that nobody has approved yet is sealed like any other."""
    world.play(
        ("plant-administrator", {"name": "second", "role": "super_admin"}),
        ("create-admin", {"name": "third", "key": "1"}),
    )
    for table, column in SEALED:
        seal_anew(world, table, column)
    refused = retired(world)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.KEY_IN_USE
    world.handle("reject", {"number": "1"})
    assert isinstance(retired(world), Applied)
