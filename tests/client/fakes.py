# SPDX-License-Identifier: Apache-2.0
"""Fake nodes in this process, which answer as a test tells them to."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

# Registers every service in the default pool.
from sparecode.v1 import (  # noqa: F401
    administrators_pb2,
    agents_pb2,
    audit_pb2,
    authentication_pb2,
    cluster_pb2,
    emergency_access_pb2,
    policy_pb2,
    sessions_pb2,
    tokens_pb2,
    users_pb2,
)

PACKAGE = "sparecode.v1"


@dataclass(frozen=True)
class Failure:
    """A status other than OK, as a node's `rpc/errors.py` sends it."""

    code: grpc.StatusCode
    reason: str = ""
    words: str = ""
    field: str = ""
    retry_after_s: float | None = None

    def status(self) -> Any:
        details: list[Message] = []
        if self.reason:
            details.append(
                error_details_pb2.ErrorInfo(reason=self.reason, domain="sparecode")
            )
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.words
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration(
                seconds=int(self.retry_after_s),
                nanos=int(self.retry_after_s % 1 * 1e9),
            )
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        return rpc_status.to_status(
            status_pb2.Status(
                code=self.code.value[0], message=self.words, details=packed
            )
        )


Streamed = tuple[list[Message], Failure | None]
"""The answers of a stream, and its end: a failure, or None."""
Answer = Message | Failure | Streamed | Callable[[Any], "Message | Failure"]

NO_QUORUM = Failure(
    grpc.StatusCode.UNAVAILABLE, "NO_QUORUM", "no quorum in contact", retry_after_s=0.2
)
NO_QUORUM_FOR_LONG = replace(NO_QUORUM, retry_after_s=60)
"""Longer than the timeout of any client here, so that the client gives up at once."""
OUTCOME_UNKNOWN = Failure(
    grpc.StatusCode.UNAVAILABLE,
    "OUTCOME_UNKNOWN",
    "the primary was lost after proposing",
    retry_after_s=0.2,
)


@dataclass
class Call:
    """One request that a node received."""

    method: str
    request: Any
    metadata: dict[str, str]
    time_remaining_s: float


@dataclass
class FakeNode:
    """A node that sends its answers in order, repeats the last one, and records requests."""

    calls: list[Call] = field(default_factory=list)
    checks: int = 0
    """How often a client has asked whether the node lives."""

    def __post_init__(self) -> None:
        self._answers: dict[str, list[Answer]] = {}
        self._silent = threading.Event()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=8),
            handlers=[_Handlers(self)],
            # Two servers never share a port unseen.
            options=[("grpc.so_reuseport", 0)],
        )
        self.address = ""

    def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._silent.set()
        self._server.stop(grace=None).wait()

    def answer(self, method: str, *answers: Answer) -> None:
        """Set the answers to `Service/Method`."""
        self._answers[method] = list(answers)

    def never_answer(self, method: str) -> None:
        """Accept requests to `Service/Method`, and never answer."""

        def wait(request: Any) -> Failure:
            self._silent.wait()
            return Failure(grpc.StatusCode.CANCELLED)

        self.answer(method, wait)

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.calls if call.method == method]

    def handle(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = {str(k): str(v) for k, v in context.invocation_metadata()}
        self.calls.append(Call(method, request, metadata, context.time_remaining()))
        answers = self._answers[method]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Failure):
            context.abort_with_status(answer.status())
        return answer


class _Handlers(grpc.GenericRpcHandler):
    """Handlers for every method of the API."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        service, _, name = handler_call_details.method.lstrip("/").partition("/")
        if service == "grpc.health.v1.Health":

            def alive(_request: bytes, _context: Any) -> bytes:
                self._node.checks += 1
                return b""

            return grpc.unary_unary_rpc_method_handler(alive)
        method = (
            descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        )
        called = f"{service.removeprefix(PACKAGE + '.')}/{name}"
        codecs = {
            "request_deserializer": message_factory.GetMessageClass(
                method.input_type
            ).FromString,
            "response_serializer": lambda answer: answer.SerializeToString(),
        }
        if method.server_streaming:

            def tell(request: Any, context: Any) -> Iterator[Any]:
                pieces, end = self._node.handle(called, request, context)
                yield from pieces
                if end is not None:
                    context.abort_with_status(end.status())

            return grpc.unary_stream_rpc_method_handler(tell, **codecs)
        if method.client_streaming:

            def gather(requests: Iterator[Any], context: Any) -> Any:
                return self._node.handle(called, list(requests), context)

            return grpc.stream_unary_rpc_method_handler(gather, **codecs)

        def handle(request: Any, context: Any) -> Any:
            return self._node.handle(called, request, context)

        return grpc.unary_unary_rpc_method_handler(handle, **codecs)
