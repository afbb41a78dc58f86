# SPDX-License-Identifier: Apache-2.0
"""
Snapshots in turns: in good health, no majority of the members writes one at a time.

A disk that takes a snapshot is busy, and so is its machine. If all took theirs as soon
as their logs were long, all would be slow at the same moment, for the logs grow alike.
So in some runs, when everything has healed, callers go on writing, and each member must
take its snapshots while most others take none.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from sparecode_node.replication.settings import RaftSettings
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants

RATE = 0.2
"""Of the runs."""

LOG = RaftSettings(log_entries_max=96, log_entries_kept=24, member_stalled_s=5.0)
"""A member's part of the log is then six entries: it begins in the first three."""

WRITE_EACH_S = 0.3
WRITE_S = 2.0
SNAPSHOT_S = 0.3
"""So a snapshot that is begun in time ends before the next part begins."""

ROUNDS = 2
"""Snapshots of each member: the first one may be late, for there were faults before."""
MOST_S = 90.0
"""Each member has taken them by then. Most runs need 30 to 55 s."""


@dataclass(frozen=True)
class Writing:
    """A snapshot that a member writes."""

    node_id: str
    begin: float
    end: float


@dataclass
class Turns:
    """Watches who writes snapshots."""

    world: Any
    is_drawn: bool
    writings: list[Writing] = field(default_factory=list)
    """Since everything is in good health."""
    _watches: bool = False

    @classmethod
    def drawn(cls, world: Any, dice: random.Random) -> "Turns":
        """Draw whether a run is one of these."""
        return cls(world, dice.random() < RATE)

    def wrote(self, node_id: str, begin: float, seconds: float) -> None:
        """Record that a member writes a snapshot from *begin* on."""
        if self._watches:
            self.writings.append(Writing(node_id, begin, begin + seconds))

    def watch(self) -> None:
        """Let callers write until each member has taken snapshots; judge when it did."""
        world = self.world
        members = world.memberships.belonging()
        for node_id in members:
            node = world.nodes[node_id]
            size = len(node.store.serialize())
            node.speed = replace(node.speed, bytes_s=size / SNAPSHOT_S)
        self._watches, end, next_at = True, world.now + MOST_S, world.now
        while world.now < end and not self._have_all(members):
            if world.now >= next_at:
                next_at += WRITE_EACH_S
                # Removed nodes run on, and refuse calls.
                up = [each for each in world.live() if each.node_id in members]
                world.probe(world.rng.choice(up), WRITE_S)
            world.step()
        self._watches = False
        check_taken(world.invariants, self._counts(members), world.now)
        first = {each.node_id: each for each in reversed(self.writings)}.values()
        later = [each for each in self.writings if each not in first]
        check_turns(world.invariants, later, len(members))

    def _have_all(self, members: list[str]) -> bool:
        return all(count >= ROUNDS for count in self._counts(members).values())

    def _counts(self, members: list[str]) -> dict[str, int]:
        """Return how many snapshots each member has taken since it is watched."""
        written = [each.node_id for each in self.writings]
        return {node_id: written.count(node_id) for node_id in members}


def check_taken(invariants: Invariants, counts: dict[str, int], now: float) -> None:
    """See that each member has taken snapshots in the time that callers wrote."""
    few = {node_id: count for node_id, count in counts.items() if count < ROUNDS}
    if few:
        seen = f"after {MOST_S:g} s, at {now:.2f}: {few}"
        invariants.violated("snapshots are taken", seen)


def check_turns(invariants: Invariants, writings: list[Writing], members: int) -> None:
    """See that at no time a majority of the members writes a snapshot."""
    for each in writings:
        at_once = {
            other.node_id for other in writings if other.begin <= each.begin < other.end
        }
        invariants.comparisons[Comparison.TURN] += 1
        if 2 * len(at_once) > members:
            seen = f"{sorted(at_once)} of {members} members at {each.begin:.2f}"
            invariants.violated("snapshots in turns", seen)
