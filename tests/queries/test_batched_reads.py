# SPDX-License-Identifier: Apache-2.0
"""Small reads share a transaction and nothing else."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.statemachine.machine import StateMachine

pytestmark = pytest.mark.asyncio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a state at index 7."""
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        StateMachine(db).apply(7, ())
    return path


async def index(transaction: ReadTransaction) -> int:
    return transaction.applied_index


async def test_waiting_callers_share_a_transaction(path: Path) -> None:
    """The first runs alone; all callers that arrive during it run together."""
    state = await LocalState.open(path)
    seen: list[ReadTransaction] = []

    async def keep(transaction: ReadTransaction) -> int:
        seen.append(transaction)
        return await index(transaction)

    assert await asyncio.gather(*(state.at_once(keep) for _ in range(20))) == [7] * 20
    assert len({id(each) for each in seen}) == 2
    await state.close()


async def test_a_read_that_comes_later_sees_what_was_committed(path: Path) -> None:
    state = await LocalState.open(path)
    assert await state.at_once(index) == 7
    with contextlib.closing(sqlite3.connect(path)) as db:
        StateMachine(db).apply(8, ())
    assert await state.at_once(index) == 8
    await state.close()


async def test_an_error_reaches_only_its_caller(path: Path) -> None:
    state = await LocalState.open(path)

    async def broken(transaction: ReadTransaction) -> int:
        await transaction.all("SELECT * FROM nothing")
        return 0

    result = await asyncio.gather(
        state.at_once(index),
        state.at_once(broken),
        state.at_once(index),
        return_exceptions=True,
    )
    assert result[0] == result[2] == 7
    assert isinstance(result[1], sqlite3.OperationalError)
    await state.close()


async def test_a_query_that_waits_for_something_else_is_refused(path: Path) -> None:
    state = await LocalState.open(path)

    async def sleeping(transaction: ReadTransaction) -> int:
        await asyncio.sleep(0)
        return await index(transaction)

    with pytest.raises(TypeError, match="awaits something other"):
        await state.at_once(sleeping)
    assert await state.at_once(index) == 7
    await state.close()


async def test_a_caller_that_leaves_delays_no_one(path: Path) -> None:
    state = await LocalState.open(path)
    gone = asyncio.ensure_future(state.at_once(index))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.gather(state.at_once(index), state.at_once(index)) == [7, 7]
    await state.close()
