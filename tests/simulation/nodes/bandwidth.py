# SPDX-License-Identifier: Apache-2.0
"""
How many bytes a second the links between machines carry.

Most links are fast. On a slow one a snapshot takes seconds. As in HTTP/2, the calls of
one connection take turns, a frame each: a ping waits for a frame of a snapshot, not for
the whole chunk.
"""

import collections
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.nodes.loops import Timeline

FAST_BYTES_S = 50e6
SLOW_BYTES_S = 150e3, 300e3, 600e3
SLOWEST_BYTES_S = 50e3
"""A snapshot takes a quarter of a minute. A heartbeat may wait for a frame of it."""
FRAME_BYTES = 16 * 1024
MESSAGE_BYTES = 64
"""Of a message, beside what it says."""


@dataclass(slots=True)
class _Message:
    left: int
    since: float
    sent: Callable[[], object]


class Line:
    """One direction of a slow connection."""

    def __init__(
        self, timeline: Timeline, bytes_s: float, waited: Callable[[float], object]
    ) -> None:
        """Send nothing yet; *waited* is told how many seconds each message took."""
        self._timeline = timeline
        self._bytes_s = bytes_s
        self._waited = waited
        self._calls: dict[int, collections.deque[_Message]] = {}
        """What is left to be sent, in the order of the calls' turns."""
        self._is_busy = False

    def send(self, call: int, size: int, sent: Callable[[], object]) -> None:
        """Send a message after the earlier ones of the same call."""
        message = _Message(size, self._timeline.now, sent)
        self._calls.setdefault(call, collections.deque()).append(message)
        if not self._is_busy:
            self._send_frame()

    def drop(self) -> None:
        """Forget what is not sent yet: the connection ends."""
        self._calls.clear()

    def _send_frame(self) -> None:
        self._is_busy = bool(self._calls)
        if not self._calls:
            return
        call, messages = next(iter(self._calls.items()))
        size = min(messages[0].left, FRAME_BYTES)
        messages[0].left -= size
        self._timeline.after(size / self._bytes_s, lambda: self._is_sent(call))

    def _is_sent(self, call: int) -> None:
        messages = self._calls.pop(call, None)
        if messages:  # Otherwise it was dropped meanwhile.
            done = messages[0].left <= 0
            message = messages.popleft() if done else None
            if messages:
                self._calls[call] = messages
            if message:
                self._waited(self._timeline.now - message.since)
                message.sent()
        self._send_frame()


class Bandwidth:
    """The rates of the links of a run, drawn by dice of its own."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._slow_share = dice.choice([0.0, 0.3, 0.6])
        self._links: dict[frozenset[str], float] = {}

    def make(self, pair: tuple[str, str], bytes_s: float) -> None:
        """Let each new connection between two machines have this rate."""
        self._links[frozenset(pair)] = bytes_s

    def of(self, pair: tuple[str, str]) -> float:
        """Return the bytes a second between two machines, in each direction."""
        link = frozenset(pair)
        if link not in self._links:
            slow = self._dice.random() < self._slow_share
            bytes_s = self._dice.choice(SLOW_BYTES_S)
            self._links[link] = bytes_s if slow else FAST_BYTES_S
        return self._links[link]
