# SPDX-License-Identifier: Apache-2.0
"""The gRPC edge on loopback ports, with real TLS and scripted use cases."""

import contextlib
import dataclasses
import datetime as dt
import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sparecode_node.membership.certificates import Authority, Issued
from sparecode_node.replication.errors import RemovedError
from sparecode_node.rpc.server import Listeners, ListenerSettings
from sparecode_node.rpc.tls import TlsFiles
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.context import CallContext
from sparecode_node.services.ended_calls import Tracer
from sparecode_node.services.errors import HashingOverloadedError
from sparecode_node.services.use_cases import Services
from tests.services.one_node import OneNode

NODE = "n1"
NOW = dt.datetime.now(dt.UTC)
MEMBERS = Authority.create("members", now=NOW)
AGENTS = Authority.create("agents", now=NOW)
STRANGERS = Authority.create("strangers", now=NOW)
MEMBER = MEMBERS.issue_member(NODE, hosts=["127.0.0.1"], now=NOW)
AGENT = AGENTS.issue_agent("vpn", now=NOW)
EXPIRED = AGENTS.issue_agent("vpn", now=NOW - dt.timedelta(days=40), days=30)
STRANGER = STRANGERS.issue_agent("vpn", now=NOW)
BEARER = (("authorization", "Bearer s3cret-bearer"),)


@dataclasses.dataclass(frozen=True)
class RecordedCall:
    """A call of a use case, its arguments named as in the use case's signature."""

    name: str
    context: CallContext
    arguments: dict[str, Any]


class ScriptedUseCase:
    """
    A use case that records its calls and returns a scripted answer.

    It takes exactly the arguments that the *real* use case takes. An answer that is a
    function is called and awaited; an exception is raised.
    """

    full = False
    """Whether no more passcodes can be hashed."""

    def __init__(self, real: type) -> None:
        self._real = real
        self.calls: list[RecordedCall] = []
        self.answer: Any = None

    def check_room(self, _: object = None) -> None:
        """Shed the call if the use case is full."""
        if self.full:
            raise HashingOverloadedError(retry_after_s=0.7)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        real = getattr(self._real, name)
        signature = inspect.signature(real)

        def stream(*positional: Any, **named: Any) -> Any:
            arguments = signature.bind(self, *positional, **named).arguments
            context = arguments.pop("context")
            del arguments["self"]
            self.calls.append(RecordedCall(name, context, dict(arguments)))
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        async def method(*positional: Any, **named: Any) -> Any:
            answer = stream(*positional, **named)
            return await answer() if callable(answer) else answer

        return stream if inspect.isasyncgenfunction(real) else method


@dataclasses.dataclass
class Edge:
    """A running edge."""

    listeners: Listeners
    refusals: Refusals
    services: dict[str, ScriptedUseCase]
    ready: list[bool]
    removed: list[bool]
    client: Issued | None = dataclasses.field(default=None, kw_only=True)
    """The certificate that administrators' clients show."""

    def admin(self, *, ca: Authority = MEMBERS, own: Issued | None = None):
        """Open a channel as an administrator does."""
        return self._channel("admin", ca, own or self.client)

    def agents(self, own: Issued | None = AGENT, *, ca: Authority = MEMBERS):
        """Open a channel as an agent does."""
        return self._channel("agents", ca, own)

    def _channel(self, listener: str, ca: Authority, own: Issued | None):
        credentials = grpc.ssl_channel_credentials(
            ca.pem,
            private_key=own.key if own else None,
            certificate_chain=own.certificate if own else None,
        )
        return grpc.aio.secure_channel(self.address(listener), credentials)

    def address(self, listener: str) -> str:
        """Return the address of a listener."""
        return f"127.0.0.1:{self.listeners.ports[listener]}"


def settings(*, mutual: bool, reflection: bool = False) -> ListenerSettings:
    """Listen on any free port."""
    files = TlsFiles(
        certificate=MEMBER.certificate,
        key=MEMBER.key,
        ca=AGENTS.pem if mutual else None,
    )
    return ListenerSettings(
        address="127.0.0.1:0",
        tls=lambda: files,
        reflection=reflection,
    )


@contextlib.asynccontextmanager
async def admin_port(node: OneNode) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """Open a node's listeners; yield the administrators' address, and a channel to it."""
    listeners = Listeners(
        node_id=NODE,
        agents=settings(mutual=True),
        admin=settings(mutual=False),
        services=node.services,
        refusals=node.refusals,
        is_ready=lambda: True,
        clock=SystemClock(),
    )
    await listeners.start()
    address = f"127.0.0.1:{listeners.ports['admin']}"
    credentials = grpc.ssl_channel_credentials(MEMBERS.pem)
    try:
        async with grpc.aio.secure_channel(address, credentials) as channel:
            yield address, channel
    finally:
        await listeners.stop(grace_s=0)


@contextlib.asynccontextmanager
async def running_edge(
    *, reflection: bool = False, tracer: Tracer | None = None
) -> AsyncIterator[Edge]:
    """Start an edge, and stop it."""
    services = {
        field.name: ScriptedUseCase(field.type)
        for field in dataclasses.fields(Services)
    }
    ready, removed = [False], [False]

    def check_open() -> None:
        if removed[0]:
            raise RemovedError(NODE)

    refusals = Refusals(clock=SystemClock(), entropy=SystemEntropy())
    listeners = Listeners(
        node_id=NODE,
        agents=settings(mutual=True),
        admin=settings(mutual=False, reflection=reflection),
        services=Services(**services),
        refusals=refusals,
        is_ready=lambda: ready[0],
        check_open=check_open,
        clock=SystemClock(),
        tracer=tracer,
    )
    await listeners.start()
    try:
        yield Edge(listeners, refusals, services, ready, removed)
    finally:
        await listeners.stop(grace_s=0)


@dataclasses.dataclass(frozen=True)
class Failure:
    """A status as a client reads it."""

    code: grpc.StatusCode
    words: str
    reason: str = ""
    domain: str = ""
    field: str = ""
    description: str = ""
    retry_s: float | None = None


def failure(error: grpc.aio.AioRpcError) -> Failure:
    """Read a status with its details."""
    results: dict[str, Any] = {}
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            results |= {"reason": info.reason, "domain": info.domain}
        elif detail.Unpack(bad):
            (violation,) = bad.field_violations
            results |= {"field": violation.field, "description": violation.description}
        elif detail.Unpack(retry):
            results["retry_s"] = retry.retry_delay.ToTimedelta().total_seconds()
    return Failure(error.code(), error.details() or "", **results)
