# SPDX-License-Identifier: Apache-2.0
"""
Write down in which moments a node was late, asked for votes, and began or ceased to lead.

One line of JSON for each, as `tests.bench.elections` reads them. All nodes of a machine
share the clock. `sitecustomize` imports this before the node begins.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from lateness import before, measure

from sparecode_node.replication.raft.campaign import Campaign
from sparecode_node.replication.raft.stalls import Stalls

NOTE_S = 0.1
"""Shorter waits are not noted."""
THREADS = ("tick_s", "beat_s")
"""The waits that end in a thread which looks again and again: engine and event loop."""


class ThreadTimes:
    """How long one thread ran and waited for a core, by the kernel's account."""

    def __init__(self) -> None:
        """Read the account of the thread that calls, here and later."""
        self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._ran_s = self._waited_s = 0.0

    def since_last(self) -> dict[str, float]:
        """Return both since the last call, in seconds."""
        ran_ns, waited_ns, _ = os.pread(self._file, 100, 0).split()
        ran_s, waited_s = int(ran_ns) / 1e9, int(waited_ns) / 1e9
        times = {"ran_s": ran_s - self._ran_s, "core_s": waited_s - self._waited_s}
        self._ran_s, self._waited_s = ran_s, waited_s
        return times


class Moments:
    """The moments of this node."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._threads: dict[str, ThreadTimes] = {}
        self._leads = False

    def raise_to(self, name: str, value: float) -> None:
        """Note a wait that ends now."""
        times = self._since_last(name) if name in THREADS else {}
        if NOTE_S <= value < float("inf"):
            self.note(name.removesuffix("_s"), seconds=value, **times)

    def _since_last(self, name: str) -> dict[str, float]:
        """Return how long the thread that calls ran and waited for a core."""
        if name not in self._threads:
            self._threads[name] = ThreadTimes()
        return self._threads[name].since_last()

    def looked(self, stalls: Stalls, *_: object, **__: object) -> None:
        """Note whether the node begins or ceases to lead."""
        leads = stalls.engine.is_leader()
        if leads != self._leads:
            self._leads = leads
            self.note("leads" if leads else "follows")

    def note(self, what: str, **values: float) -> None:
        """Write one line."""
        line = {"what": what, "at_s": time.monotonic(), **values}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def write_to(path: Path) -> None:
    """Write into a file from now on."""
    moments = Moments(path)
    measure(moments)
    before(Stalls, "look", moments.looked)
    may_begin = Campaign.may_begin

    def asked(self: Campaign, now: float) -> Any:
        silent_s = now - self.heard_at
        begins = may_begin(self, now)
        if begins:
            moments.note("campaigns", seconds=silent_s)
        return begins

    Campaign.may_begin = asked  # type: ignore[method-assign]
