# SPDX-License-Identifier: Apache-2.0
"""Packets of each RADIUS client by verdict, since the start of this node."""

import collections
import threading
from collections.abc import Mapping

from sparecode_node.queries.views import PacketCount, RadiusActivityView

UNKNOWN = ""
"""Stands for packets from addresses of no client."""
UNREADABLE = "unreadable"
"""An unsigned request whose password is not readable is rejected."""
ANSWERED = ("accepted", "rejected", "challenged", "status", "rate_limited", UNREADABLE)
DROPPED = (
    "malformed",
    "other_code",
    "wrong_secret",
    "no_message_authenticator",
    "proxy_state",
    "unknown_client",
    "level",
    "duplicate",
    "overloaded",
    "unavailable",
    "denied",
)
VERDICTS = (*ANSWERED, *DROPPED)


class PacketCounts:
    """Counts packets. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packets: collections.Counter[tuple[str, str]] = collections.Counter()
        self._last_ms: dict[str, int] = {}
        self._registered: frozenset[str] = frozenset()

    def count(self, client: str, verdict: str, now_ms: int) -> None:
        """Count a packet of a client by its name; `UNKNOWN`: of no client."""
        with self._lock:
            self._packets[client, verdict] += 1
            self._last_ms[client] = now_ms

    def packets(self) -> Mapping[tuple[str, str], int]:
        """Return the number of packets by client and verdict, for root on this machine."""
        with self._lock:
            return dict(self._packets)

    def published(self) -> Mapping[tuple[str, str], int]:
        """
        Return the number of packets by client and verdict, for the metrics.

        Strangers may read these, and must not learn which octets of a changed packet
        are readable (D2). So an unreadable password counts as a wrong one.
        """
        published: collections.Counter[tuple[str, str]] = collections.Counter()
        for (client, verdict), number in self.packets().items():
            word = "rejected" if verdict == UNREADABLE else verdict
            published[client, word] += number
        return published

    def of(self, client: str) -> RadiusActivityView:
        """Return the packets of one client."""
        with self._lock:
            return RadiusActivityView(
                last_packet_ms=self._last_ms.get(client),
                packets=tuple(
                    PacketCount(verdict=verdict, count=number)
                    for verdict in VERDICTS
                    if (number := self._packets[client, verdict])
                ),
            )

    def keep(self, clients: frozenset[str]) -> None:
        """Forget RADIUS clients that are no longer registered."""
        with self._lock:
            for name in self._registered - clients:
                self._last_ms.pop(name, None)
                for verdict in VERDICTS:
                    self._packets.pop((name, verdict), None)
            self._registered = clients
