# SPDX-License-Identifier: Apache-2.0
"""What it takes to ask the primary for something, on whichever node."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import NoPrimaryError
from sparecode_node.replication.replica.engine_thread import EngineThread

ATTEMPT_S = 2.0
"""Of one attempt: then the primary is asked again, or the next one (same id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryContact:
    """A node's way to the primary, which it may be itself. Lives in the loop."""

    node_id: NodeId
    """This node."""
    engine: EngineThread
    primary: Callable[[], NodeId | None]
    """Who leads, as far as it is known here; nobody if this node does not run."""
    channel: Callable[[NodeId], grpc.aio.Channel | None]
    news: Callable[[float], Awaitable[bool]]
    """Waits for a change, or a moment; False if its deadline comes first."""

    def way_to(self, node_id: NodeId) -> grpc.aio.Channel:
        """Return the channel to a node. Raises `NoPrimaryError` if there is none."""
        channel = self.channel(node_id)
        if channel is None:
            raise NoPrimaryError(f"no way to {node_id}")
        return channel
