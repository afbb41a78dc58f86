# SPDX-License-Identifier: Apache-2.0
"""
The handling of every call: deadline, size, errors to statuses, one log line.

The log line names the method, the caller and the outcome. Of a request it contains only
the id, so that no passcode can get into a log.
"""

import asyncio
import logging
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from sparecode_node.domain.caller_addresses import source_of
from sparecode_node.replication.errors import (
    NotAppliedError,
    OverloadedError,
    RemovedError,
)
from sparecode_node.replication.links.decoding import (
    MalformedMessageError,
    OnMalformed,
    decoding,
)
from sparecode_node.replication.links.grpc_server import refuse_unknown_method
from sparecode_node.rpc.calls import agent_caller, peer_address, time_left_s
from sparecode_node.rpc.errors import status_of
from sparecode_node.rpc.identity import (
    Context,
    NoBearerError,
    agent_identity,
    session_caller,
)
from sparecode_node.services.access.authorization import NEEDS
from sparecode_node.services.access.refusals import NOBODY, Refusals
from sparecode_node.services.access.security_log import CALL_REFUSED
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import Anonymous, SessionCaller
from sparecode_node.services.ended_calls import REQUEST_ID, EndedCall, Tracer
from sparecode_node.services.error_table import EXCEPTIONS, Audience, Code, answer_for
from sparecode_node.services.errors import (
    InvalidFieldError,
    NoTimeLeftError,
    UnidentifiedError,
)
from sparecode_node.services.load.open_calls import (
    CallKind,
    CallLimits,
    OpenCalls,
    Opener,
)
from sparecode_node.services.secrets.sealing import session_id

log = logging.getLogger(__name__)

OURS = "/sparecode.v1."
MESSAGE_BYTES_MAX = 64 * 1024
"""The maximum size of a request."""
FILE_MESSAGE_BYTES_MAX = 1024 * 1024 + MESSAGE_BYTES_MAX
"""The maximum size of a request that contains a file."""
WITH_FILES = frozenset({"TokenService/ImportTokenFile", "UserService/ImportUsers"})
"""Methods whose request is one message that contains a file."""

KNOWN_METHODS = frozenset(NEEDS) | {
    "AuthenticationService/Authenticate",
    "AuthenticationService/ContinueAuthentication",
    "SessionService/Login",
    "SessionService/StartBrowserLogin",
    "SessionService/CollectBrowserLogin",
}
UNKNOWN_METHOD = "unknown method"
"""The name under which all other methods are recorded."""

ABSENT: "grpc.RpcMethodHandler[Any, Any]" = grpc.stream_stream_rpc_method_handler(
    cast("Any", None)
)
"""The handler of a known method that a listener does not have."""

_TIME_FLOOR_S = 0.005
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

Request = Message | AsyncIterator[Message]
Behavior = Callable[[Request, Context], Awaitable[Message]]
StreamBehavior = Callable[[Request, Context], AsyncIterator[Message]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of Sparecode. Of health and reflection it checks the messages."""

    def __init__(
        self,
        *,
        audience: Audience,
        refusals: Refusals,
        clock: Clock,
        limits: CallLimits,
        check_open: Callable[[], object] = lambda: None,
        check_room: Mapping[str, Callable[[], object]] | None = None,
        on_ended: Callable[[EndedCall], object] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """
        *limits*: of open calls. Further calls are shed, with a hint when to retry.

        *check_open* raises `RemovedError` if this node answers no calls any more.
        *check_room*: per method, a function that raises `OverloadedError` if the method
        would be shed later. The call is then shed before its request is read.
        """
        self._audience = audience
        self._refusals = refusals
        self._clock = clock
        self._open_calls = OpenCalls(limits)
        self._check_open = check_open
        self._room_for = check_room or {}
        self._on_ended = on_ended or (lambda _: None)
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the wrapped handler of the method."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method.removeprefix(OURS)
        if handler is None or handler is ABSENT:
            name = method if method in KNOWN_METHODS else UNKNOWN_METHOD
            return grpc.stream_stream_rpc_method_handler(self._absent(name))
        if not handler_call_details.method.startswith(OURS):
            return decoding(handler, self._refuse_malformed(method.removeprefix("/")))
        handler = decoding(handler)
        streams = handler.request_streaming or handler.response_streaming
        kind = CallKind(method=method, streams=streams)
        if (shed := self._shed(kind)) is not None:
            return grpc.stream_stream_rpc_method_handler(shed)
        if handler.request_streaming and handler.response_streaming:
            raise NotImplementedError(f"{method} streams both ways")
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._wrap_stream(kind, cast("StreamBehavior", handler.unary_stream)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._wrap(kind, cast("Behavior", handler.stream_unary)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrap(kind, cast("Behavior", handler.unary_unary)),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _absent(self, method: str) -> StreamBehavior:
        """Refuse a method that this listener does not have."""

        async def refuse(_: Request, context: Context) -> AsyncIterator[Message]:
            await self.refuse_unknown(context, method)
            yield Empty()  # Never reached, but it makes this a stream.

        return refuse

    async def refuse_unknown(
        self, context: Context, method: str = UNKNOWN_METHOD
    ) -> None:
        """End a call to a method that this listener does not have."""
        self._turned_away(method, context, "UNIMPLEMENTED")
        self._refusals.record(method, "unimplemented", self._actor(context))
        await refuse_unknown_method(context)

    def _refuse_malformed(self, method: str) -> OnMalformed:
        """Return what ends a call whose message does not decode."""

        async def refuse(context: Context) -> None:
            self._refusals.log.malformed(method, str(context.peer()))
            status = status_of(EXCEPTIONS[MalformedMessageError])
            await context.abort(status.code, status.details, status.trailing_metadata)

        return refuse

    def _shed(self, kind: CallKind) -> StreamBehavior | None:
        """Return a handler that refuses the call before reading its request, or None."""
        try:
            self._check_open()
            self._open_calls.check_room(kind)
            if check := self._room_for.get(kind.method):
                check()
        except (OverloadedError, RemovedError) as error:
            return self._refusing(kind.method, error)
        return None

    def _refusing(self, name: str, error: NotAppliedError) -> StreamBehavior:
        async def refuse(_: Request, context: Context) -> AsyncIterator[Message]:
            ended = EndedCall(audience=self._audience, method=name)
            fields = {"method": name, "caller": self._caller(context)}
            try:
                with self._traced(ended, context):
                    yield await self._fail(error, context, fields, ended)
            finally:
                self._on_ended(ended)

        return refuse

    def _wrap(self, kind: CallKind, behavior: Behavior) -> Behavior:
        async def call(request: Request, context: Context) -> Message:
            began_s = self._clock.monotonic_s()
            ended = EndedCall(audience=self._audience, method=kind.method)
            try:
                with self._traced(ended, context):
                    return await self._answer(kind, behavior, request, context, ended)
            finally:
                ended.seconds = self._clock.monotonic_s() - began_s
                self._on_ended(ended)

        return call

    def _traced(
        self, ended: EndedCall, context: Context
    ) -> AbstractContextManager[None]:
        if self._tracer is None:
            return nullcontext()
        metadata = context.invocation_metadata() or ()
        texts = {key: value for key, value in metadata if isinstance(value, str)}
        return self._tracer.call(ended, texts)

    async def _answer(
        self,
        kind: CallKind,
        behavior: Behavior,
        request: Request,
        context: Context,
        ended: EndedCall,
    ) -> Message:
        """Return the answer, or end the call with a status. Log either one."""
        began_s = self._clock.monotonic_s()
        request_id = _request_id(request)
        REQUEST_ID.set(request_id)
        fields = {
            "method": ended.method,
            "caller": self._caller(context),
            "request_id": request_id,
        }
        try:
            with self._open_calls.one(kind, self._opener(context)):
                response = await _run(
                    behavior, request, context, _bytes_max(kind.method)
                )
        except asyncio.CancelledError:
            ended.code = Code.CANCELLED.name
            log.info("call cancelled by its caller", extra=fields)
            raise
        except Exception as error:  # noqa: BLE001 - Handled below.
            failure = error
        else:
            ended.code, ended.decision = Code.OK.name, _decision(response)
            fields["ms"] = self._elapsed_ms(began_s)
            log.debug("call answered", extra={**fields, "code": "OK"})
            return response
        fields["ms"] = self._elapsed_ms(began_s)
        return await self._fail(failure, context, fields, ended)

    def _wrap_stream(
        self, kind: CallKind, behavior: StreamBehavior
    ) -> Callable[[Request, Context], Awaitable[None]]:
        """Wrap a method that streams its answers, with the same limits."""

        async def write(request: Request, context: Context) -> Message:
            answers = behavior(request, context)
            try:
                async for answer in answers:
                    self._check_open()
                    await context.write(answer)
            finally:
                if isinstance(answers, AsyncGenerator):
                    await answers.aclose()
            return Empty()  # All answers are written; `wrapped` needs a value.

        wrapped = self._wrap(kind, write)

        async def call(request: Request, context: Context) -> None:
            await wrapped(request, context)

        return call

    async def _fail(
        self,
        error: Exception,
        context: Context,
        fields: dict[str, str],
        ended: EndedCall,
    ) -> Message:
        """End the call with the status of *error*. Never returns."""
        answer = answer_for(error, self._audience)
        if answer is None:
            log.error("call failed by a bug", extra=fields, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        else:
            ended.code = answer.code.name
            if isinstance(error, UnidentifiedError | NoBearerError):
                # It reaches no use case, so it has to be recorded here.
                self._refusals.record(
                    fields["method"], answer.reason.lower(), self._actor(context)
                )
            if isinstance(error, MalformedMessageError):
                self._refusals.log.malformed(fields["method"], str(context.peer()))
            else:
                self._refusals.log.refused_call(
                    answer, log, fields, peer=str(context.peer())
                )
            status = status_of(answer)
            await context.abort(status.code, status.details, status.trailing_metadata)
        raise AssertionError("abort has returned")

    def _turned_away(self, method: str, context: Context, reason: str) -> None:
        self._refusals.log.note(
            CALL_REFUSED,
            method=method,
            caller=self._caller(context),
            peer=str(context.peer()),
            reason=reason,
        )

    def _actor(self, context: Context) -> str:
        """Return the caller as its certificate names it."""
        try:
            return f"agent:{agent_identity(context.auth_context())}"
        except UnidentifiedError:
            return NOBODY

    def _caller(self, context: Context) -> str:
        if self._audience is Audience.AGENT:
            try:
                return agent_identity(context.auth_context())
            except UnidentifiedError:
                pass
        return str(context.peer())

    def _opener(self, context: Context) -> Opener:
        """Return whose limits the call counts against."""
        if self._audience is Audience.AGENT:
            return Opener(agent=agent_caller(context).key)
        try:
            caller = session_caller(context)
        except NoBearerError:
            caller = Anonymous()
        return Opener(
            session=session_id(caller.bearer)
            if isinstance(caller, SessionCaller)
            else "",
            address=source_of(peer_address(context)),
        )

    def _elapsed_ms(self, began_s: float) -> str:
        return f"{1000 * (self._clock.monotonic_s() - began_s):.1f}"


def _bytes_max(method: str) -> int:
    """Return the maximum size of a request of the method."""
    return FILE_MESSAGE_BYTES_MAX if method in WITH_FILES else MESSAGE_BYTES_MAX


async def _run(
    behavior: Behavior, request: Request, context: Context, bytes_max: int
) -> Message:
    """Run the method within the caller's deadline."""
    left_s = time_left_s(context)
    if left_s <= _TIME_FLOOR_S:
        raise NoTimeLeftError
    if isinstance(request, Message) and request.ByteSize() > bytes_max:
        raise InvalidFieldError(
            "request", f"{request.ByteSize()} bytes, at most {bytes_max}"
        )
    async with asyncio.timeout(left_s):
        return await behavior(request, context)


def _request_id(request: Request) -> str:
    """Return the request id if it is a UUID. Anything else might be a secret."""
    request_id = getattr(request, "request_id", "")
    return request_id if _UUID.fullmatch(request_id) else ""


def _decision(response: Message) -> str:
    """Return the decision in a response in lower case; empty if it has none."""
    field = response.DESCRIPTOR.fields_by_name.get("decision")
    if field is None or field.enum_type is None:
        return ""
    value = field.enum_type.values_by_number[getattr(response, "decision")]  # noqa: B009
    return value.name.removeprefix("AUTHENTICATION_DECISION_").lower()
