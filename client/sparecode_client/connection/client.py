# SPDX-License-Identifier: Apache-2.0
"""
Calls to a cluster, whose nodes act as one.

Any node answers any call. A call goes to the node that answered last. If that node does
not answer, the call goes to the next one with the same request id, until the caller's
deadline. So a retry is never applied twice (Q1-Q3), and the caller learns whether the
request was applied, was not applied, or perhaps was (A7).
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Self, TypeVar

import grpc
import tenacity

from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.audit_pb2_grpc import AuditServiceStub
from sparecode.v1.authentication_pb2_grpc import AuthenticationServiceStub
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode.v1.moves_pb2_grpc import MoveServiceStub
from sparecode.v1.notices_pb2_grpc import NoticeServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from sparecode_client.connection import liveness
from sparecode_client.connection.attempts import Attempts, Deadline, NoAnswerError
from sparecode_client.connection.channels import Connect, TlsConnect
from sparecode_client.connection.statuses import read_status
from sparecode_client.errors import (
    NotPermitted,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)

Q = TypeVar("Q")
A = TypeVar("A")

DEFAULT_TIMEOUT = timedelta(seconds=10)
TRY_TIMEOUT_S = 2.5
"""Timeout of one try if there are other nodes: a paused node never answers."""

Sleep = Callable[[float], Awaitable[None]]
Confirm = Callable[[], Awaitable[None]]
REAUTHENTICATION_NEEDED = "REAUTHENTICATION_NEEDED"


def new_request_id() -> str:
    """Return the id for a new request. Never use an id for two requests."""
    return str(uuid.uuid4())


class Stubs:
    """The stubs of all services on one node."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.administrators = AdministratorServiceStub(channel)
        self.agents = AgentServiceStub(channel)
        self.moves = MoveServiceStub(channel)
        self.notices = NoticeServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self.authentication = AuthenticationServiceStub(channel)
        self.cluster = ClusterServiceStub(channel)
        self.emergency_access = EmergencyAccessServiceStub(channel)
        self.policy = PolicyServiceStub(channel)
        self.sessions = SessionServiceStub(channel)
        self.tokens = TokenServiceStub(channel)
        self.users = UserServiceStub(channel)


RETIRE_S = 30.0
"""How long calls may continue on a channel with an old certificate."""


class Node:
    """One node: its address, and a channel that is opened on first use."""

    def __init__(self, address: str, connect: Connect) -> None:
        self.address = address
        self._version = 0
        self._retiring: set[asyncio.Task[None]] = set()
        self._connect = connect
        self._channel: grpc.aio.Channel | None = None
        self._stubs: Stubs | None = None
        self._check: asyncio.Task[None] | None = None

    def open(self) -> Stubs:
        """Return the node's stubs. They belong to the event loop that calls this first."""
        version = (
            self._connect.version() if isinstance(self._connect, TlsConnect) else 0
        )
        if version != self._version:
            self._retire()
            self._version = version
        if self._channel is None or self._stubs is None:
            self._channel = self._connect(self.address)
            self._stubs = Stubs(self._channel)
        return self._stubs

    async def connection_failure(self) -> grpc.aio.AioRpcError | None:
        """
        Wait until the connection is made or has failed; return why it failed.

        gRPC gives the reason only to a call. So a health check asks for it: a request
        that perhaps goes out after all would leave its caller in doubt.
        """
        self.open()
        assert self._channel is not None  # noqa: S101  For the type checker.
        channel = self._channel
        while True:
            state = channel.get_state(try_to_connect=True)
            match state:
                case grpc.ChannelConnectivity.READY:
                    return None
                case (
                    grpc.ChannelConnectivity.TRANSIENT_FAILURE
                    | grpc.ChannelConnectivity.SHUTDOWN
                ):
                    return await liveness.failure(channel)
            await channel.wait_for_state_change(state)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Check the connection again and again while a call is unanswered."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look_later() -> None:
            nonlocal timer
            timer = loop.call_later(liveness.QUIET_S, look)

        def look() -> None:
            if self._check is None or self._check.done():
                self._check = loop.create_task(self._replace_if_dead())
            look_later()

        look_later()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    async def _replace_if_dead(self) -> None:
        """
        Replace a connection that carries nothing any more.

        Calls in progress on it end at once, because none can be answered.
        """
        channel = self._channel
        if channel is None:
            return
        other = await liveness.successor(channel, lambda: self._connect(self.address))
        if other is None:
            return
        if self._channel is not channel:  # It has been replaced or closed meanwhile.
            await other.close()
            return
        self._channel, self._stubs = other, Stubs(other)
        await channel.close()

    def _retire(self) -> None:
        """Make new calls use a new channel. Calls in progress end on the old one."""
        if self._channel is not None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._channel.close(RETIRE_S))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._channel = self._stubs = None

    async def close(self) -> None:
        """Close the channel, if it was opened."""
        for task in self._retiring:
            task.cancel()
        if self._check is not None:
            self._check.cancel()
            await asyncio.gather(self._check, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._stubs = None


class Client:
    """Calls the nodes of a cluster until one answers or the deadline passes."""

    def __init__(
        self,
        nodes: Sequence[str],
        connect: Connect,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        try_timeout_s: float = TRY_TIMEOUT_S,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._nodes = [Node(address, connect) for address in nodes]
        self._first = 0
        self._timeout = timeout
        self._try_timeout_s = try_timeout_s
        self._sleep = sleep
        self._backoff = tenacity.wait_random_exponential(multiplier=0.1, max=1)
        self.removed: set[str] = set()
        """Addresses of nodes that have said that they were removed from the cluster."""
        self.session = ""
        """Sent with every call as `authorization: Bearer`, unless empty."""
        self.device_cookie = ""
        """That of the last sign-in or change of password; sent with the next sign-in."""
        self.confirm: Confirm | None = None
        """Called when a call needs a reauthentication; the call is then sent again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every channel."""
        for node in self._nodes:
            await node.close()

    def deadline(self, within: timedelta | None) -> Deadline:
        """Return the deadline of a call that starts now."""
        return Deadline.after(self._timeout if within is None else within)

    async def unary(
        self,
        method: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Q, A]],
        request: Q,
        *,
        within: timedelta | None = None,
        patient: bool = False,
    ) -> A:
        """
        Send *request* until a node answers; *patient*: give each node the whole time.

        Raises:
            SparecodeError: See its subclasses for what may be assumed.
        """

        async def send(node: Node, timeout_s: float) -> A:
            call = method(node.open())
            return await call(request, timeout=timeout_s, metadata=self._metadata())

        request_id = getattr(request, "request_id", "")
        return await self._confirmed(
            lambda: self._call(send, request_id, within, patient=patient)
        )

    async def stream_out(
        self,
        method: Callable[[Stubs], grpc.aio.UnaryStreamMultiCallable[Q, A]],
        request: Callable[[], Q],
        take: Callable[[A], bool],
        *,
        request_id: str = "",
        within: timedelta | None = None,
    ) -> None:
        """
        Pass every answer of a stream to *take*, until a node has sent all of them.

        *take* returns whether the answer was progress. If a node breaks off, *request*
        is called again for what is still missing, and the next node gets the result.
        The request must change nothing, or must carry *request_id* so that it is not
        applied twice. *within* limits the time without progress.

        Raises:
            SparecodeError: See its subclasses for what may be assumed.
        """
        further = True

        async def send(node: Node, timeout_s: float) -> None:
            nonlocal further
            call = method(node.open())
            answers = call(request(), timeout=timeout_s, metadata=self._metadata())
            async for answer in answers:
                further |= take(answer)

        while further:
            further = False
            try:
                await self._confirmed(
                    lambda: self._call(send, request_id, within, patient=True)
                )
            except (OutcomeUnknown, Overloaded, Unavailable):
                if not further:
                    raise
            else:
                return

    async def _confirmed(self, call: Callable[[], Awaitable[A]]) -> A:
        """Return the result of a call, sent again if it needed a reauthentication."""
        try:
            return await call()
        except NotPermitted as error:
            if error.reason != REAUTHENTICATION_NEEDED or self.confirm is None:
                raise
        await self.confirm()
        return await call()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if not self.session:
            return ()
        return (("authorization", f"Bearer {self.session}"),)

    async def _call(
        self,
        send: Callable[[Node, float], Awaitable[A]],
        request_id: str,
        within: timedelta | None,
        *,
        patient: bool,
    ) -> A:
        attempts = Attempts(
            addresses=[node.address for node in self._nodes],
            first=self._first,
            request_id=request_id,
            deadline=self.deadline(within),
            try_timeout_s=None if patient else self._try_timeout_s,
            backoff=self._backoff,
        )

        async def once() -> A:
            attempt = attempts.begin()
            node = self._nodes[attempt.position]
            try:
                async with asyncio.timeout(attempt.deadline.remaining_s()):
                    unconnected = await node.connection_failure()
            except TimeoutError:
                raise attempts.record_no_connection(attempt) from None
            if unconnected is not None:
                raise attempts.record_no_connection(
                    attempt, read_status(unconnected)
                ) from unconnected
            try:
                with node.watched():
                    answer = await send(node, attempt.deadline.remaining_s())
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling() > 0:
                    raise
                # gRPC raises it, too, for a call whose connection was replaced.
                raise attempts.record_dead_connection(attempt) from None
            except grpc.aio.AioRpcError as error:
                status = read_status(error)
                failure = attempts.record_failure(attempt, status)
                if not isinstance(failure, NoAnswerError):
                    self._first = attempt.position
                raise failure from error
            self._first = attempt.position
            return answer

        try:
            return await tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(NoAnswerError),
                wait=attempts.wait_s,
                stop=attempts.is_over,
                sleep=self._sleep,
                reraise=True,
            )(once)
        except NoAnswerError as last:
            raise attempts.error(last) from last.__cause__
        finally:
            self.removed |= attempts.removed


class Caller:
    """Base of the classes that call through a `Client`."""

    _client: Client

    @classmethod
    def over(cls, client: Client) -> Self:
        """Return a caller that uses *client*."""
        caller = object.__new__(cls)
        caller._client = client
        return caller

    @property
    def removed_nodes(self) -> frozenset[str]:
        """
        Addresses of nodes that have said that they were removed from the cluster.

        They answer no call any more: take them off the list of nodes.
        """
        return frozenset(self._client.removed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
