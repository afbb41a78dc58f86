# SPDX-License-Identifier: Apache-2.0
"""
A member that was away for too long fetches a snapshot while the others go on writing.

A run ends with all writes, and then every fetch ends, too. So in some runs the machines
outside of the core stay away until its log is compacted without them. Then they come
back, and everything is in good health, but the others write, so that they would take
the next snapshot before a slow link has carried one.

In some of these runs others go away meanwhile, until no majority is left without the
members that fetch: the primary leads on, and commits nothing.

In a few runs the link is slower still, and the others write until the log reaches the
bound up to which it is kept. Then the fetch is of no use, and nothing is promised to
its member. But no log is kept for it without a bound (`log_lengths.KEPT_MAX`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparecode_node.replication.settings import RaftSettings
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.bandwidth import SLOW_BYTES_S, SLOWEST_BYTES_S

AWAY_RATE = 0.4
"""Of the runs with a core."""

BOUND_S = 25.0
"""A member that comes back has, within this time, what was applied when it came."""

WRITE_RATE = 0.3
"""
In a step. The log becomes longer than its bound before a slow fetch ends, but not than
what is kept for a member (`KEPT_LOG_FACTOR`): beyond that, nothing is promised.
"""

WRITE_S = 0.5
"""A call that takes longer is given up; others have begun by then."""

LONELY_RATE = 0.6
"""Of the runs with machines that come back and no flood: the others go away meanwhile."""

LONELY_S = 8.0
"""Then they come back, whether the fetch has ended or not."""

FLOOD_RATE = 0.1
"""Of the runs with a core and without turns: others write more than is kept."""

FLOOD_LOG = RaftSettings(log_entries_max=8, log_entries_kept=2, member_stalled_s=5.0)
"""So 64 entries are kept for a member: some seconds of writing."""

FLOOD_S = 15.0


@dataclass
class Fetches:
    """Keeps machines away, and lets them come back."""

    world: Any
    dice: random.Random
    lonely: random.Random
    """Dice of their own, for primaries that are left alone with those that fetch."""
    may_flood: bool = False
    """Whether the run has the settings for that, unless another kind of run needs them."""
    _gone: list[Any] = field(default_factory=list)
    """The machines that have gone away while others fetch."""

    def take_away(self, outside: Sequence[str]) -> bool:
        """Let these machines be away, in some runs; return whether they are."""
        if self.dice.random() >= AWAY_RATE and not self._floods():
            return False
        for node_id in outside:
            node = self.world.nodes[node_id]
            self.world.stop(node, power=self.dice.random() < 0.5, cause="away")
            node.restart_at = None
        return True

    def _floods(self) -> bool:
        return bool(self.world.raft == FLOOD_LOG)

    def come_back(self, outside: Sequence[str]) -> None:
        """See that they have in time what they have missed, while the others write."""
        world = self.world
        floods = self._floods()
        is_lonely = not floods and self.lonely.random() < LONELY_RATE
        if is_lonely or floods:
            rate = SLOWEST_BYTES_S if floods else min(SLOW_BYTES_S)
            for pair in ((a, b) for a in outside for b in world.ids if a != b):
                world.bandwidth.make(pair, rate)
        wanted = max((n.store.state.applied_index for n in world.live()), default=0)
        for node_id in outside:
            world.faults.mend(world.nodes[node_id])
            world.nodes[node_id].restart_at = world.now
        world.faults.mend_between(world.ids)
        world.trace(world.now, f"{outside} come back, and lack entries to {wanted}")
        if floods:
            self._flood(outside, wanted)
            return
        begin, before = world.now, world.effects[Effect.SNAPSHOT_INSTALLED]
        while behind := self._behind(outside, wanted):
            if world.now - begin > BOUND_S:
                world.invariants.violated("fetch ends", f"{behind}; {world.describe()}")
                break
            writers = [n for n in world.live() if n.node_id not in outside]
            if writers and self.dice.random() < WRITE_RATE:
                world.probe(self.dice.choice(writers), WRITE_S)
            if is_lonely:
                self._ask_lonely(outside)
                is_lonely = self._is_lonely(outside, begin)
            world.step()
        self._return()
        installed = world.effects[Effect.SNAPSHOT_INSTALLED] - before
        world.effects[Effect.FETCHED_BESIDE_WRITES] += installed

    def _is_lonely(self, outside: Sequence[str], begin: float) -> bool:
        """
        Let others go away during a fetch, until there is no majority without it.

        Those that fetch answer the primary's heartbeats, but add nothing to their logs.
        So the primary leads on and commits nothing: deadlines alone end its calls.
        """
        world, leader = self.world, self.world.leader()
        if world.now - begin > LONELY_S:
            self._return()
            return False
        if self._gone or leader is None or leader.node_id in outside:
            return True
        sources = (world.nodes[i].replicator for i in outside)
        if not all(each and each.replica_status.snapshot_source for each in sources):
            return True
        others = [n for n in world.live() if n.node_id not in outside and n != leader]
        for node in others[: len(outside)]:
            world.stop(node, power=self.lonely.random() < 0.5, cause="away")
            node.restart_at = None
            self._gone.append(node)
        world.effects[Effect.COMMITS_STOPPED] += bool(self._gone)
        return True

    def _ask_lonely(self, outside: Sequence[str]) -> None:
        """Let callers come to all nodes while the others are away."""
        for node in self.world.live() if self._gone else ():
            if self.lonely.random() < WRITE_RATE:
                self.world.read(node, WRITE_S)
            if node.node_id in outside and self.lonely.random() < WRITE_RATE:
                self.world.probe(node, WRITE_S)

    def _return(self) -> None:
        """Let those come back that went away during a fetch."""
        for node in self._gone:
            node.restart_at = self.world.now
        self._gone = []

    def _flood(self, outside: Sequence[str], wanted: int) -> None:
        """Let the others write all the time, and longer than the log is kept."""
        world, begin = self.world, self.world.now
        while self._behind(outside, wanted) and world.now - begin < FLOOD_S:
            for writer in world.live():
                if writer.node_id not in outside:
                    world.probe(writer, WRITE_S)
            world.step()
        given_up = [node.running.engine.retention.given_up for node in world.live()]
        world.effects[Effect.LOG_NOT_KEPT] += sum(given_up)

    def _behind(self, outside: Sequence[str], wanted: int) -> list[str]:
        nodes = [self.world.nodes[node_id] for node_id in outside]
        return [
            node.node_id
            for node in nodes
            if node.replica is None or node.store.state.applied_index < wanted
        ]
