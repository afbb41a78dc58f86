# SPDX-License-Identifier: Apache-2.0
"""Disks that go back in time: a machine is copied, and later returns as its copy."""

import random
from dataclasses import dataclass, field
from typing import Any, Protocol

from sparecode_node.replication.log.boots import Boot, Seen
from sparecode_node.replication.raft.rollback import Hello
from tests.simulation.disk import Disk
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.heard_promises import seen_in_file
from tests.simulation.machines import Node, Store
from tests.simulation.memberships import Memberships

COPY_RATE = 0.02
BACK_RATE = 0.01


@dataclass(frozen=True)
class Copy:
    """A machine at one moment, as a snapshot of a virtual machine keeps it."""

    disk: Disk
    store: Store
    hello: Hello
    """The most that it would show when it starts again."""
    voters: frozenset[str] = frozenset()
    """By its journal."""


class World(Protocol):
    """The cluster."""

    nodes: dict[str, Node]
    effects: Effects
    memberships: Memberships

    def live(self) -> list[Node]: ...
    def put_back(self, node: Node, copy: Any) -> None: ...


def copy_of(node: Node) -> Copy:
    """Copy a machine that runs."""
    shown = node.hello()
    newest = shown.boots[-1]
    boots = (*shown.boots, Boot(newest.number + 1, "copy", shown.position))
    hello = Hello(shown.journal_id, shown.address, boots, shown.position)
    voters = frozenset(node.journal.configuration.voters)
    return Copy(node.disk.copy(), node.store.copy(), hello, voters)


@dataclass
class DiskCopies:
    """
    Copies machines, and puts one of them back at a time.

    A machine that was put back runs on when it is removed. A later copy of another one that
    still counts it as a voter is not put back: the two may be a majority of the voters that
    both know, as if they had gone back together, and nothing on their disks shows it.
    """

    world: World
    rng: random.Random
    copy_rate: float = COPY_RATE
    back_rate: float = BACK_RATE
    _copies: dict[str, Copy] = field(default_factory=dict)
    _put_back_ids: set[str] = field(default_factory=set)

    def act(self) -> None:
        """Do what the dice say."""
        if self.rng.random() < self.copy_rate:
            running = self.world.live()
            if running:
                node = self.rng.choice(running)
                if node.node_id not in self._copies:
                    self._copies[node.node_id] = copy_of(node)
        if self.rng.random() < self.back_rate and self._copies:
            self._put_back(self.rng.choice(sorted(self._copies)))

    def close(self) -> None:
        """Close the copies that were not put back."""
        for each in self._copies.values():
            each.store.close()

    def _put_back(self, node_id: str) -> None:
        """Put a copy back that is so old that every other voter's disk knows of it."""
        members, nodes = self.world.memberships, self.world.nodes
        voters = members.configuration.voters
        others = [nodes[voter] for voter in voters - {node_id}]
        if node_id not in voters or not members.can_lose_one():
            return
        copy, live = self._copies[node_id], self.world.live()
        if copy.voters & self._put_back_ids - {node_id}:
            return
        if not all(other in live for other in others):
            return
        known_everywhere = {o.journal.configuration.voters for o in others}
        if len(known_everywhere) > 1:
            return
        if not all(knows_better(other, node_id, copy.hello) for other in others):
            return
        # The first election needs every voter, and the one that is put back is refused.
        if not all(other.journal.configuration.is_named for other in others):
            return
        for other in others:  # The kernel has had the time.
            other.disk.names["raft.boots"].write_back()
        del self._copies[node_id]
        members.wiped.add(node_id)
        self._put_back_ids.add(node_id)
        self.world.effects[Effect.DISK_BACK] += 1
        self.world.put_back(nodes[node_id], copy)


def knows_better(node: Node, peer: str, hello: Hello) -> bool:
    """Return whether the disk of a node knows of promises that one with *hello* has lost."""
    seen = seen_in_file(node, peer)
    return (
        seen is not None
        and seen.journal_id == hello.journal_id
        and _is_older(seen, hello)
    )


def _is_older(seen: Seen, hello: Hello) -> bool:
    """
    Judge a copy by a rule of the simulation's own.

    The product's rule may be the one that a planted bug has changed.
    """
    starts = {boot.number: boot for boot in hello.boots}
    start, next_start = starts.get(seen.number), starts.get(seen.number + 1)
    if start is None:
        return seen.number > max(starts)
    ended = hello.position if next_start is None else next_start.began
    return start.nonce != seen.nonce or ended < seen.promised
