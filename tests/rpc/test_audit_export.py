# SPDX-License-Identifier: Apache-2.0
"""`ExportAuditEvents`: a stream with the same limits as other calls."""

import asyncio
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import audit_pb2 as pb
from sparecode.v1.audit_pb2_grpc import AuditServiceStub
from sparecode_node.queries import audit
from sparecode_node.queries import pages as pages_of
from sparecode_node.rpc.interceptors import CallInterceptor
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster.audit import ExportPiece
from sparecode_node.services.context import Read
from sparecode_node.services.error_table import Audience
from sparecode_node.services.errors import NotPermittedError, NotSignedInError
from sparecode_node.services.load.open_calls import CallLimits
from tests.rpc.edge import BEARER, failure, running_edge
from tests.rpc.loopback_node import LoopbackNode, running_node

pytestmark = pytest.mark.asyncio
CODE = grpc.StatusCode


def piece(content: bytes, *, events: int = 1, last: int = 1):
    return Read(
        value=ExportPiece(
            content=content, events=events, last_sequence=last, end_sequence=9
        ),
        node_id="n1",
        applied_index=9,
        stale=True,
    )


class Pieces:
    """The parts of an export, sent on request, and its end."""

    def __init__(self, *pieces, end: Exception | None = None, hangs: bool = False):
        self.left = list(pieces)
        self.end = end
        self.hangs = hangs
        self.closed = asyncio.Event()

    async def __call__(self):
        return self.stream()

    async def stream(self):
        try:
            for each in self.left:
                yield each
            if self.end is not None:
                raise self.end
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


async def exported(channel, request=None, *, metadata=BEARER, timeout_s: float = 5):
    """Return the responses, and the status if it is not OK."""
    answers = []
    stub = AuditServiceStub(channel)
    try:
        async for answer in stub.ExportAuditEvents(
            request or pb.ExportAuditEventsRequest(),
            timeout=timeout_s,
            metadata=metadata,
        ):
            answers.append(answer)  # noqa: PERF401 - What came before the end counts.
    except grpc.aio.AioRpcError as error:
        return answers, failure(error)
    return answers, None


async def test_refusal_during_an_export_ends_the_stream_with_its_status():
    """The caller keeps the earlier parts and can continue after them."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["audit"].answer = Pieces(piece(b"a\n"), end=NotSignedInError())
        answers, failed = await exported(channel)
    assert [answer.content for answer in answers] == [b"a\n"]
    assert (failed.code, failed.reason) == (CODE.UNAUTHENTICATED, "SESSION_ENDED")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotPermittedError("no"), CODE.PERMISSION_DENIED),
        (RuntimeError("the secret of a bug"), CODE.INTERNAL),
    ],
)
async def test_refusal_before_an_export_sends_no_content(error, code):
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["audit"].answer = error
        answers, failed = await exported(channel)
    assert (answers, failed.code) == ([], code)
    assert "secret" not in failed.words


@pytest.mark.parametrize(
    "metadata", [None, BEARER, (("authorization", "Basic cm9vdDpyb290"),)]
)
async def test_export_needs_a_session(tmp_path: Path, metadata):
    """(P1) A caller without one does not even receive the header."""
    async with running_node(tmp_path) as node, node.admin() as channel:
        answers, failed = await exported(channel, metadata=metadata)
    assert (answers, failed.reason) == ([], "SESSION_ENDED")


async def test_export_ends_at_the_deadline_and_closes_its_reader():
    async with running_edge() as edge, edge.admin() as channel:
        pieces = Pieces(piece(b"a\n"), hangs=True)
        edge.services["audit"].answer = pieces
        answers, failed = await exported(channel, timeout_s=0.5)
        assert len(answers) == 1
        assert failed.code is CODE.DEADLINE_EXCEEDED
        async with asyncio.timeout(60):
            await pieces.closed.wait()


async def test_export_closes_its_reader_when_the_caller_leaves():
    async with running_edge() as edge, edge.admin() as channel:
        pieces = Pieces(piece(b"a\n"), hangs=True)
        edge.services["audit"].answer = pieces
        call = AuditServiceStub(channel).ExportAuditEvents(
            pb.ExportAuditEventsRequest(), timeout=60, metadata=BEARER
        )
        await call.read()
        call.cancel()
        async with asyncio.timeout(60):
            assert await pieces.closed.wait()


async def test_export_format_must_be_known():
    async with running_edge() as edge, edge.admin() as channel:
        _, failed = await exported(channel, pb.ExportAuditEventsRequest(format=7))
    assert (failed.code, failed.field) == (CODE.INVALID_ARGUMENT, "format")


async def test_methods_that_stream_both_ways_are_refused():
    """A method of this kind must not be added without deciding its limits."""

    async def continuation(_):
        return grpc.stream_stream_rpc_method_handler(lambda *_: None)

    details = type("Details", (), {"method": "/sparecode.v1.X/Y"})()
    interceptor = CallInterceptor(
        audience=Audience.ADMINISTRATOR,
        refusals=Refusals(clock=SystemClock(), entropy=SystemEntropy()),
        clock=SystemClock(),
        limits=CallLimits(calls=1),
    )
    with pytest.raises(NotImplementedError, match="streams both ways"):
        await interceptor.intercept_service(continuation, details)


async def content_of(node: LoopbackNode, **fields) -> bytes:
    async with node.admin() as channel:
        answers, failed = await exported(
            channel, pb.ExportAuditEventsRequest(**fields), metadata=node.bearer
        )
    assert failed is None
    return b"".join(answer.content for answer in answers)


async def test_export_contains_all_listed_events(tmp_path: Path):
    """On the real use cases, the export equals the list."""
    async with running_node(tmp_path) as node:
        await node.populate()
        listed = await node.call(
            AuditServiceStub,
            "ListAuditEvents",
            pb.ListAuditEventsRequest(from_sequence=1, page_size=500),
        )
        lines = (await content_of(node)).splitlines()
        rows = (await content_of(node, format=pb.AUDIT_EXPORT_FORMAT_CSV)).splitlines()
    hashes = [event.hash.hex() for event in listed.events]
    assert hashes
    assert [line.decode().split('"hash":"')[1][:64] for line in lines] == hashes
    assert [row.decode().rpartition(",")[2] for row in rows[1:]] == hashes


async def test_answers_say_how_far_the_node_has_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The last page does not, and the token is that of release 0.1: a sequence number."""
    monkeypatch.setattr(audit, "SEARCHED_MAX", 2)
    never = pb.AuditFilter(action="Never")
    async with running_node(tmp_path) as node:
        await node.populate()
        pages, token = [], ""
        while not pages or token:
            pages.append(
                await node.call(
                    AuditServiceStub,
                    "ListAuditEvents",
                    pb.ListAuditEventsRequest(filter=never, page_token=token),
                )
            )
            token = pages[-1].next_page_token
        times = {}
        for page in pages[:-1]:
            (event,) = (
                await node.call(
                    AuditServiceStub,
                    "ListAuditEvents",
                    pb.ListAuditEventsRequest(
                        from_sequence=page.searched_to_sequence, page_size=1
                    ),
                )
            ).events
            times[event.sequence] = event.event_time
        async with node.admin() as channel:
            parts, failed = await exported(
                channel,
                pb.ExportAuditEventsRequest(filter=never),
                metadata=node.bearer,
            )
    assert failed is None
    assert len(pages) > 2
    for page in pages[:-1]:
        assert not page.events
        assert page.searched_to_time == times[page.searched_to_sequence]
        assert page.next_page_token == pages_of.encode(str(page.searched_to_sequence))
    assert pages[-1].searched_to_sequence == 0
    assert not pages[-1].HasField("searched_to_time")
    end = parts[0].end_sequence
    looked = [each.searched_to_sequence for each in parts]
    assert looked == [*range(0, end, 2), end]
    assert {each.last_sequence for each in parts} == {0}
