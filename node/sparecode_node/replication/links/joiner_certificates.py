# SPDX-License-Identifier: Apache-2.0
"""Certificates of nodes that are about to join: valid on the members' listener only."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import grpc.aio

from sparecode_node.replication.links.tls import PeerTls


class JoinerService(Protocol):
    """Serves nodes that are about to join. Takes no part in Raft."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service that they may call."""

    def certificates_pem(self) -> bytes:
        """
        Return the certificates that joiners show (PEM).

        Each is trusted only as itself and cannot sign others.
        Called at every handshake, in threads of gRPC. Must not raise.
        """


class ListenerCertificates:
    """
    What the members' listener shows and accepts, including joiners' certificates.

    Returns the same object as long as nothing has changed.
    """

    def __init__(
        self, current: Callable[[], PeerTls], joiners_pem: Callable[[], bytes]
    ) -> None:
        self._current = current
        self._joiners_pem = joiners_pem
        self._lock = threading.Lock()
        self._known: tuple[PeerTls, bytes] | None = None
        self._shown: PeerTls | None = None

    def __call__(self) -> PeerTls:
        """Return the current certificates."""
        current, joiners_pem = self._current(), self._joiners_pem()
        with self._lock:
            if self._shown is None or self._known != (current, joiners_pem):
                self._known = current, joiners_pem
                self._shown = replace(current, ca=current.ca + joiners_pem)
            return self._shown
