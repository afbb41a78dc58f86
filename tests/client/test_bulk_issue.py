# SPDX-License-Identifier: Apache-2.0
"""Bulk issue through the library: another node continues a broken stream."""

from collections.abc import Callable

import grpc
import pytest

from sparecode.v1 import emergency_access_pb2 as pb
from sparecode_client import AsyncAdmin, BulkIssueResult, BulkIssueRow, NotPermitted
from sparecode_client.connection.client import Client
from tests.client import answers
from tests.client.fakes import Failure, FakeNode

BULK = "EmergencyAccessService/BulkIssueTokencodes"
BROKEN = Failure(grpc.StatusCode.UNAVAILABLE)
ROWS = [BulkIssueRow(serial=serial) for serial in ("11", "22", "33")]

pytestmark = pytest.mark.asyncio


@pytest.fixture
def admin(connect: Callable[..., Client], nodes: list[FakeNode]) -> AsyncAdmin:
    return AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))


def issued(row: int, code: str = "K7PM-4XQ2") -> pb.BulkIssueTokencodesResponse:
    return pb.BulkIssueTokencodesResponse(
        row=row,
        serial=ROWS[row - 1].serial,
        username="alice",
        saved=answers.SAVED.saved,
        codes=[pb.Tokencode(ordinal=1, code=code)],
    )


def withheld(row: int) -> pb.BulkIssueTokencodesResponse:
    return pb.BulkIssueTokencodesResponse(
        row=row,
        serial=ROWS[row - 1].serial,
        saved=answers.SAVED.saved,
        codes_withheld=True,
    )


def refused(row: int) -> pb.BulkIssueTokencodesResponse:
    return pb.BulkIssueTokencodesResponse(
        row=row, serial=ROWS[row - 1].serial, reason="TOKEN_EXPIRED", problem="old"
    )


async def test_results_come_as_they_are_known(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(BULK, ([issued(1), refused(2), issued(3)], None))
    progress: list[BulkIssueResult] = []

    results = await admin.bulk_issue_tokencodes(ROWS, count=4, progress=progress.append)

    assert tuple(progress) == results
    assert [result.saved is not None for result in results] == [True, False, True]
    assert (results[1].reason, results[1].problem) == ("TOKEN_EXPIRED", "old")
    (request,) = nodes[0].requests(BULK)
    assert request.count == 4
    assert [(row.row, row.serial) for row in request.rows] == [
        (1, "11"),
        (2, "22"),
        (3, "33"),
    ]


async def test_the_next_node_continues_under_the_same_id(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(Q1) So no decided row is issued twice."""
    nodes[0].answer(BULK, ([issued(1)], BROKEN))
    nodes[1].answer(BULK, ([issued(2), issued(3)], None))

    results = await admin.bulk_issue_tokencodes(ROWS)

    assert [result.row for result in results] == [1, 2, 3]
    (first,), (second,) = nodes[0].requests(BULK), nodes[1].requests(BULK)
    assert first.request_id == second.request_id
    assert [row.row for row in second.rows] == [2, 3]


async def test_lost_codes_are_issued_again_under_another_id(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(I9, I8) That voids the lost codes."""
    nodes[0].answer(BULK, ([issued(1)], BROKEN))
    nodes[1].answer(
        BULK, ([withheld(2), issued(3)], None), ([issued(2, "9HJT-WE3R")], None)
    )

    results = await admin.bulk_issue_tokencodes(ROWS)

    assert results[1].codes[0].code == "9HJT-WE3R"
    first, second = nodes[1].requests(BULK)
    assert first.request_id != second.request_id
    assert [(row.row, row.serial) for row in second.rows] == [(2, "22")]


async def test_the_rest_of_a_stream_that_ends_early_is_requested(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(BULK, ([issued(1)], None), ([issued(2), issued(3)], None))
    assert len(await admin.bulk_issue_tokencodes(ROWS)) == 3
    assert [len(each.rows) for each in nodes[0].requests(BULK)] == [3, 2]


async def test_many_rows_go_in_parts(admin: AsyncAdmin, nodes: list[FakeNode]) -> None:
    many = [BulkIssueRow(serial=str(number)) for number in range(501)]

    def part(first: int, last: int) -> list[pb.BulkIssueTokencodesResponse]:
        return [
            pb.BulkIssueTokencodesResponse(row=row, reason="X")
            for row in range(first, last + 1)
        ]

    nodes[0].answer(BULK, (part(1, 500), None), (part(501, 501), None))
    results = await admin.bulk_issue_tokencodes(many)
    assert [result.row for result in results] == list(range(1, 502))


async def test_a_refusal_of_the_whole_call_is_raised(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(
        BULK, ([], Failure(grpc.StatusCode.PERMISSION_DENIED, "ROLE", "may not"))
    )
    with pytest.raises(NotPermitted):
        await admin.bulk_issue_tokencodes(ROWS)
