# SPDX-License-Identifier: Apache-2.0
"""
Traces of calls with OpenTelemetry, which the extra `otel` installs.

Tracing is on if the environment names an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`; the
other variables of the OpenTelemetry specification apply too). Otherwise no tracing
code is imported. A span has the contents of a log line: method, request id, status
and decision. It has nothing else from a request, and no text from an answer.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import grpc

from sparecode_node.services.ended_calls import REQUEST_ID, EndedCall

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

SEND_S = 3
"""Time limit for sending a batch of spans, also when the node stops."""

FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"}
)
"""Statuses that are the node's fault, by OpenTelemetry's conventions."""


class Tracing:
    """Creates a span for every call."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._tracer = provider.get_tracer("sparecode")

    @contextlib.contextmanager
    def call(self, ended: EndedCall, metadata: Mapping[str, str]) -> Iterator[None]:
        """Trace a call; when it ends, *ended* has its result."""
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        service, _, method = ended.method.rpartition("/")
        span = self._tracer.start_span(
            ended.method,
            context=TraceContextTextMapPropagator().extract(metadata),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": f"sparecode.v1.{service}",
                "rpc.method": method,
            },
        )
        try:
            yield
        finally:
            status = grpc.StatusCode[ended.code]
            span.set_attribute("rpc.grpc.status_code", status.value[0])
            if request_id := REQUEST_ID.get():
                span.set_attribute("sparecode.request_id", request_id)
            if ended.decision:
                span.set_attribute("sparecode.decision", ended.decision)
            if ended.code in FAULTS:
                span.set_status(StatusCode.ERROR)
            span.end()


def set_up_tracing(
    node_id: str,
    version: str,
    cleanup: contextlib.AsyncExitStack,
    environment: Mapping[str, str] = os.environ,
) -> Tracing | None:
    """
    Return the tracing of calls, or None if the environment names no endpoint.

    *cleanup* gets a callback that sends the remaining spans at the end.
    """
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        log.warning(
            "tracing is off, because the extra otel is not installed: pip install "
            "sparecode[node,otel]",
            extra={"cause": str(error)},
        )
        return None
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": "sparecode",
                "service.version": version,
                "service.instance.id": node_id,
            }
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=SEND_S)))
    log.info("tracing")
    cleanup.push_async_callback(asyncio.to_thread, provider.shutdown)
    return Tracing(provider)
