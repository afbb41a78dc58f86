# SPDX-License-Identifier: Apache-2.0
"""The engine's side of the links: what its thread sends through."""

from collections.abc import Callable

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.replica.engine_thread import LoopCalls


class EngineWire:
    """The engine's side of the links: runs in its thread."""

    def __init__(
        self,
        calls: LoopCalls,
        send: Callable[[NodeId, int, peers_pb2.LinkRequest], object],
    ) -> None:
        self._calls = calls
        self._send = send
        self.epochs: dict[str, int] = {}
        """The link to each peer that the engine believes to be up."""

    def send(self, peer: str, message: Message) -> None:
        """Hand a frame to the link that is up, as far as the engine knows."""
        epoch = self.epochs.get(peer)
        if epoch is not None:
            frame = frames.encode(message)
            self._calls.post(lambda: self._send(NodeId(peer), epoch, frame))
