# SPDX-License-Identifier: Apache-2.0
"""
Record the longest waits of a node.

Between two ticks of the engine and two beats of the event loop, of a sync of the journal,
for a message of the primary, and for an entry to be applied: one that changes the policy,
or another one.
`sitecustomize` imports this before the node begins.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

from sparecode_node.daemon.metrics.measures import Measures
from sparecode_node.replication.raft.guard import Guard
from sparecode_node.replication.raft.stalls import Stalls
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.services.state.state_file import _WatchedStateMachine
from sparecode_node.statemachine.commands.policy import UpdatePolicy


class Longest(Protocol):
    """Keeps the longest time of each name."""

    def raise_to(self, name: str, value: float) -> None:
        """Keep the larger value."""


def measure(longest: Longest) -> None:
    """Record in these numbers from now on."""
    now, heard_at = time.monotonic, 0.0  # The engine's clock, too.

    def looked(stalls: Stalls, at: float, **_: object) -> None:
        nonlocal heard_at
        longest.raise_to("tick_s", at - stalls._looked_at)  # At first -inf.
        if stalls.engine.is_leader():
            heard_at = 0.0
        elif heard_at:
            longest.raise_to("silence_s", now() - heard_at)

    def heard(_guard: Guard, *_: object) -> None:
        nonlocal heard_at
        at = now()
        longest.raise_to("silence_s", at - heard_at if heard_at else 0.0)
        heard_at = at

    def beaten(thread: EngineThread, *_: object) -> None:
        at = thread._beaten_at_s
        longest.raise_to("beat_s", now() - at if at else 0.0)

    def synced(_measures: Measures, seconds: float) -> None:
        longest.raise_to("sync_s", seconds)

    before(Stalls, "look", looked)
    before(Guard, "_receive_append", heard)
    before(EngineThread, "_show_life", beaten)
    before(Measures, "synced", synced)
    time_entries(longest)


def before(cls: type, name: str, do: Callable[..., None]) -> None:
    """Call *do* with the arguments of a method before each of its calls."""
    method = getattr(cls, name)

    def watched(self: object, *values: Any, **named: Any) -> Any:
        do(self, *values, **named)
        return method(self, *values, **named)

    setattr(cls, name, watched)


def time_entries(longest: Longest) -> None:
    """Record how long entries take, apart those that change the policy."""
    apply = _WatchedStateMachine.apply

    def timed(self: _WatchedStateMachine, index: int, calls: Any) -> Any:
        began_s, cpu_s = time.monotonic(), time.thread_time()
        results = apply(self, index, calls)
        took_s = time.monotonic() - began_s
        if any(isinstance(each.command, UpdatePolicy) for each in calls):
            longest.raise_to("policy_entry_s", took_s)
            longest.raise_to("policy_cpu_s", time.thread_time() - cpu_s)
            longest.raise_to("policy_at_s", began_s)
        else:
            longest.raise_to("entry_s", took_s)
        return results

    _WatchedStateMachine.apply = timed  # type: ignore[method-assign]
