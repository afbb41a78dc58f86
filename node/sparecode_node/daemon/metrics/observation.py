# SPDX-License-Identifier: Apache-2.0
"""The parts that observe a running node: started and stopped with it."""

import asyncio

from sparecode_node.daemon.metrics.access import OPEN, MetricsAccess
from sparecode_node.daemon.metrics.collector import NodeCollector, Sources
from sparecode_node.daemon.metrics.listener import MetricsListener
from sparecode_node.daemon.metrics.measures import Measures
from sparecode_node.services.load.condition import Condition

BEAT_S = 1.0


class Observation:
    """The census, the heartbeat of the event loop and, optionally, the listener."""

    def __init__(
        self,
        sources: Sources,
        measures: Measures,
        address: tuple[str, int] | None,
        access: MetricsAccess = OPEN,
    ) -> None:
        """*address* is the host and port of the listener; None: no listener."""
        self._condition = sources.condition
        self._census = sources.census
        measures.registry.register(
            NodeCollector(sources, channel_names=access.is_restricted)
        )
        self._listener = None
        if address is not None:
            host, port = address
            self._listener = MetricsListener(
                host=host,
                port=port,
                registry=measures.registry,
                condition=sources.condition,
                access=access,
            )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all parts. Raises `OSError` if the listener cannot be opened."""
        if self._listener is not None:
            self._listener.start()
        self._tasks = [
            asyncio.create_task(_beat(self._condition), name="heartbeat"),
            asyncio.create_task(self._census.run(), name="census"),
        ]

    async def stop(self) -> None:
        """Stop all parts."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            await asyncio.to_thread(self._listener.stop)


async def _beat(condition: Condition) -> None:
    while True:
        condition.beat()
        await asyncio.sleep(BEAT_S)
