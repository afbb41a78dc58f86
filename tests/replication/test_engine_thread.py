# SPDX-License-Identifier: Apache-2.0
"""Callers wait for the engine's thread in a bounded number, and wake it together."""

import asyncio
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sparecode_node.replication.errors import OutcomeUnknownError, OverloadedError
from sparecode_node.replication.replica import engine_thread
from sparecode_node.replication.replica.engine_thread import EngineThread, OpenState


def made(
    kind: type[EngineThread], directory: Path, open_state: OpenState
) -> EngineThread:
    """Return an engine of which only the queue of jobs is used."""
    return kind(
        cast("Any", None),
        directory,
        open_state=open_state,
        wire=cast("Any", None),
        wall_ms=lambda: 0,
        on_status=lambda _: None,
        on_fatal=lambda _: None,
    )


def test_an_engine_that_does_not_keep_up_has_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The deliverer of members' messages checks this, and ends the link."""
    monkeypatch.setattr(engine_thread, "INBOX_MAX", 3)
    not_started = made(EngineThread, tmp_path, cast("Any", None))
    for _ in range(3):
        assert not_started.has_room()
        not_started.post(lambda _: None)
    assert not not_started.has_room()


@pytest.mark.asyncio
async def test_callers_beyond_the_bound_are_shed_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their calls were not begun, and the waiting callers get their answers."""
    monkeypatch.setattr(engine_thread, "PROPOSALS_QUEUED_MAX", 3)
    go_on = threading.Event()

    def hold() -> AbstractContextManager[Any]:
        go_on.wait(30)
        raise NotOpenedError

    engine = made(EngineThread, tmp_path, hold)
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(engine.read(timeout_s=30)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="too many callers wait"):
        await engine.read(timeout_s=30)
    go_on.set()
    with pytest.raises(NotOpenedError):
        await starting
    for each in waiting:
        with pytest.raises(OutcomeUnknownError):
            await each


@pytest.mark.asyncio
async def test_proposals_of_one_turn_of_the_loop_wake_the_engine_together(
    tmp_path: Path,
) -> None:
    """Otherwise the first one would get an entry of the log for itself."""
    go_on = threading.Event()
    jobs: list[int] = []

    def hold() -> AbstractContextManager[Any]:
        go_on.wait(30)
        raise NotOpenedError

    class Watched(EngineThread):
        def _wake(self) -> None:
            jobs.append(len(self._jobs))
            super()._wake()

    engine = made(Watched, tmp_path, hold)
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    proposal = cast("Any", SimpleNamespace(tokencodes=()))
    waiting = [
        asyncio.create_task(engine.propose(proposal, timeout_s=30)) for _ in range(3)
    ]
    await asyncio.sleep(0)
    assert jobs == []
    await asyncio.sleep(0)
    assert jobs[0] == 3
    go_on.set()
    await asyncio.gather(starting, *waiting, return_exceptions=True)


class NotOpenedError(Exception):
    """The state cannot be opened."""
