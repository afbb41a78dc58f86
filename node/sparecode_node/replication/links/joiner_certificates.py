# SPDX-License-Identifier: Apache-2.0
"""How nodes that are about to join get in: on the peers listener, and no further."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import grpc.aio

from sparecode_node.replication.links.tls import PeerTls


class Entrance(Protocol):
    """How nodes that are no members yet talk to this one; nothing of Raft."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service that they may call."""

    def doors(self) -> bytes:
        """
        Return the certificates that they show (PEM); each opens for itself alone.

        Called at every handshake, in threads of gRPC. Must not raise.
        """


class ListenerCertificates:
    """
    What the peers listener shows and accepts, with those that are about to join.

    Returns the same object for as long as nothing has changed.
    """

    def __init__(
        self, current: Callable[[], PeerTls], doors: Callable[[], bytes]
    ) -> None:
        self._current = current
        self._doors = doors
        self._lock = threading.Lock()
        self._known: tuple[PeerTls, bytes] | None = None
        self._shown: PeerTls | None = None

    def __call__(self) -> PeerTls:
        """Return that, as of now."""
        current, doors = self._current(), self._doors()
        with self._lock:
            if self._shown is None or self._known != (current, doors):
                self._known = current, doors
                self._shown = replace(current, ca=current.ca + doors)
            return self._shown
