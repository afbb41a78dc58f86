# SPDX-License-Identifier: Apache-2.0
"""Emergency codes for many tokens: row by row, and safe to retry."""

import asyncio
import dataclasses
import uuid
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.emergency import bulk_issue
from sparecode_node.services.emergency.bulk_issue import ROWS_MAX, BulkResult, BulkRow
from sparecode_node.services.emergency.issuing import Lifetime, SetTerms
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.load.fair_queue import Share
from sparecode_node.services.load.pacing import REST, Pace
from sparecode_node.services.secrets.kdf import KdfInput, Lane
from sparecode_node.statemachine.commands.emergency_access import IssueTokencodesInBulk
from tests.services.one_node import PIN, SEED, OneNode
from tests.services.pauses import slow_commits, watch_pauses

pytestmark = pytest.mark.asyncio

METHOD = "EmergencyAccessService/BulkIssueTokencodes"


def rows(*serials: str, count: int | None = None) -> list[BulkRow]:
    return [
        BulkRow(row=number, serial=serial, count=count)
        for number, serial in enumerate(serials, start=1)
    ]


def terms() -> SetTerms:
    return SetTerms(
        lifetime=Lifetime(duration_ms=3_600_000), recovery=RecoveryPolicy.DENY
    )


async def bulk(
    node: OneNode,
    wanted: list[BulkRow],
    *,
    count: int | None = 3,
    request_id: str = "",
    deadline_s: float = 10,
) -> list[BulkResult]:
    context = dataclasses.replace(node.admin(METHOD, request_id), deadline_s=deadline_s)
    results = await node.bulk.issue(context, rows=wanted, count=count, terms=terms())
    async with aclosing(results):
        return [result async for result in results]


async def estate(node: OneNode, size: int = 3) -> list[str]:
    """Add users with one token each; return the serials."""
    for number in range(1, size + 1):
        seed = SEED[:-1] + bytes([number])
        await node.add_user(f"user{number}", serial=str(number), seed=seed)
    return [str(number) for number in range(1, size + 1)]


async def test_every_row_gets_codes_that_work(node: OneNode) -> None:
    serials = await estate(node)
    results = await bulk(node, rows(*serials))
    assert [result.serial for result in results] == serials
    for number, result in enumerate(results, start=1):
        assert result.username == f"user{number}"
        assert len(result.codes) == 3
        code = result.codes[0].code
        assert await node.accepts(PIN + code, username=f"user{number}")
        assert not await node.accepts(PIN + code, username=f"user{number}")


async def test_a_bad_row_never_stops_the_rest(node: OneNode) -> None:
    """(I1, I4) Unknown, disabled, too many codes: each with its reason."""
    serials = await estate(node)
    await node.tokens.disable(node.admin("TokenService/DisableToken"), serial="2")
    wanted = rows("nobody", *serials)
    wanted[3] = dataclasses.replace(wanted[3], count=51)
    results = await bulk(node, wanted)
    assert [result.reason for result in results] == [
        "TOKEN_UNKNOWN",
        "",
        "TOKEN_DISABLED",
        "FIELD",
    ]
    assert [len(result.codes) for result in results] == [0, 3, 0, 0]
    assert all(result.problem for result in results if result.reason)


async def test_a_retry_withholds_codes_already_issued(node: OneNode) -> None:
    """(I9, Q1) Decided rows are withheld in any order; the other rows continue."""
    first, *rest = rows(*await estate(node))
    request_id = str(uuid.uuid4())
    (issued,) = await bulk(node, [first], request_id=request_id)
    again = await bulk(node, [*rest, first], request_id=request_id)
    assert [result.withheld for result in again] == [False, False, True]
    assert again[-1].codes == ()
    assert again[-1].saved == issued.saved
    # The codes of the first call are the live ones.
    assert await node.accepts(PIN + issued.codes[0].code, username="user1")
    other = dataclasses.replace(first, serial="2")
    with pytest.raises(Refused) as raised:
        await bulk(node, [other], request_id=request_id)
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


async def test_no_row_is_begun_that_cannot_be_answered(node: OneNode) -> None:
    """Codes issued after the caller left would be lost. The first row always runs."""
    serials = await estate(node)
    results = await bulk(node, rows(*serials), deadline_s=0.9)
    assert [result.serial for result in results] == ["1"]
    access = await node.emergency.get(
        node.admin("EmergencyAccessService/GetEmergencyAccess"), "2"
    )
    assert access.value.live_codes == 0


async def test_an_administrator_has_one_bulk_at_a_time(node: OneNode) -> None:
    """(I12) Its end makes room, also when the caller leaves midway."""
    serials = await estate(node)
    context = node.admin(METHOD)
    results = await node.bulk.issue(
        context, rows=rows(*serials), count=1, terms=terms()
    )
    async with aclosing(results):
        await anext(results)
        with pytest.raises(OverloadedError):
            await bulk(node, rows(*serials))
    assert len(await bulk(node, rows(*serials))) == 3


async def test_a_bulk_hashes_in_the_lane_for_issuing_only(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) At most one row's hashes at once, so that other work fits in."""
    serials = await estate(node)
    authenticating = node.kdf.evaluations(Lane.AUTHENTICATING)
    derive = node.kdf.derive
    waiting = 0
    most = 0

    async def counted(
        inputs: Sequence[KdfInput], *, lane: Lane, share: Share, timeout_s: float
    ) -> tuple[bytes, ...]:
        nonlocal waiting, most
        assert lane is Lane.ISSUING
        waiting += len(inputs)
        most = max(most, waiting)
        try:
            return await derive(inputs, lane=lane, share=share, timeout_s=timeout_s)
        finally:
            waiting -= len(inputs)

    monkeypatch.setattr(node.kdf, "derive", counted)
    results = await bulk(node, rows(*serials), count=20)
    assert all(result.saved for result in results)
    assert 0 < most <= 20
    assert node.kdf.evaluations(Lane.AUTHENTICATING) == authenticating


async def test_a_bulk_rests_after_each_commit(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) All bulks of a node together pause longer than their commits took."""
    serials = await estate(node, 4)
    pauses = watch_pauses(node, monkeypatch, node.bulk)
    slow_commits(node, monkeypatch, IssueTokencodesInBulk, 0.02)
    derive = node.kdf.derive

    async def costly(
        inputs: Sequence[KdfInput], *, lane: Lane, share: Share, timeout_s: float
    ) -> tuple[bytes, ...]:
        node.clock.pass_s(0.2)
        return await derive(inputs, lane=lane, share=share, timeout_s=timeout_s)

    monkeypatch.setattr(node.kdf, "derive", costly)
    first = await bulk(node, rows(*serials[:2]))
    second = await bulk(node, rows(*serials[2:]))
    assert all(result.saved for result in (*first, *second))
    assert pauses.taken_s == [round(REST * 0.02, 3)] * 3


async def test_a_deadline_during_a_pause_ends_the_bulk_without_an_error(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issued rows were answered; the caller continues with the rest."""
    serials = await estate(node)

    watch_pauses(node, monkeypatch, node.bulk)
    results = await node.bulk.issue(
        node.admin(METHOD), rows=rows(*serials), count=1, terms=terms()
    )
    async with aclosing(results):
        assert (await anext(results)).saved
        async with (
            node.bulk._pace.turn()
        ):  # A bulk of another administrator, and a new primary.
            node.clock.pass_s(30)
        assert [result async for result in results] == []


async def test_a_caller_that_leaves_during_a_pause_delays_no_one(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) The same administrator may issue again and gets the next turn."""
    serials = await estate(node)
    resting, for_ever = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        resting.set()
        await for_ever.wait()
        node.clock.pass_s(seconds)

    monkeypatch.setattr(node.bulk, "_pace", Pace(node.clock, sleep=sleep))
    slow_commits(node, monkeypatch, IssueTokencodesInBulk, 0.02)
    gone = asyncio.create_task(bulk(node, rows(*serials)))
    await resting.wait()
    gone.cancel()
    await asyncio.wait({gone})
    for_ever.set()
    async with asyncio.timeout(60):
        assert len(await bulk(node, rows(*serials))) == 3


async def test_a_session_that_ends_ends_the_bulk(node: OneNode) -> None:
    """(P1) Apply checks every row; issued codes stay."""
    serials = await estate(node)
    results = await node.bulk.issue(
        node.admin(METHOD), rows=rows(*serials), count=1, terms=terms()
    )
    async with aclosing(results):
        await anext(results)
        await node.sessions.logout(node.admin("SessionService/Logout"))
        with pytest.raises(NotSignedInError):
            await anext(results)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ([], "rows"),
        (rows(*map(str, range(ROWS_MAX + 1))), "rows"),
        (rows("1", "1"), "rows"),
        (
            [BulkRow(row=1, serial="1", count=None)] * 1
            + [BulkRow(row=1, serial="2", count=None)],
            "rows",
        ),
        ([BulkRow(row=0, serial="1", count=None)], "rows[0].row"),
        ([BulkRow(row=1, serial="=1", count=None)], "rows[0].serial"),
        ([BulkRow(row=1, serial="1", count=0)], "rows[0].count"),
    ],
)
async def test_rows_have_bounds(
    node: OneNode, wanted: list[BulkRow], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        await bulk(node, wanted)
    assert raised.value.field == field


async def test_concurrent_bulks_are_bounded(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a stream and a place in the issuing lane."""
    wanted = rows(*await estate(node, 1))
    monkeypatch.setattr(bulk_issue, "BULKS_MAX", 0)
    with pytest.raises(OverloadedError, match="too many bulk issues"):
        await bulk(node, wanted)
    monkeypatch.setattr(bulk_issue, "BULKS_MAX", 1)
    assert [each.reason for each in await bulk(node, wanted)] == [""]
