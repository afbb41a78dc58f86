# SPDX-License-Identifier: Apache-2.0
"""A node's way to the primary."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.calls.quorum_wait import QuorumWait
from sparecode_node.replication.errors import NoPrimaryError
from sparecode_node.replication.replica.engine_thread import EngineThread

ATTEMPT_S = 2.0
"""
Of one attempt. Then the same request goes to the primary again, or to the next one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryContact:
    """A node's way to the primary, which may be the node itself. Lives in the loop."""

    node_id: NodeId
    """This node."""
    engine: EngineThread
    primary: Callable[[], NodeId | None]
    """Returns the known primary; None also while this node does not run."""
    channel: Callable[[NodeId], grpc.aio.Channel | None]
    news: Callable[[float], Awaitable[bool]]
    """Waits for a change, or a moment; returns False if the deadline comes first."""
    quorum_wait: QuorumWait
    """Ends the wait of callers for a quorum that this node has lost."""

    def way_to(self, node_id: NodeId) -> grpc.aio.Channel:
        """Return the channel to a node. Raises `NoPrimaryError` if there is none."""
        channel = self.channel(node_id)
        if channel is None:
            raise NoPrimaryError(f"no channel to {node_id}")
        return channel
