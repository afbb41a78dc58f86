# SPDX-License-Identifier: Apache-2.0
"""
Health (`grpc.health.v1`): whether this node is alive, and ready to serve.

The service `""` means alive: this process answers. `sparecode.ready` follows the
replicator: in contact with a quorum, caught up, journal usable. A node without a quorum
is not ready, but it is alive: a restart would not help.

This replaces grpcio's own servicer, where one watcher that does not read holds a lock
that every later change needs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sparecode_node.rpc.identity import Context

ALIVE = ""
READY = "sparecode.ready"
POLL_S = 0.1

_Answer = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for both service names, on one listener."""

    def __init__(self, is_ready: Callable[[], bool], *, watchers_max: int) -> None:
        """*watchers_max*: at the same time. Each holds one call of the listener forever."""
        self._is_ready = is_ready
        self._watchers_max = watchers_max
        self._watchers = 0
        self._changed = asyncio.Event()
        self._stopping = False
        self._ready = False

    async def run(self) -> None:
        """Follow the replicator until cancelled."""
        while True:
            self._update(ready=self._is_ready())
            await asyncio.sleep(POLL_S)

    def stop(self) -> None:
        """Report "not serving" from now on, and end the calls of the watchers."""
        self._stopping = True
        self._update(ready=False)
        self._wake()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service name."""
        status = self._status(request.service)
        if status == _Answer.SERVICE_UNKNOWN:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"the known services are '{ALIVE}' and '{READY}'",
            )
        return _Answer(status=status)

    async def List(
        self,
        request: health_pb2.HealthListRequest,  # noqa: ARG002  It has no fields.
        context: Context,  # noqa: ARG002
    ) -> health_pb2.HealthListResponse:
        """Return the status of every service name."""
        statuses = {name: _Answer(status=self._status(name)) for name in (ALIVE, READY)}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Stream the status of a service name, at first and after each change."""
        if self._watchers >= self._watchers_max:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are already {self._watchers_max} watchers; use Check",
            )
        self._watchers += 1
        try:
            sent = None
            while True:
                changed = self._changed
                status = self._status(request.service)
                if status != sent:
                    sent = status
                    yield _Answer(status=status)
                    continue  # The status may have changed while this one was sent.
                if self._stopping:
                    return
                await changed.wait()
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> Any:  # noqa: ANN401 - no types for these.
        if service not in (ALIVE, READY):
            return _Answer.SERVICE_UNKNOWN
        serving = not self._stopping and (service == ALIVE or self._ready)
        return _Answer.SERVING if serving else _Answer.NOT_SERVING

    def _update(self, *, ready: bool) -> None:
        if ready != self._ready and not (ready and self._stopping):
            self._ready = ready
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
