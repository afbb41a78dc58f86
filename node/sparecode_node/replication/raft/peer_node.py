# SPDX-License-Identifier: Apache-2.0
"""Other members, as PySyncObj knows them, and the way to them."""

import zlib
from typing import Protocol

from pysyncobj.node import Node

from sparecode_node.replication.raft.frames import Message


class Wire(Protocol):
    """Carries messages between members, in order, each at most once."""

    def send(self, peer: str, message: Message) -> None:
        """Send without waiting; a message that cannot be sent is dropped with its link."""


class PeerNode(Node):
    """Another node, with a hash that is the same in every process: runs repeat."""

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())

    __eq__ = Node.__eq__
