# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with whole nodes, and above all with the links between them."""

import random
from collections.abc import Sequence
from typing import Any, Protocol

from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.nodes.connections import CLIENT, SERVER, Connection, Wires
from tests.simulation.nodes.machines import Machine


class Target(Protocol):
    """The cluster."""

    now: float
    rng: random.Random
    ids: list[str]
    wires: Wires
    nodes: dict[str, Machine]
    trace: Any
    effects: Effects

    def leader(self) -> Machine | None: ...
    def stop(self, node: Machine, *, power: bool, cause: str) -> None: ...


LINK_KINDS = [
    "swallow",
    "one way",
    "late close",
    "damage",
    "length",
    "storm",
    "cut",
    "cut",
    "reset",
]
NODE_KINDS = ["kill", "power", "arm", "pause", "pause", "clock"]


class NodeFaults:
    """Acts once in each step, on some nodes and their links."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.link_kinds: Sequence[str] = LINK_KINDS
        self.node_kinds: Sequence[str] = NODE_KINDS
        rng = target.rng
        self._links = rng.choice([0.0, 0.02, 0.02, 0.08])
        self._nodes = rng.choice([0.0, 0.01, 0.03])
        self._disks = rng.choice([0.0, 0.0, 0.01])
        self._slowness = rng.choice([0.0, 0.0, 0.1])

    def rarely(self) -> None:
        """Let links and nodes fail a few times in a minute only."""
        self._links = min(self._links, 0.01)
        self._nodes = min(self._nodes, 0.005)
        self._slowness = 0.0

    def act(self, ids: Sequence[str], core: Sequence[str] = ()) -> None:
        """Do what the dice say to these nodes, and to no link within the core."""
        target = self._target
        target.wires.slowness = 0.0 if core else self._slowness
        if target.rng.random() < self._links:
            self._disturb_links(ids)
        if target.rng.random() < self._nodes:
            self._disturb_node(target.nodes[target.rng.choice(ids)])
        if target.rng.random() < self._disks:
            self._disturb_disk(target.nodes[target.rng.choice(ids)])
        leader = target.leader()
        if not core and leader and target.rng.random() < 0.005:
            self._kill_and_silence(leader)

    # --- Links

    def _of(self, ids: Sequence[str]) -> list[Connection]:
        return [
            connection
            for connection in self._target.wires.ordered()
            if any(end.node_id in ids for end in connection.ends)
        ]

    def _disturb_links(self, ids: Sequence[str]) -> None:
        target, rng = self._target, self._target.rng
        connections = self._of(ids)
        if not self.link_kinds:
            return
        kind = rng.choice(self.link_kinds)
        target.trace(target.now, f"links of {ids}: {kind}")
        if kind in ("cut", "storm"):
            self._disturb_all(kind, rng.choice(ids), ids)
        if not connections or kind in ("cut", "storm"):
            return
        some = rng.sample(connections, rng.randint(1, len(connections)))
        for connection in some:
            match kind:
                case "swallow":
                    self._swallow(connection, (CLIENT, SERVER))
                case "one way" | "length":
                    self._swallow(connection, (rng.choice((CLIENT, SERVER)),))
                case "late close":
                    target.effects[Effect.CLOSED_LATE] += 1
                    end = rng.choice((CLIENT, SERVER))
                    connection.close(end, late_s=rng.uniform(0.3, 4))
                case "damage":
                    connection.damage_next[rng.choice((CLIENT, SERVER))] = True
                case "reset":
                    target.effects[Effect.CONNECTION_RESET] += 1
                    connection.close(rng.choice((CLIENT, SERVER)))

    def _swallow(self, connection: Connection, ends: Sequence[int]) -> None:
        for end in ends:
            connection.swallowing[end] = True
        both = len(ends) == 2
        effect = Effect.CONNECTION_SILENT if both else Effect.CONNECTION_ONE_WAY
        self._target.effects[effect] += 1
        connection.impair()

    def _disturb_all(self, kind: str, node_id: str, ids: Sequence[str]) -> None:
        """Cut one node off, or end all connections of it and all new ones of *ids*."""
        target, rng = self._target, self._target.rng
        if kind == "storm":
            target.effects[Effect.STORM] += 1
            until = target.now + rng.uniform(0.3, 2)
            target.wires.storms.update(dict.fromkeys(ids, until))
            for connection in self._of([node_id]):
                connection.close(SERVER)
            return
        others = [i for i in target.ids if i != node_id]
        some = rng.sample(others, rng.randint(1, len(others)))
        pairs = {(node_id, o) for o in some} | {(o, node_id) for o in some}
        effect = Effect.PARTITION
        if rng.random() < 0.4:
            pairs = {pair for pair in pairs if pair[0] == node_id}
            effect = Effect.PARTITION_ONE_WAY
        target.wires.cut(pairs, seconds=rng.uniform(0.3, 3), effect=effect)

    def silence(self, ids: Sequence[str]) -> None:
        """Let all connections among these nodes die without a word."""
        self._target.trace(self._target.now, f"the links of {ids} die silently")
        for connection in self._target.wires.ordered():
            if all(end.node_id in ids for end in connection.ends):
                self._swallow(connection, (CLIENT, SERVER))

    # --- Nodes

    def _kill_and_silence(self, leader: Machine) -> None:
        """Kill the primary, and let the links of the others die at the same moment."""
        target = self._target
        self.silence([i for i in target.ids if i != leader.node_id])
        target.stop(leader, power=target.rng.random() < 0.5, cause="killed, links dead")

    def _disturb_node(self, node: Machine) -> None:
        target, rng = self._target, self._target.rng
        if not node.is_up():
            return
        if not self.node_kinds:
            return
        match rng.choice(self.node_kinds):
            case "kill":
                target.stop(node, power=False, cause="killed")
            case "power":
                target.stop(node, power=True, cause="no power")
            case "arm":
                node.disk.fuse = rng.randint(0, 12)
            case "pause":
                seconds = rng.choice([0.1, 0.7, rng.uniform(0.2, 3)])
                target.effects[Effect.PAUSE] += 1
                target.trace(target.now, f"{node.node_id} pauses for {seconds:.2f} s")
                node.pause(target.now + seconds)
            case "stall":
                seconds = rng.choice([0.3, 1.5, rng.uniform(0.5, 8)])
                target.effects[Effect.STALL] += 1
                target.trace(target.now, f"{node.node_id} stalls for {seconds:.2f} s")
                node.stall(target.now + seconds)
            case "clock":
                clock_s = rng.choice([-3600.0, -3.0, 3.0, 60.0, 86400.0])
                target.effects[Effect.CLOCK_JUMP] += clock_s != node.clock_s
                node.set_clock(clock_s)

    def _disturb_disk(self, node: Machine) -> None:
        target, rng = self._target, self._target.rng
        match rng.choice(["fail", "full", "slow", "slow"]):
            case "fail":
                node.disk.fail()
            case "full":
                node.disk.fill()
                target.wires.timeline.after(
                    rng.uniform(0.1, 2), lambda: setattr(node.disk, "full", False)
                )
            case "slow":
                target.effects[Effect.DISK_SLOW] += 1
                node.disk.sync_s = rng.uniform(0.1, 0.6)
                target.wires.timeline.after(
                    rng.uniform(0.2, 3),
                    lambda: setattr(node.disk, "sync_s", node.speed.sync_s),
                )

    # --- The end of faults

    def mend(self, node: Machine) -> None:
        """End the faults of one machine."""
        node.disk.fuse = None
        node.disk.failing = node.disk.full = False
        node.disk.sync_s = min(node.speed.sync_s, 0.01)
        node.pause(0.0)
        node.stall(0.0)
        node.set_clock(0.0)
        if node.restart_at is not None:
            node.restart_at = self._target.now

    def mend_between(self, ids: Sequence[str]) -> None:
        """End partitions among these machines; dead connections stay dead."""
        wires = self._target.wires
        wires.slowness = 0.0
        for node_id in ids:
            wires.storms.pop(node_id, None)
        wires.mend({(a, b) for a in ids for b in ids if a != b})
