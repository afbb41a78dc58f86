# SPDX-License-Identifier: Apache-2.0
"""What stands in a user's way, on a node that is still fetching older events (U1, U3)."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.cluster import segments as keeping
from sparecode_node.services.people import explanations
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.sealed_events import file_of
from sparecode_node.statemachine.snapshots import write_snapshot
from tests.services.one_node import SERIAL, OneNode, one_node
from tests.services.test_explanations import explained, fail, furnished
from tests.services.test_notices import add_users
from tests.services.test_segments import EVENTS, discard, joined, kept, linked

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OneNode]:
    """Return a node with attempts in sealed and in open segments; the user is locked."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(keeping, "REST", 0.0)
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        await node.register_agent()
        await furnished(node)
        await fail(node, times=2)
        await add_users(node, *(f"user{number}" for number in range(4 * EVENTS)))
        await fail(node, times=3)
        yield node


async def test_blockers_are_shown_while_older_events_are_missing(
    node: OneNode, tmp_path: Path
) -> None:
    """A help desk needs them now; a joined node fetches old events for hours."""
    write_snapshot(tmp_path / "local.db", tmp_path / "other.db")
    sealed_events.create(tmp_path / "other.db")
    before = await explained(node)
    assert [each.reason for each in before.blockers] == [Reason.LOCKED]
    assert len(before.attempts) == 5
    assert not before.older_attempts_missing
    async with (
        joined(node, tmp_path) as path,
        kept(path) as keeper,
        kept(tmp_path / "other.db") as other,
    ):
        await other.step()
        now = await explained(node)
        assert now.blockers == before.blockers
        assert now.attempts == before.attempts[:3]
        assert now.older_attempts_missing
        token = await node.explanations.explain_token(
            node.admin(explanations.METHOD), SERIAL
        )
        assert token.value.older_attempts_missing
        async with linked(keeper.exchange, n3=other):
            await keeper.step()
        assert await explained(node) == before


async def test_no_attempt_is_shown_from_before_a_gap(
    node: OneNode, tmp_path: Path
) -> None:
    """As if there had been none in between."""
    before = await explained(node)
    await discard(node, tmp_path / "local.db")
    with contextlib.closing(sqlite3.connect(file_of(tmp_path / "local.db"))) as db:
        gone = 3
        db.execute("DELETE FROM stored_segments WHERE number = ?", (gone,))
        db.execute(
            "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
            ((gone - 1) * EVENTS + 1, gone * EVENTS),
        )
        db.commit()
    now = await explained(node)
    assert now.attempts == before.attempts[:3]
    assert now.older_attempts_missing


async def test_enough_attempts_miss_nothing(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "ATTEMPTS_MAX", 3)
    before = await explained(node)
    async with joined(node, tmp_path):
        assert await explained(node) == before
    assert not before.older_attempts_missing
