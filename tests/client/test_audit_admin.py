# SPDX-License-Identifier: Apache-2.0
"""Exports and checkpoints through the library: another node continues a broken stream."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from sparecode.v1 import audit_pb2 as pb
from sparecode_client import (
    AsyncAdmin,
    AuditExport,
    AuditExportFormat,
    AuditFilter,
    NotSignedIn,
    Unavailable,
)
from sparecode_client.connection.client import Client
from tests.client import answers
from tests.client.audit_files import log, signed
from tests.client.conftest import Waits
from tests.client.fakes import NO_QUORUM_FOR_LONG, Failure, FakeNode

EXPORT = "AuditService/ExportAuditEvents"
BROKEN = Failure(grpc.StatusCode.UNAVAILABLE)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def admin(connect: Callable[..., Client], nodes: list[FakeNode]) -> AsyncAdmin:
    return AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))


def piece(content: bytes, last: int, *, events: int = 2):
    return pb.ExportAuditEventsResponse(
        content=content, events=events, last_sequence=last, end_sequence=6
    )


async def test_export_that_breaks_off_is_continued_by_the_next_node(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """No event is repeated or missing, and the header occurs once."""
    first = [piece(b"head,", 0, events=0), piece(b"1,2,", 2), piece(b"3,4,", 4)]
    nodes[0].answer(EXPORT, (first, BROKEN))
    nodes[1].answer(EXPORT, ([piece(b"", 0, events=0), piece(b"5,6", 6)], None))
    content: list[bytes] = []
    progress: list[tuple[int, int]] = []

    export = await admin.export_audit_events(
        content.append,
        AuditFilter(actor="a"),
        form=AuditExportFormat.CSV,
        progress=lambda done, end: progress.append((done, end)),
    )

    assert b"".join(content) == b"head,1,2,3,4,5,6"
    assert export == AuditExport(events=6, last_sequence=6)
    assert progress == [(0, 6), (2, 6), (4, 6), (4, 6), (6, 6)]
    (start,), (continued,) = (node.requests(EXPORT) for node in nodes[:2])
    assert (start.after_sequence, start.continued) == (0, False)
    assert (continued.after_sequence, continued.continued) == (4, True)
    for request in (start, continued):
        assert request.format == pb.AUDIT_EXPORT_FORMAT_CSV
        assert request.filter == pb.AuditFilter(actor="a")


MISSING = Failure(
    grpc.StatusCode.UNAVAILABLE,
    "AUDIT_SEGMENT_MISSING",
    "this node lacks older audit events",
    retry_after_s=5,
)


async def test_a_read_goes_on_to_a_node_that_has_the_older_events(
    admin: AsyncAdmin, nodes: list[FakeNode], waits: Waits
) -> None:
    """(U1) A new voter fetches them for hours. The next read begins where they are."""
    listing = "AuditService/ListAuditEvents"
    nodes[0].answer(listing, MISSING)
    nodes[1].answer(listing, pb.ListAuditEventsResponse(next_page_token="p2"))

    page = await admin.list_audit_events()
    assert page.next_page_token == "p2"
    assert waits == [0]
    await admin.list_audit_events(page_token=page.next_page_token)
    assert len(nodes[0].requests(listing)) == 1


async def test_an_export_goes_on_to_a_node_that_has_the_older_events(
    admin: AsyncAdmin, nodes: list[FakeNode], waits: Waits
) -> None:
    nodes[0].answer(EXPORT, ([], MISSING))
    nodes[1].answer(EXPORT, ([piece(b"", 0, events=0), piece(b"1", 6)], None))
    content: list[bytes] = []

    await admin.export_audit_events(content.append)
    assert b"".join(content) == b"1"
    assert waits == [0]


async def test_a_read_that_no_node_can_answer_says_what_is_missing(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    for node in nodes[:2]:
        node.answer("AuditService/ListAuditEvents", MISSING)

    with pytest.raises(Unavailable) as caught:
        await admin.list_audit_events(within=timedelta(seconds=1))
    assert caught.value.reason == "AUDIT_SEGMENT_MISSING"


async def test_export_from_an_event_starts_there_on_each_node(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(EXPORT, ([], BROKEN))
    nodes[1].answer(EXPORT, ([piece(b"x", 0, events=0)], None))

    export = await admin.export_audit_events(lambda _: None, after_sequence=5)

    assert export == AuditExport(events=0, last_sequence=0)
    for node in nodes[:2]:
        (request,) = node.requests(EXPORT)
        assert (request.after_sequence, request.continued) == (5, False)


async def test_export_that_no_node_completes_is_an_error(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """A partial export is not reported as complete."""
    for node in nodes:
        node.answer(EXPORT, ([piece(b"x", 0, events=0)], NO_QUORUM_FOR_LONG))
    with pytest.raises(Unavailable):
        await admin.export_audit_events(
            lambda _: None, within=timedelta(milliseconds=300)
        )


async def test_timeout_restarts_with_each_progress_of_an_export(
    connect: Callable[..., Client], nodes: list[FakeNode]
) -> None:
    """A long export may exceed the timeout, but no pause may."""
    parts = [
        ([piece(b"x", 2)], NO_QUORUM_FOR_LONG),
        ([piece(b"y", 4)], NO_QUORUM_FOR_LONG),
        ([piece(b"z", 6)], None),
    ]
    nodes[0].answer(EXPORT, *parts)
    admin = AsyncAdmin.over(connect(nodes[0].address, timeout_s=1))
    content: list[bytes] = []

    export = await admin.export_audit_events(content.append)

    assert (b"".join(content), export.events) == (b"xyz", 6)
    starts = [request.after_sequence for request in nodes[0].requests(EXPORT)]
    assert starts == [0, 2, 4]


async def test_an_export_that_finds_nothing_makes_progress_too(
    connect: Callable[..., Client], nodes: list[FakeNode]
) -> None:
    """It goes on after what was looked at, however long the log is."""
    parts = [
        pb.ExportAuditEventsResponse(searched_to_sequence=number, end_sequence=6)
        for number in (2, 4, 6)
    ]
    nodes[0].answer(
        EXPORT,
        ([parts[0]], NO_QUORUM_FOR_LONG),
        ([parts[1]], NO_QUORUM_FOR_LONG),
        ([parts[2]], None),
    )
    admin = AsyncAdmin.over(connect(nodes[0].address, timeout_s=1))

    export = await admin.export_audit_events(lambda _: None)

    assert export == AuditExport(events=0, last_sequence=0)
    starts = [request.after_sequence for request in nodes[0].requests(EXPORT)]
    assert starts == [0, 2, 4]


async def test_a_page_tells_how_far_the_node_has_looked(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    page = pb.ListAuditEventsResponse(next_page_token="t", searched_to_sequence=7)
    page.searched_to_time.FromSeconds(60)
    nodes[0].answer("AuditService/ListAuditEvents", page)

    first = await admin.list_audit_events()

    assert (first.items, first.searched_to_sequence) == ((), 7)
    assert first.searched_to_time == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)


async def test_ended_session_is_reported_without_a_retry(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    expiry = Failure(grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED", "sign in")
    nodes[0].answer(EXPORT, ([piece(b"x", 2)], expiry))
    with pytest.raises(NotSignedIn):
        await admin.export_audit_events(lambda _: None)
    assert not nodes[1].requests(EXPORT)


async def test_checkpoint_arrives_as_it_was_signed(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(U2) Exact to the millisecond; otherwise the signature would be wrong."""
    checkpoint = signed(log(), 4)
    nodes[0].answer(
        "AuditService/GetCheckpoint", answers.checkpoint_response(checkpoint)
    )
    assert await admin.get_checkpoint() == checkpoint
