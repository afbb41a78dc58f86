# SPDX-License-Identifier: Apache-2.0
"""Calls for the primary travel together, and each is answered for itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.calls import forward_queue, peer_messages
from sparecode_node.replication.calls.forward_queue import ForwardQueue
from sparecode_node.replication.errors import (
    NoPrimaryError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
)
from sparecode_node.replication.settings import (
    CALL_BYTES_MAX,
    CALLS_BESIDE_MAX,
    CALLS_PER_ENTRY_MAX,
    FORWARD_BYTES_MAX,
)
from sparecode_node.statemachine.results import Applied

pytestmark = pytest.mark.asyncio

Request = peers_pb2.ForwardRequest
Response = peers_pb2.ForwardResponse


class Primary(peers_pb2_grpc.PeerServiceServicer):
    """Answers when it may, with the number that a call consists of."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.status_asked = asyncio.Event()
        self.refuses: grpc.StatusCode | None = None
        self.requests: list[Request] = []
        self.news = asyncio.Event()
        self.answer: Callable[[Request], Response] = self.answered

    async def Forward(
        self, request: Request, context: "grpc.aio.ServicerContext[Request, Response]"
    ) -> Response:
        """Record the request and answer it."""
        self.requests.append(request)
        self.news.set()
        if self.refuses is not None:
            await context.abort(self.refuses, "not a member")
        await self.may_answer.wait()
        return self.answer(request)

    async def GetMemberStatus(self, request: object, context: object) -> None:
        """Never answer."""
        self.status_asked.set()
        await asyncio.Event().wait()

    @staticmethod
    def answered(request: Request) -> Response:
        response, *also = (
            peer_messages.applied(Applied(index=int(each.call[:4])))
            for each in (request, *request.also)
        )
        response.also.extend(also)
        return response


@asynccontextmanager
async def primary() -> AsyncIterator[tuple[Primary, ForwardQueue]]:
    servicer, server = Primary(), grpc.aio.server()
    peers_pb2_grpc.add_PeerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    await channel.channel_ready()
    try:
        yield servicer, ForwardQueue(lambda: channel)
    finally:
        await channel.close()
        await server.stop(0)


async def wait_for_requests(servicer: Primary, messages: int) -> None:
    async with asyncio.timeout(60):
        while len(servicer.requests) < messages:
            servicer.news.clear()
            await servicer.news.wait()


def forwarded(
    queue: ForwardQueue, call: bytes, *, timeout_s: float = 30
) -> "asyncio.Task[object]":
    return asyncio.ensure_future(queue.forward(call, (), timeout_s=timeout_s))


async def under_way(
    servicer: Primary, queue: ForwardQueue
) -> "list[asyncio.Task[object]]":
    """Return as many calls as messages may be under way, each in its own message."""
    calls = []
    for number in range(forward_queue.UNDER_WAY_MAX):
        calls.append(forwarded(queue, b"1"))
        await wait_for_requests(servicer, number + 1)
    return calls


async def test_calls_of_one_turn_go_together_and_each_gets_its_own_answer() -> None:
    async with primary() as (servicer, queue):
        calls = [forwarded(queue, b"%d" % number) for number in range(40)]
        servicer.may_answer.set()
        results = await asyncio.gather(*calls)
    assert results == [Applied(index=number) for number in range(40)]
    assert [1 + len(each.also) for each in servicer.requests] == [40]


async def test_what_waits_goes_together() -> None:
    async with primary() as (servicer, queue):
        calls = await under_way(servicer, queue)
        calls += [forwarded(queue, b"1") for _ in range(20)]
        await asyncio.sleep(0)
        calls += [forwarded(queue, b"1") for _ in range(20)]
        servicer.may_answer.set()
        await asyncio.gather(*calls)
    assert [1 + len(each.also) for each in servicer.requests] == [1, 1, 40]


async def test_calls_wait_for_a_message_that_carries_several() -> None:
    """A message costs two nodes about as much as several calls."""
    async with primary() as (servicer, queue):
        answers = asyncio.Semaphore(0)
        servicer.may_answer.wait = answers.acquire  # type: ignore[assignment]
        first = await under_way(servicer, queue)
        calls = [forwarded(queue, b"1") for _ in range(1 + CALLS_BESIDE_MAX)]
        await asyncio.sleep(0)
        answers.release()
        await wait_for_requests(servicer, 3)
        assert 1 + len(servicer.requests[2].also) > CALLS_BESIDE_MAX
        answers.release()  # The third message is the only one that is left.
        await asyncio.gather(*first)
        waiting = forwarded(queue, b"2")
        await asyncio.sleep(0)
        other = forwarded(ForwardQueue(queue.channel), b"3")
        await wait_for_requests(servicer, 4)
        assert servicer.requests[3].call == b"3"
        for _ in range(3):
            answers.release()
        await asyncio.gather(*calls, waiting, other)
    assert servicer.requests[4].call == b"2"


async def test_a_message_is_bounded_in_calls_and_bytes() -> None:
    async with primary() as (servicer, queue):
        many = [forwarded(queue, b"1") for _ in range(3 * CALLS_PER_ENTRY_MAX)]
        large = [forwarded(queue, b"0" * CALL_BYTES_MAX) for _ in range(24)]
        servicer.may_answer.set()
        await asyncio.gather(*many, *large)
    sizes = [[len(r.call) for r in (each, *each.also)] for each in servicer.requests]
    assert max(map(len, sizes)) == CALLS_PER_ENTRY_MAX
    assert max(map(sum, sizes)) <= FORWARD_BYTES_MAX


async def test_a_full_queue_sheds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it sheds was certainly not applied."""
    monkeypatch.setattr(forward_queue, "WAITING_MAX", 3)
    async with primary() as (servicer, queue):
        calls = await under_way(servicer, queue)
        calls += [forwarded(queue, b"1") for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await queue.forward(b"1", (), timeout_s=60)
        servicer.may_answer.set()
        await asyncio.gather(*calls)


async def test_what_was_not_sent_in_time_was_not_applied() -> None:
    async with primary() as (servicer, queue):
        sent = await under_way(servicer, queue)
        with pytest.raises(OverloadedError):
            await queue.forward(b"1", (), timeout_s=-peer_messages.GRACE_S)
        servicer.may_answer.set()
        await asyncio.gather(*sent)


async def test_what_a_primary_has_not_taken_was_not_applied() -> None:
    """One that knows of no others answers for the first alone."""
    async with primary() as (servicer, queue):
        servicer.answer = lambda request: peer_messages.applied(
            Applied(index=int(request.call))
        )
        calls = [forwarded(queue, b"%d" % number) for number in range(5)]
        servicer.may_answer.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0] == Applied(index=0)
    assert [type(each) for each in results[1:]] == [NoPrimaryError] * 4


async def test_what_a_primary_refuses_to_hear_was_not_applied() -> None:
    """Who calls is looked at before anything is proposed."""
    async with primary() as (servicer, queue):
        for code in (
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.FAILED_PRECONDITION,
        ):
            servicer.refuses = code
            with pytest.raises(NoPrimaryError):
                await queue.forward(b"1", (), timeout_s=60)


async def test_a_lost_message_leaves_all_of_it_in_doubt() -> None:
    async with primary() as (_, queue):
        calls = [forwarded(queue, b"1", timeout_s=1) for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in results] == [OutcomeUnknownError] * 2


async def test_a_closed_channel_leaves_no_caller_waiting() -> None:
    """
    A member moves or is removed, its channel closes, and gRPC cancels the calls.

    The callers need neither wait for their deadlines nor be cancelled.
    """
    async with primary() as (servicer, queue):
        channel = queue.channel()
        assert channel is not None
        calls = await under_way(servicer, queue)
        calls.append(forwarded(queue, b"2"))
        status = asyncio.ensure_future(
            peer_messages.ask_status(channel, NodeId("n1"), digest=False, timeout_s=60)
        )
        await servicer.status_asked.wait()
        await channel.close()
        async with asyncio.timeout(60):
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert not (await status).reachable
    assert [type(each) for each in results[:2]] == [OutcomeUnknownError] * 2
    assert isinstance(results[2], ProposeError)  # It was never sent.


async def test_a_caller_that_gives_up_is_still_cancelled() -> None:
    async with primary() as (servicer, queue):
        channel = queue.channel()
        assert channel is not None
        asking = asyncio.ensure_future(
            peer_messages.ask_status(channel, NodeId("n1"), digest=False, timeout_s=60)
        )
        await servicer.status_asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_without_a_way_nothing_is_sent() -> None:
    queue = ForwardQueue(lambda: None)
    with pytest.raises(NoPrimaryError):
        await queue.forward(b"1", (), timeout_s=60)
