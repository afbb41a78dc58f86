# SPDX-License-Identifier: Apache-2.0
"""Small messages and windows, in half of the runs each: the logs of runs are short."""

import contextlib
import random
from collections.abc import Iterator
from unittest import mock

from sparecode_node.replication.raft import sender
from tests.simulation.network import Network

SMALL_BYTES = 1
"""As the most of an append: then it has one entry."""
SMALL_WINDOW = 3
"""Of entries on the way to a follower."""
MANY_REPEATS = 0.3
"""How often a message arrives twice, in some of the runs in which any does."""


class MessageSizes:
    """The most that a leader of a run sends at once, and how often it arrives twice."""

    def __init__(self, rng: random.Random, network: Network) -> None:
        self.append_bytes = rng.choice([sender.APPEND_BYTES_MAX, SMALL_BYTES])
        self.window = rng.choice([sender.WINDOW_ENTRIES, SMALL_WINDOW])
        network.repeats = rng.choice([0.02, 0.02, MANY_REPEATS])

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Let leaders send no more than that."""
        with (
            mock.patch.object(sender, "APPEND_BYTES_MAX", self.append_bytes),
            mock.patch.object(sender, "WINDOW_ENTRIES", self.window),
        ):
            yield
