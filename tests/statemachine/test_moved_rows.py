# SPDX-License-Identifier: Apache-2.0
"""No row that another cluster sends stops a node, now or at a later command."""

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.handlers.moved_forms import NUMBERS
from tests.statemachine.moves import text, token_row, user_row
from tests.statemachine.world import ROOT, START_MS, World

OF_BOB = {"user_id": "u-bob"}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("user", user_row("bob")),
    (
        "lockout",
        {
            **OF_BOB,
            "factor": "token",
            "failures": 1,
            "rung": 1,
            "blocked_until_ms": 1,
            "failed_at_ms": 1,
            "off": 0,
        },
    ),
    ("group", {**OF_BOB, "group_key": "staff"}),
    (
        "address",
        {**OF_BOB, "of_manager": 0, "email": "b@example.org", "ends_at_ms": START_MS},
    ),
    (
        "alarm",
        {
            **OF_BOB,
            "notice_id": "n",
            "kind": "codes_issued",
            "told_at_ms": 1,
            "raised_at_ms": 2,
            "ends_at_ms": START_MS * 2,
        },
    ),
    ("creator", {**OF_BOB, "administrator": ROOT}),
    (
        "allowance",
        {
            "allowance": "unlock",
            "subject": "u-bob",
            "minute_ms": 60_000,
            "uses": 1,
            "ends_at_ms": START_MS * 2,
        },
    ),
    ("token", token_row("bob", "2001")),
    ("secret", {"serial": "2001", "administrator": "zoe", "secret": "seed"}),
    (
        "set",
        {
            **OF_BOB,
            "set_id": "B",
            "serial": "2001",
            "code_length": 8,
            "issuer": ROOT,
            "node_id": "n1",
            "issued_at_ms": 1,
            "issued_index": 1,
            "ends_at_ms": START_MS * 2,
            "voided": 0,
            "untold": 0,
            "fixed": 0,
            "issued_elsewhere": 0,
        },
    ),
    (
        "codes",
        {
            **OF_BOB,
            "set_id": "B",
            "codes": [[1, text("code"), "used", 1, "vpn", "n1", 7]],
        },
    ),
    ("former", {**OF_BOB, "serial": "1999", "tags": text("tags")}),
]
"""One row of each kind."""

NUMBERS_TRIED = (-1, 2**31, 2**62, 2**63 - 1, 2**63, str(2**63 - 1), 1.5, None, True)
TEXTS_TRIED = ("", "x" * 10_000, "a\0b", "a\nb", "\x85", "\ud800", 2**63 - 1, None)


def cells() -> list[tuple[int, tuple[Any, ...], Any]]:
    """Return each cell: the number of its row, the way to it, and its value."""
    found = []
    for number, (_, row) in enumerate(ROWS):
        for name, value in row.items():
            if isinstance(value, list):
                found += [
                    (number, (name, 0, place), inner)
                    for place, inner in enumerate(value[0])
                ]
            else:
                found.append((number, (name,), value))
    return found


def arrived(rows: list[Any], *, vouched: bool = False) -> tuple[World, Any]:
    """
    Return a cluster that was sent rows, and what it answers.

    *vouched*: for the administrators of both clusters (I10).
    """
    world = World()
    world.begin()
    prepared = {"move": "in"} | ({"same-administrators": "yes"} if vouched else {})
    for directive, arguments in (
        ("raise-feature-level", {"level": "2"}),
        ("prepare-move", prepared),
    ):
        assert not isinstance(world.apply(world.call(directive, arguments)), Rejected)
    call = world.call("import-moved", {"move": "in"})
    command = replace(call.command, rows=json.dumps(rows).encode())  # type: ignore[type-var]
    return world, world.apply(replace(call, command=command))


def live_on(world: World) -> None:
    """Serve the users, guess, change them, and restore the cluster."""
    for directive, arguments in (
        ("activate-move", {"move": "in"}),
        ("authenticate", {"user": "bob", "serial": "2001", "step": "3"}),
        ("authenticate", {"user": "bob", "serial": "2001", "step": "9"}),
        ("authenticate", {"user": "bob", "code": "WRONG"}),
        ("update-user", {"name": "bob", "display": "Bob"}),
        ("unlock-user", {"name": "bob"}),
        ("note-ended-sets", {}),
        ("begin-epoch", {"cluster": "c3"}),
    ):
        world.handle(directive, arguments)
        world.now_ms += 1000


def test_a_row_of_each_kind_arrives() -> None:
    world, result = arrived(ROWS)
    assert not isinstance(result, Rejected)
    live_on(world)


@pytest.mark.parametrize("name", [ROOT, "zoe"])
def test_a_row_of_each_kind_arrives_by_name(name: str) -> None:
    """(I10) A name that is unknown here counts for everyone, except a creator."""
    rows = deepcopy(ROWS)
    for _, row in rows:
        if "administrator" in row:
            row["administrator"] = name
    world, result = arrived(rows, vouched=True)
    assert not isinstance(result, Rejected)
    for table, count in (
        ("known_secrets", name == ROOT),
        ("user_creators", name == ROOT),
        ("secrets_known_elsewhere", name != ROOT),
    ):
        [rows_found] = world.db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        assert rows_found == count, table
    live_on(world)


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize("secret", ["codes", "confirmed"])
def test_no_row_says_what_the_sets_or_an_approver_must(
    secret: str, *, vouched: bool
) -> None:
    """(I10) No other cluster confirms a token for an administrator of this one."""
    rows = deepcopy(ROWS)
    for kind, row in rows:
        if kind == "secret":
            row.update(administrator=ROOT, secret=secret)
    _, result = arrived(rows, vouched=vouched)
    assert isinstance(result, Rejected)
    assert result.reason is Reason.MOVE_EXPORT


def tried_for(way: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Return what to put into a cell instead of its value."""
    if isinstance(value, int) or way[-1] in NUMBERS:
        return NUMBERS_TRIED
    return (*TEXTS_TRIED, *NUMBERS_TRIED[:4])


@pytest.mark.parametrize(
    ("number", "way", "value"),
    [
        pytest.param(*cell, id=f"{cell[0]}-{'.'.join(map(str, cell[1]))}")
        for cell in cells()
    ],
)
def test_no_value_stops_a_node(number: int, way: tuple[Any, ...], value: Any) -> None:
    for tried in tried_for(way, value):
        rows = deepcopy(ROWS)
        place: Any = rows[number][1]
        for step in way[:-1]:
            place = place[step]
        place[way[-1]] = tried
        world, result = arrived(rows)
        if isinstance(result, Rejected):
            assert result.reason in (Reason.MOVE_EXPORT, Reason.STALE_PARAMETERS)
        else:
            live_on(world)


def test_each_number_of_a_row_has_bounds() -> None:
    names = {
        name for _, row in ROWS for name, value in row.items() if isinstance(value, int)
    }
    assert names <= set(NUMBERS)


@pytest.mark.parametrize("name", ["failures", "rung", "auth_version", "uses"])
def test_a_count_at_its_end_is_refused(name: str) -> None:
    rows = deepcopy(ROWS)
    for _, row in rows:
        if name in row:
            row[name] = 2**63 - 1
    _, result = arrived(rows)
    assert isinstance(result, Rejected)
    assert result.reason is Reason.MOVE_EXPORT
