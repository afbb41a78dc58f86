# SPDX-License-Identifier: Apache-2.0
"""
The table of request ids costs as much with millions of rows as with thousands (Q3).

Steps of SQLite's virtual machine are counted: a time would depend on the machine. A look
into an index is one step, however large it is.
"""

import pytest

from sparecode_node.domain.policy import MINUTE_MS, Policy
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.requests import PURGED_PER_ENTRY_MAX
from sparecode_node.statemachine.tables import request_counts
from tests.statemachine.steps import steps
from tests.statemachine.world import START_MS, World

FEW, MANY = 2_000, 100_000
FILL = """
WITH RECURSIVE numbers (n) AS (
    SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows
)
INSERT INTO requests (caller, method, request_id, tag, at_ms, result)
SELECT 'agent:' || (n % 7), 'm', printf('%012d', n * 7919 % :rows), 0, :begin + n / 100, '{}'
FROM numbers
"""
"""Ids in another order than times, from several callers."""


def filled(rows: int) -> World:
    """Return a cluster that remembers this number of requests of one minute."""
    world = World()
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    world.db.execute("DELETE FROM requests")
    world.db.execute(
        "UPDATE policy SET value = json_set(value, '$.requests_max', 5000000)"
    )
    world.db.execute(FILL, {"rows": rows, "begin": START_MS})
    request_counts.drop(world.db)
    world.machine = StateMachine(world.db)
    return world


def left(world: World) -> int:
    rows: int = world.db.execute("SELECT count(*) FROM requests").fetchone()[0]
    return rows


def costs(rows: int) -> dict[str, int]:
    """Return the steps of entries on a table of this size."""
    world = filled(rows)
    costs = {}

    def measure(name: str, verb: str, arguments: dict[str, str]) -> None:
        costs[name] = steps(world.db, lambda: world.handle(verb, arguments))

    measure("a new id", "create-user", {"name": "user-1"})
    assert left(world) == rows + 1
    world.now_ms += Policy().request_retention_ms + MINUTE_MS
    measure("a new id while others are due", "create-user", {"name": "user-2"})
    assert left(world) == rows + 2 - PURGED_PER_ENTRY_MAX
    return costs


def test_an_entry_costs_the_same_with_any_number_of_rows() -> None:
    few, many = costs(FEW), costs(MANY)
    assert many == few
    assert few["a new id while others are due"] > PURGED_PER_ENTRY_MAX


@pytest.mark.parametrize("index", ["requests_by_time"])
def test_without_its_index_an_entry_would_read_the_table(index: str) -> None:
    """The count above sees what it should see."""
    few, many = (cost_without(index, rows) for rows in (FEW, MANY))
    assert many > 10 * few


def cost_without(index: str, rows: int) -> int:
    """Return the steps of an entry while rows are due and the table lacks an index."""
    world = filled(rows)
    world.db.execute(f"DROP INDEX {index}")
    world.now_ms += Policy().request_retention_ms + MINUTE_MS
    return steps(world.db, lambda: world.handle("create-user", {"name": "user-1"}))
