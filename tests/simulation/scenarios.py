# SPDX-License-Identifier: Apache-2.0
"""The settings of a simulated run, and its trace."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sparecode_node.replication.settings import RaftSettings
from tests.simulation.faults import Profile
from tests.simulation.machines import RecordingStore, Store
from tests.simulation.network import Manners

SHORT_LOG = RaftSettings(log_entries_max=8, log_entries_kept=2, member_stalled_s=1.0)
"""Compacted all the time: a run has some thirty entries."""


@dataclass(frozen=True)
class Scenario:
    """What distinguishes one run from another, besides the seed."""

    nodes: int = 3
    profile: Profile | None = None
    manners: Manners | None = None
    seconds: float = 6.0
    store: Callable[[], Store] = RecordingStore
    raft: RaftSettings = SHORT_LOG


@dataclass
class Trace:
    """The events of a run for a person; recorded only on demand."""

    wanted: bool = False
    lines: list[str] = field(default_factory=list)

    def __call__(self, now: float, seen: str) -> None:
        if self.wanted:
            self.lines.append(f"{now - 1000:8.3f}  {seen}")
