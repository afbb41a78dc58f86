# SPDX-License-Identifier: Apache-2.0
"""Searches and exports with a filter leave the connections to other reads (U1)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.queries import audit
from sparecode_node.queries.audit import AuditFilter
from sparecode_node.queries.transaction import ReadTransaction
from sparecode_node.services.cluster.audit import ExportPiece
from sparecode_node.services.context import Read
from sparecode_node.services.errors import NotPermittedError, NotSignedInError
from sparecode_node.services.files.audit_export import ExportFormat
from tests.services.one_node import UNLIMITED, OneNode, one_node
from tests.services.test_audit import live, reading, rule
from tests.services.test_audit_export import exported
from tests.services.test_notices import add_users

pytestmark = pytest.mark.asyncio

BOUND = 4
NEVER = AuditFilter(action="Never")


@pytest.fixture(autouse=True)
def searched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Lower the bound; return the ranges of events that statements look at."""
    monkeypatch.setattr(audit, "SEARCHED_MAX", BOUND)
    ranges = []
    read_all = ReadTransaction.all

    async def noted(self: ReadTransaction, sql: str, **values) -> list:
        if "BETWEEN :first AND :last" in sql:
            ranges.append((values["first"], values["last"]))
        return await read_all(self, sql, **values)

    monkeypatch.setattr(ReadTransaction, "all", noted)
    return ranges


async def export(
    node: OneNode, criteria: AuditFilter = NEVER
) -> AsyncIterator[Read[ExportPiece]]:
    return await node.audit.export(
        reading(node, "ExportAuditEvents"), form=ExportFormat.CSV, criteria=criteria
    )


@contextlib.asynccontextmanager
async def all_but(node: OneNode, free: int) -> AsyncIterator[None]:
    """Hold the connections, as other calls do."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(node.state._size - free):
            await stack.enter_async_context(node.state.transaction())
        yield


async def test_a_search_looks_at_a_bounded_number_of_events(
    node: OneNode, searched: list[tuple[int, int]]
) -> None:
    """And says where the next call goes on."""
    await live(node)
    token, last = "", 0
    while True:
        before = len(searched)
        page = await node.audit.list(reading(node), criteria=NEVER, page_token=token)
        ((first, last),) = searched[before:]
        assert last - first < BOUND
        if not (token := page.value.next_page_token):
            break
        assert page.value.searched_to_sequence == first
    assert first == 1
    assert len(searched) > 2


async def test_an_export_says_how_far_it_has_looked(
    node: OneNode, searched: list[tuple[int, int]]
) -> None:
    """Parts without an event, so that a caller waits for none of them for long."""
    await live(node)
    pieces = [read.value async for read in await export(node)]
    end = pieces[0].end_sequence
    assert [each.searched_to_sequence for each in pieces] == [
        *range(0, end, BOUND),
        end,
    ]
    assert {each.events for each in pieces} == {0}
    assert max(last - first for first, last in searched) < BOUND


async def test_a_filtered_export_has_what_a_search_finds(node: OneNode) -> None:
    await live(node)
    wanted = AuditFilter(outcome="refused")
    content = await exported(node, wanted=wanted)
    assert content.count(b"\n") == 1
    assert b'"reason":"wrong_pin"' in content


async def test_other_reads_come_between_the_batches_of_an_export(
    node: OneNode,
) -> None:
    """Even if one connection is left: each batch gives it back, and waits behind them."""
    await add_users(node, *(f"user{number}" for number in range(5 * BOUND)))
    pieces = 0
    seen_at: list[int] = []

    async def reads_all() -> None:
        nonlocal pieces
        async for _ in await export(node):
            pieces += 1

    async def other_read() -> None:
        async with node.state.transaction():
            seen_at.append(pieces)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks, all_but(node, 1):
        exporting = tasks.create_task(reads_all())
        while not pieces:  # noqa: ASYNC110
            await asyncio.sleep(0)
        while not exporting.done():
            before = pieces
            await tasks.create_task(other_read())
            assert seen_at[-1] <= before + 1
    assert pieces > 5
    assert len(set(seen_at)) > 3


async def test_a_cancelled_export_stops_within_one_batch(
    node: OneNode, searched: list[tuple[int, int]]
) -> None:
    """A caller that has gone away costs at most the statement that runs."""
    await add_users(node, *(f"user{number}" for number in range(5 * BOUND)))

    async def reads_all() -> None:
        async for _ in await export(node):
            pass

    exporting = asyncio.create_task(reads_all())
    async with asyncio.timeout(60):
        while len(searched) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        exporting.cancel()
        at_cancel = len(searched)
        await asyncio.gather(exporting, return_exceptions=True)
        async with all_but(node, 0):
            assert len(searched) == at_cancel


async def test_a_long_export_counts_once_for_the_rate_of_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(Q3) A fast node reads more parts a second than a session may make calls."""
    monkeypatch.setattr("sparecode_node.services.cluster.audit.BATCH", 1)
    async with one_node(tmp_path, replace(UNLIMITED, session=5)) as node:
        for number in range(60):
            await add_users(node, f"user{number}")
            node.clock.pass_s(1)
        content = await exported(node)
        assert content.count(b"\n") > 60
        node.clock.pass_s(60)
        verdict = await node.audit.verify_chain(reading(node, "VerifyChain"))
        assert verdict.value.verified_sequence > 60
        await node.sessions.logout(node.admin("SessionService/Logout"))
        with pytest.raises(NotSignedInError):
            await exported(node)


async def test_an_administrator_who_loses_the_role_gets_no_further_part(
    node: OneNode,
) -> None:
    """(P1) Each part of an export checks it again."""
    await live(node)
    pieces = await export(node)
    await anext(pieces)
    await anext(pieces)
    rule(node, Role.OPERATOR)
    with pytest.raises(NotPermittedError):
        await anext(pieces)
