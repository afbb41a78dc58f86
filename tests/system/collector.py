# SPDX-License-Identifier: Apache-2.0
"""A collector that keeps the traces of nodes as they arrive."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]  # Generated, without types.
    """A collector of OpenTelemetry that looks at nothing."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[bytes] = []

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Keep some spans, and whatever metadata came along."""
        for key, value in context.invocation_metadata():
            self.requests.append(f"{key}: {value}".encode())
        self.requests.append(request.SerializeToString())
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen on this computer."""
    collector = Collector()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
        port = server.add_insecure_port("127.0.0.1:0")
        collector.endpoint = f"http://127.0.0.1:{port}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(grace=None).wait()
