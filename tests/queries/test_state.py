# SPDX-License-Identifier: Apache-2.0
"""The local state for reading: one moment, read-only, connections returned."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparecode_node.domain.ids import UserId
from sparecode_node.domain.policy import Policy
from sparecode_node.queries import cluster
from sparecode_node.queries import policy as policies
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.queries.state import LocalState
from sparecode_node.statemachine.machine import StateMachine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StateMachine]:
    with contextlib.closing(sqlite3.connect(tmp_path / "state #1?.db")) as db:
        yield StateMachine(db)


@pytest.fixture
def path(tmp_path: Path, machine: StateMachine) -> Path:
    """Return a file name that a URI has to quote."""
    return tmp_path / "state #1?.db"


@pytest.mark.asyncio
async def test_transaction_sees_one_moment(machine: StateMachine, path: Path) -> None:
    state = await LocalState.open(path)
    machine.apply(7, ())
    async with state.transaction() as before:
        machine.apply(8, ())
        row = await before.one("SELECT value FROM meta WHERE name = 'applied_index'")
        async with state.transaction() as after:
            assert (before.applied_index, after.applied_index) == (7, 8)
        assert row is not None
        assert row["value"] == 7
    await state.close()


@pytest.mark.asyncio
async def test_state_before_the_first_entry_is_empty(path: Path) -> None:
    state = await LocalState.open(path)
    async with state.transaction() as transaction:
        assert transaction.applied_index == 0
        assert await policies.current(transaction) == Policy()
        assert await cluster.cluster_id(transaction) == ""
        assert await transaction.all("SELECT * FROM users") == []
    await state.close()


@pytest.mark.asyncio
async def test_transaction_cannot_write(path: Path) -> None:
    state = await LocalState.open(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        async with state.transaction() as transaction:
            await transaction.one("DELETE FROM users")
    await state.close()


@pytest.mark.asyncio
async def test_missing_file_is_not_created(tmp_path: Path) -> None:
    """And no thread stays that would use the closed loop."""
    before = set(threading.enumerate())
    for _ in range(20):
        with pytest.raises(sqlite3.OperationalError):
            await LocalState.open(tmp_path / "none.db")
        left = set(threading.enumerate()) - before
        assert not [thread for thread in left if "asyncio" not in thread.name]
    assert not (tmp_path / "none.db").exists()


@pytest.mark.asyncio
async def test_what_was_opened_before_a_failure_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def second_fails(*arguments: Any, **options: Any) -> sqlite3.Connection:
        if opened:
            raise sqlite3.OperationalError("too many open files")
        opened.append(connect(*arguments, **options))
        return opened[0]

    monkeypatch.setattr(sqlite3, "connect", second_fails)
    with pytest.raises(sqlite3.OperationalError, match="too many"):
        await LocalState.open(path)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")


@pytest.mark.asyncio
async def test_cancelled_reader_gives_its_connection_back(path: Path) -> None:
    """A caller may go away at any await; the next one finds a clean connection."""
    state = await LocalState.open(path, connections=1)

    async def read() -> None:
        async with state.transaction() as transaction:
            for _ in range(4):
                await transaction.all("SELECT * FROM users")

    for turns in range(40):
        reader = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        reader.cancel()
        await asyncio.wait([reader])
        async with asyncio.timeout(60), state.transaction() as transaction:
            assert transaction.applied_index == 0
    await state.close()


@pytest.mark.asyncio
async def test_cancelled_reader_leaves_no_old_state_behind(
    machine: StateMachine, path: Path
) -> None:
    """
    A cancelled query must not leave its snapshot to the next reader.

    SQLite keeps a read snapshot over a rollback while any statement of the connection
    has not ended. The next reader, after its barrier, would then see an older state.
    """
    machine.apply(1, ())
    machine.apply(2, ())

    async def read(state: LocalState) -> None:
        async with state.transaction() as transaction:
            for _ in range(4):
                await transaction.one("SELECT * FROM meta")

    async with contextlib.AsyncExitStack() as stack:
        state = await LocalState.open(path, connections=1)
        stack.push_async_callback(state.close)
        for index in range(3, 203):
            reader = asyncio.create_task(read(state))
            for _ in range(index % 40):
                await asyncio.sleep(0)
            reader.cancel()
            reader.cancel()
            await asyncio.wait([reader])
            machine.apply(index, ())
            async with asyncio.timeout(60), state.transaction() as transaction:
                assert transaction.applied_index == index


def test_seeds_are_read_on_any_thread(machine: StateMachine, path: Path) -> None:
    """(T1)."""
    with contextlib.closing(SeedReader(path)) as seeds:
        assert seeds.tokens_of(UserId("nobody")) == []
        assert seeds.policy() == Policy()
