# SPDX-License-Identifier: Apache-2.0
"""No key of the ring is dropped while anything in the state is sealed with it."""

from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.commands.keys import RetireKey
from sparecode_node.statemachine.handlers import keys
from sparecode_node.statemachine.results import Applied, Result
from tests.statemachine.world import ROOT, World

OF_NOTHING_SEALED = {"ring_keys", "former_tokens", "moves"}
"""
The keys themselves, marks of deleted seals, which are never opened, and moves, whose
secrets follow from a key: see `test_a_key_stays_while_a_move_needs_it`.
"""

SEALED = [
    ("tokens", "key_id"),
    ("tokens", "pin_key_id"),
    ("code_sets", "key_id"),
    ("deleted_sets", "key_id"),
    ("administrators", "key_id"),
    ("administrators", "factor_key_id"),
    ("users", "tag_key_id"),
    ("administrator_resets", "key_id"),
    ("seed_fingerprints", "key_id"),
    ("former_codes", "key_id"),
    ("radius_secrets", "key_id"),
    ("channels", "key_id"),
]


@pytest.fixture
def world() -> World:
    """Return a cluster with one of everything sealed, and with a second key."""
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
        ("raise-feature-level", {"level": "2"}),
        ("enroll", {"serial": "1003"}),
        ("enroll", {"serial": "1004", "pin-rule": "none"}),
        ("assign", {"serial": "1004", "user": "alice"}),
        ("save", {"serial": "1004", "set": "D", "count": "1"}),
        ("delete-token", {"serial": "1004"}),
        (
            "replace-seal",
            {"kind": "former_codes", "row": "D", "old": "code D D/1", "new": "tag"},
        ),
        ("register-radius", {"name": "gate", "networks": "192.0.2.0/24"}),
        ("save-channel", {"name": "siem", "tells": "upkeep", "secret": "whsec"}),
        ("reset-admin", {"name": ROOT}),
        ("activate-key", {"fingerprint": "two"}),
        ("wait", {"16m": "yes"}),
    )
    return world


def columns(world: World) -> list[tuple[str, str]]:
    """Return every column that names the key of a seal."""
    tables = world.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return [
        (table, column)
        for (table,) in tables.fetchall()
        if table not in OF_NOTHING_SEALED
        for _, column, *_ in world.db.execute(f"PRAGMA table_info({table})")
        if column.endswith("key_id")
    ]


def seal_again(world: World, table: str, column: str) -> None:
    """Seal the values there with the second key."""
    world.db.execute(f"UPDATE {table} SET {column} = 2")  # noqa: S608 - our own.


def retired(world: World) -> Result:
    return world.apply(world.call("retire-key", {"key": "1"}))


def test_every_column_with_a_key_is_checked(world: World) -> None:
    """(P5) A new kind of seal must be added to this list."""
    assert sorted(columns(world)) == sorted(SEALED)


@pytest.mark.parametrize(("table", "column"), SEALED)
def test_a_key_stays_while_one_thing_alone_is_sealed_with_it(
    world: World, table: str, column: str
) -> None:
    """(P5, T3) Everything else is sealed again: without the key, that one is lost."""
    for other, key_column in SEALED:
        if (other, key_column) != (table, column):
            seal_again(world, other, key_column)
    used = f"SELECT count(*) FROM {table} WHERE {column} = 1"  # noqa: S608 - our own.
    assert world.db.execute(used).fetchone()[0]
    refused = retired(world)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.KEY_IN_USE
    seal_again(world, table, column)
    assert isinstance(retired(world), Applied)


def test_a_key_stays_while_a_pending_change_is_sealed_with_it(world: World) -> None:
    """(P5, P3) A password that waits for approval is sealed like any other."""
    world.play(
        ("plant-administrator", {"name": "second", "role": "super_admin"}),
    )
    stay_signed_in(world)
    world.play(("create-admin", {"name": "third", "key": "1"}))
    for table, column in SEALED:
        seal_again(world, table, column)
    refused = retired(world)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.KEY_IN_USE
    world.handle("reject", {"number": "1"})
    assert isinstance(retired(world), Applied)


def stay_signed_in(world: World) -> None:
    world.db.execute(
        "UPDATE sessions SET proved_at_ms = :now, used_at_ms = :now",
        {"now": world.now_ms},
    )


def all_sealed_again(world: World) -> None:
    for table, column in SEALED:
        seal_again(world, table, column)


def test_a_key_stays_if_a_value_with_it_came_after_the_look(world: World) -> None:
    """(P5) The primary looks at every value before, and apply at none."""
    stay_signed_in(world)
    all_sealed_again(world)
    looked = world.call("retire-key", {"key": "1"})
    world.play(("enroll", {"serial": "1009"}))
    refused = world.apply(looked)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.KEY_IN_USE
    assert isinstance(retired(world), Rejected), "the value is still there"
    all_sealed_again(world)
    assert isinstance(retired(world), Applied)


def test_a_refused_value_keeps_no_key(world: World) -> None:
    """Its write is undone with it."""
    stay_signed_in(world)
    all_sealed_again(world)
    looked = world.call("retire-key", {"key": "1"})
    of_another = {"serial": "1009", "seed": "1003"}
    refused = world.apply(world.call("enroll", of_another))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.SEED_EXISTS
    assert isinstance(world.apply(looked), Applied)


def test_a_key_stays_without_a_look(world: World) -> None:
    """(P5) The primary has found a value, or has known a lower feature level."""
    all_sealed_again(world)
    looked = world.call("retire-key", {"key": "1"})
    assert isinstance(looked.command, RetireKey)
    blind = replace(looked, command=replace(looked.command, unused_at=None))
    assert isinstance(world.apply(blind), Rejected)
    assert isinstance(retired(world), Applied)


def test_every_handler_records_values_with_an_aging_key() -> None:
    """(P5) `keys.takes` records them; what asks `uses` alone brings no value in."""
    folder = Path(keys.__file__).parent
    asking = {
        path.stem for path in folder.glob("*.py") if ".keys.uses(" in path.read_text()
    }
    assert asking == {"keys", "moves"}  # A move opens with its key; it brings none.


def test_a_key_stays_while_a_move_needs_it(world: World) -> None:
    """Without it there is no receipt, and the source serves its users never again."""
    for table, column in SEALED:
        seal_again(world, table, column)
    world.db.execute(
        "INSERT INTO moves VALUES (1, 'm1', 'arriving', 1, 2, 'c2', 'c1', 1, x'07', "
        "x'07', x'07', 1, x'07', 0, x'07', 0, 0, 7, NULL, '', 0, 0)"
    )
    refused = retired(world)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.KEY_IN_USE
    world.db.execute("UPDATE moves SET ended_at_ms = ?", (world.machine.now_ms,))
    assert isinstance(retired(world), Rejected)
    world.play(("wait", {"25h": "yes"}))
    assert isinstance(retired(world), Applied)
