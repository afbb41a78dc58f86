# SPDX-License-Identifier: Apache-2.0
"""Callers that send a byte now and then keep no probe off the metrics port (Q3)."""

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from sparecode_node.daemon.metrics import listener as metrics
from sparecode_node.daemon.metrics.listener import MetricsListener
from tests.security.test_metrics_are_read_by_monitoring_alone import Ready

REQUEST_S = 0.5
PATIENCE_S = 60


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(metrics, "REQUEST_S", REQUEST_S)
    listener = MetricsListener(
        host="127.0.0.1",
        port=0,
        registry=CollectorRegistry(),
        condition=Ready(),  # type: ignore[arg-type]
    )
    listener.start()
    try:
        yield listener.port
    finally:
        listener.stop()


def trickled_s(port: int, beginning: bytes) -> float:
    """Send a byte every now and then; return the seconds until the node closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as caller:
        start = time.monotonic()
        caller.sendall(beginning)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < PATIENCE_S:
                with contextlib.suppress(TimeoutError):
                    if not caller.recv(1):
                        break
                caller.sendall(b"x")
        return time.monotonic() - start


@pytest.mark.parametrize(
    "beginning", [b"", b"GET /metrics HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: b\r\nC: "]
)
def test_a_slow_request_is_cut_off(port: int, beginning: bytes) -> None:
    assert trickled_s(port, beginning) < PATIENCE_S


def test_an_address_leaves_places_for_the_others(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes from elsewhere are answered while one address holds all that it may."""
    monkeypatch.setattr(metrics, "ADDRESS_CONNECTIONS_MAX", 3)
    monkeypatch.setattr(metrics, "REQUEST_S", PATIENCE_S)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            )
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as beyond:
            assert beyond.recv(1) == b""
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=elsewhere, timeout=PATIENCE_S) as prober:
            assert prober.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
