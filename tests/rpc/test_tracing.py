# SPDX-License-Identifier: Apache-2.0
"""Traces: what a span contains, and what it must not contain."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sparecode_node.daemon.node import STOP_GRACE_S, STOP_MAX_S
from sparecode_node.daemon.tracing import ENDPOINTS, Tracing, set_up_tracing
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.ended_calls import REQUEST_ID, EndedCall
from sparecode_node.services.error_table import Audience
from sparecode_node.services.errors import InvalidFieldError
from tests.rpc.edge import running_edge
from tests.rpc.test_errors import SECRET, authenticate, create_user

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider)


def traced(tracing, spans, code, *, decision="", metadata=None) -> ReadableSpan:
    ended = EndedCall(
        audience=Audience.AGENT, method="AuthenticationService/Authenticate"
    )
    token = REQUEST_ID.set("6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10")
    try:
        with tracing.call(ended, metadata or {}):
            ended.code, ended.decision = code.name, decision
    finally:
        REQUEST_ID.reset(token)
    (span,) = spans.get_finished_spans()
    return span


def test_span_has_the_fields_of_the_log_line(tracing, spans):
    span = traced(tracing, spans, grpc.StatusCode.OK, decision="ACCEPTED")
    assert span.name == "AuthenticationService/Authenticate"
    assert dict(span.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "sparecode.v1.AuthenticationService",
        "rpc.method": "Authenticate",
        "rpc.grpc.status_code": 0,
        "sparecode.request_id": "6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10",
        "sparecode.decision": "ACCEPTED",
    }
    assert not span.events


def test_call_continues_the_trace_of_its_caller(tracing, spans):
    metadata = {"traceparent": PARENT, "authorization": "Bearer secret"}
    span = traced(tracing, spans, grpc.StatusCode.OK, metadata=metadata)
    assert f"{span.context.trace_id:032x}" in PARENT
    assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.UNAVAILABLE, StatusCode.ERROR),
        (grpc.StatusCode.INTERNAL, StatusCode.ERROR),
        (grpc.StatusCode.PERMISSION_DENIED, StatusCode.UNSET),
        (grpc.StatusCode.FAILED_PRECONDITION, StatusCode.UNSET),
    ],
)
def test_refusal_by_the_rules_is_not_an_error_of_the_span(tracing, spans, code, status):
    span = traced(tracing, spans, code)
    assert span.status.status_code is status
    assert span.attributes["rpc.grpc.status_code"] == code.value[0]


def test_tracing_is_off_unless_configured():
    assert set_up_tracing("n1", "1", AsyncExitStack(), {}) is None


def test_missing_extra_is_named_in_the_log(monkeypatch, caplog):
    """The node still serves."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert set_up_tracing("n1", "1", AsyncExitStack(), environment) is None
    assert "pip install sparecode[node,otel]" in caplog.text


class Collector(TraceServiceServicer):
    """Receives the requests of an OpenTelemetry exporter."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.requests.append(request)
        return ExportTraceServiceResponse()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Run a collector at the endpoint named by the environment."""
    server = grpc.server(ThreadPoolExecutor(1))
    collector = Collector()
    add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv(ENDPOINTS[0], f"http://127.0.0.1:{port}")
    yield collector
    server.stop(grace=None).wait()


def ask(tracing: Tracing | None) -> None:
    """Trace one call."""
    assert tracing is not None
    ended = EndedCall(audience=Audience.AGENT, method="UserService/GetUser")
    with tracing.call(ended, {}):
        ended.code = "OK"


@pytest.mark.asyncio
async def test_spans_reach_the_collector_before_the_node_stops(collector):
    async with AsyncExitStack() as started:
        ask(set_up_tracing("n7", "1.2.3", started))
    (request,) = collector.requests
    (sent,) = request.resource_spans
    attributes = {
        each.key: each.value.string_value for each in sent.resource.attributes
    }
    assert attributes["service.name"] == "sparecode"
    assert attributes["service.version"] == "1.2.3"
    assert attributes["service.instance.id"] == "n7"
    (scope,) = sent.scope_spans
    assert [span.name for span in scope.spans] == ["UserService/GetUser"]


@pytest.mark.asyncio
async def test_missing_collector_does_not_delay_stopping(
    monkeypatch,
):
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:1")
    async with AsyncExitStack() as started:
        ask(set_up_tracing("n1", "1", started))
        began_s = time.monotonic()
        await started.aclose()
    assert time.monotonic() - began_s < STOP_MAX_S - STOP_GRACE_S


@pytest.mark.asyncio
async def test_span_contains_no_content_of_the_call(tracing, spans):
    """No passcode, no session, and no words of the answer."""
    async with running_edge(tracer=tracing) as edge:
        edge.services["authentication"].answer = InvalidFieldError("username", "words")
        edge.services["users"].answer = OutcomeUnknownError()
        await authenticate(edge)
        await create_user(edge)
    refused, unknown = spans.get_finished_spans()
    assert refused.name == "AuthenticationService/Authenticate"
    assert refused.status.status_code is StatusCode.UNSET
    assert unknown.name == "UserService/CreateUser"
    assert unknown.status.status_code is StatusCode.ERROR
    exported = refused.to_json() + unknown.to_json()
    for secret in (SECRET, "s3cret-bearer", "words"):
        assert secret not in exported
