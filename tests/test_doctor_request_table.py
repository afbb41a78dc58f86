# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings about the size of the table of request ids (Q3)."""

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from sparecode_node.domain.policy import BOUNDS, Policy
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.handlers.policy import add_policy
from sparecode_node.statemachine.tables.formats import convert, prepare
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.request_table import (
    check_request_table,
    room_for_others,
)
from tests.statemachine.test_shares import filled

LEAST = BOUNDS["requests_max"][0]
NOW_MS = 3_600_000


def state(folder: Path, rows: int, *, due: int = 0) -> Path:
    """Write a state with the smallest table. *due*: rows that have ended."""
    path = folder / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        prepare(db)
        convert(db, NEWEST)
        db.execute("INSERT INTO meta VALUES ('requests_ms', ?)", (NOW_MS,))
        add_policy(db, dataclasses.replace(Policy(), requests_max=LEAST), NEWEST)
        times = [NOW_MS] * rows + [0] * due
        db.executemany(
            "INSERT INTO requests (caller, method, request_id, tag, at_ms, result, "
            "in_reserve) VALUES ('c', 'm', ?, 0, ?, '', 0)",
            [(str(number), at_ms) for number, at_ms in enumerate(times)],
        )
        db.commit()
    return path


def test_the_room_beside_a_flood_is_the_last_third() -> None:
    """(Q3) As the shares give it: one caller floods until it is refused."""
    shares, _ = filled(1, LEAST)
    left = LEAST - LEAST // 16 - shares.total
    assert abs(left - room_for_others(LEAST)) <= 1


@pytest.mark.parametrize(
    ("rows", "due", "verdict"),
    [
        (0, 0, Verdict.OK),
        (room_for_others(LEAST), 5_000, Verdict.OK),
        (room_for_others(LEAST) + 1, 0, Verdict.WARN),
    ],
)
def test_a_table_that_is_too_small_for_its_load_is_found(
    tmp_path: Path, rows: int, due: int, verdict: Verdict
) -> None:
    """(Q3) Else ordinary calls are refused for ten minutes after a flood."""
    (finding,) = check_request_table(state(tmp_path, rows, due=due))
    assert finding.verdict is verdict
    assert "5.2 calls a second" in finding.words
    assert ("requests_max=20000" in finding.words) is (verdict is Verdict.WARN)


def test_a_missing_state_is_another_checks_business(tmp_path: Path) -> None:
    assert not list(check_request_table(tmp_path / "state.db"))
