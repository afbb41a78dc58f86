# SPDX-License-Identifier: Apache-2.0
"""
Long runs of whole nodes, each with a mix of its own: faults, timings, bounds, releases.

Each seed draws which faults there are and how often, how many callers come at once,
which queues and windows are small, whether keys are rotated, and which nodes begin with
a release that knows an older feature level. So rare pairs of faults meet. In every
fourth seed the log has more than two thousand entries before it is compacted: there each
call is an entry, and few things go wrong.
"""

import contextlib
import functools
import random
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sparecode_node.replication.errors import (
    ClockError,
    NoPrimaryError,
    NoQuorumError,
    OlderMemberError,
    OutcomeUnknownError,
    OverloadedError,
    RemovedError,
)
from sparecode_node.replication.raft import proposals
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.feature_level import raise_feature_level
from sparecode_node.statemachine.feature_level import NEWEST
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.machines import Node
from tests.simulation.nodes import queue_bounds
from tests.simulation.nodes.cluster import CALL_S, MEMBERS_RATE, STEP_S, NodesCluster
from tests.simulation.nodes.machines import Machine
from tests.simulation.nodes.mistakes import Mistakes
from tests.simulation.nodes.new_clusters import NewCluster
from tests.simulation.people import FOUNDING, beginning, enrollment
from tests.simulation.rotations import END_S, RATES, EngineClock, Rotations
from tests.simulation.work import machine_store

OLDEST = 1
"""The feature level of the oldest release that may take part."""

ENROLL_RATE = 0.05
"""In runs with older members: how often an administrator enrolls a token, per step."""

ROTATING = 0.4
"""Of the runs in which no cluster is lost: those in which keys are rotated."""

BY_BYTES = 0.3
"""Of the other runs than the long ones: those in which the bytes of a log are counted."""
ENTRY_BYTES = 400
"""For each entry of the bound: the bytes of a log are full about when its entries would be."""
LOG_BYTES_MIN = 16 * 1024

LONG_EACH = 4
"""One seed of this many has a log of thousands of entries."""
LONG = 2000
"""More entries than this are many."""
LONG_S = 60.0
LONG_ENTRIES = 2600
"""Committed by then, callers come as in other runs."""
LONG_LOG_ENTRIES = 2600
"""A longer log is compacted; some nodes begin earlier than others."""
LONG_CROWD = 24
"""Callers that wait at once until there are enough entries."""

TOLD: tuple[tuple[type[Exception], Effect], ...] = (
    (OutcomeUnknownError, Effect.TOLD_UNKNOWN),
    (NoPrimaryError, Effect.TOLD_NO_PRIMARY),
    (NoQuorumError, Effect.TOLD_NO_QUORUM),
    (ClockError, Effect.TOLD_CLOCK),
    (OlderMemberError, Effect.TOLD_OLDER_MEMBER),
    (OverloadedError, Effect.TOLD_OVERLOADED),
    (RemovedError, Effect.TOLD_REMOVED),
)
"""What callers hear instead of a result."""


def check_level(invariants: Invariants, level: int, older: Collection[str]) -> None:
    """See that no member runs a release that does not know the cluster's level."""
    invariants.comparisons[Comparison.RAISED] += 1
    if older:
        seen = f"the cluster is at level {level}, and {sorted(older)} know {OLDEST}"
        invariants.violated("members know the level", seen)


@dataclass(frozen=True)
class Mix:
    """What a seed is about."""

    seconds: float
    log_entries: int
    crowd: int
    """Callers that come at once, sometimes."""
    crowd_rate: float
    members: float
    upgrades: bool
    """Some nodes begin with the older release."""
    bounds: bool
    """Queues and windows are small."""
    link_kinds: frozenset[str]
    node_kinds: frozenset[str]
    is_long: bool = False
    """It goes on until the log has had thousands of entries, or the time is over."""

    @classmethod
    def of_seed(cls, seed: int, nodes: int) -> "Mix":
        """Return the mix of a seed: every fourth one has a long log."""
        mix = cls.drawn(random.Random(f"{seed} {nodes} mix"))
        if seed % LONG_EACH:
            return mix
        return replace(
            mix,
            is_long=True,
            seconds=LONG_S,
            log_entries=LONG_LOG_ENTRIES,
            crowd=0,
            members=0.0,
            bounds=False,
        )

    @classmethod
    def drawn(cls, dice: random.Random) -> "Mix":
        """Draw one without a long log."""

        def some(*kinds: str) -> frozenset[str]:
            return frozenset(kind for kind in kinds if dice.random() < 0.6)

        return cls(
            seconds=dice.choice([10.0, 20.0, 40.0]),
            log_entries=dice.choice([24, 200, 2000]),
            crowd=dice.choice([0, 100, 200]),
            crowd_rate=dice.choice([0.02, 0.05]),
            members=dice.choice([0.0, MEMBERS_RATE / 3]),
            upgrades=dice.random() < 0.5,
            bounds=dice.random() < 0.6,
            link_kinds=some(
                "swallow", "one way", "late close", "damage", "storm", "cut", "reset"
            ),
            node_kinds=some("kill", "power", "arm", "pause", "clock"),
        )


def log_bounds(mix: Mix, dice: random.Random) -> RaftSettings:
    """Return how long the log may be: of a few runs, its bytes are counted instead."""
    bounds = RaftSettings(member_stalled_s=5.0)
    most = mix.log_entries
    if mix.is_long or dice.random() >= BY_BYTES:
        return replace(bounds, log_entries_max=most, log_entries_kept=most // 4)
    size = max(LOG_BYTES_MIN, most * ENTRY_BYTES)
    return replace(bounds, log_bytes_max=size, log_bytes_kept=size // 4)


class MixedCluster(NodesCluster):
    """A long run with the mix of its seed."""

    def __init__(self, seed: int, nodes: int = 3, mix: Mix | None = None) -> None:
        """*mix*: instead of a drawn one."""
        mix = mix or Mix.of_seed(seed, nodes)
        self.mix = mix
        super().__init__(seed, nodes)
        self.faulty_s = mix.seconds
        self.turns.is_drawn = False  # The log has another length.
        self.raft = log_bounds(mix, random.Random(f"{seed} {nodes} log bytes"))
        # Another operator asks meanwhile: a change of members waits behind another one.
        self.memberships.rate = mix.members * (3 if mix.bounds else 1)
        self.memberships.repeats = 2 if mix.bounds else 0
        self.faults.link_kinds = sorted(mix.link_kinds)
        stalls = random.Random(f"{seed} {nodes} stalls").choice([[], ["stall"]])
        self.faults.node_kinds = [*sorted(mix.node_kinds), *stalls]
        dice = random.Random(f"{seed} {nodes} new cluster")
        self.new_cluster = NewCluster.drawn(self, dice)
        self.rotations: Rotations | None = None
        keys = random.Random(f"{seed} {nodes} keys")
        if self.new_cluster is None and keys.random() < ROTATING:
            self.rotations = Rotations(self, keys, keys.choice(RATES))
        self.highest_index = 0
        """The newest entry that a node has applied."""
        self.longest_log = 0
        """The most entries that a node had in its log at one moment."""
        self._level = 0
        self.begun_at = 0
        """The entry from which on a state has the users of the run."""
        if mix.is_long:
            self._hasten()
        self._older = (
            set(self.ids[: self.rng.randint(1, nodes)]) if mix.upgrades else set()
        )

    def _hasten(self) -> None:
        """Let no machine be slow, and few things go wrong: else entries are too few."""
        for node in self.nodes.values():
            node.speed = replace(
                node.speed,
                sync_s=min(node.speed.sync_s, 0.002),
                apply_s=min(node.speed.apply_s, 0.001),
            )
            node.disk.sync_s = node.speed.sync_s
        self.faults.rarely()

    def close(self) -> None:
        super().close()
        if self.new_cluster and self.new_cluster.mistakes:
            self.new_cluster.mistakes.close()

    @contextlib.contextmanager
    def world(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            if self.rotations:
                stack.enter_context(self.rotations.at_work())
            if self.mix.bounds:
                queue_bounds.shrink(patch)
            if self.mix.is_long:
                # Else a crowd's calls share few entries.
                patch.setattr(proposals, "CALLS_PER_ENTRY_MAX", 1)
            queue_bounds.count_all(patch, self.wires.count)
            with super().world():
                yield

    def beginnings(self) -> list[Callable[[Node], list[Submission]]]:
        """Found the cluster as its older release does; each call waits for its turn."""
        steps = super().beginnings()
        if not self.mix.upgrades:
            return steps
        founding = replace(FOUNDING, feature_level=OLDEST)

        def ask(k: int, node: Node) -> list[Submission]:
            command = beginning(machine_store(node).state.feature_level)[k]
            return [self._admin(node, command, f"beginning{k}", "open.first")]

        singly = [functools.partial(ask, k) for k in range(len(beginning()))]
        return [
            lambda node: [self._admin(node, founding, "founding")],
            lambda node: [self._sign_in(node, "open.first")],
            *singly,
            *steps[2:],
        ]

    def _set_up(self) -> None:
        """Upgrade one node after the other meanwhile."""
        for node_id in sorted(self._older):
            late = self.rng.uniform(0.5, max(6.0, self.mix.seconds / 2))
            self.timeline.after(late, lambda node_id=node_id: self._upgrade(node_id))
        super()._set_up()
        self.begun_at = max(n.store.state.applied_index for n in self.live())

    def _upgrade(self, node_id: str) -> None:
        self.effects[Effect.UPGRADED] += 1
        self._older.discard(node_id)
        self.stop(self.nodes[node_id], power=False, cause="upgraded")

    def boot(self, node: Machine) -> None:
        """Start a node with the release that it has."""
        node.software_level = OLDEST if node.node_id in self._older else NEWEST
        super().boot(node)

    def step(self) -> None:
        super().step()
        if self.new_cluster:
            self.new_cluster.look()
        if self.rotations:
            self.rotations.look()
        self._measure()
        self._judge_level()
        for node in self.live():
            if node.raising_in != node.life and node.replicator is not None:
                node.raising_in = node.life
                if node.software_level < NEWEST:
                    continue  # Its release knows no level to raise to.
                node.spawn(raise_feature_level(node.replicator, SystemEntropy()))

    def _measure(self) -> None:
        """Look how long logs are, and at which level the cluster is."""
        live = self.live()
        level = max((n.store.state.feature_level for n in live), default=0)
        if self.mix.upgrades and self.begun_at and self._level < level:
            self.effects[Effect.LEVEL_RAISED] += 1
        self._level = max(self._level, level)
        index = max((n.store.state.applied_index for n in live), default=0)
        length = max((len(n.journal) for n in live), default=0)
        self.effects[Effect.LONG_RUN] += self.highest_index <= LONG < index
        self.effects[Effect.LONG_LOG] += self.longest_log <= LONG < length
        self.highest_index = max(self.highest_index, index)
        self.longest_log = max(self.longest_log, length)

    def _judge_level(self) -> None:
        if self.mix.upgrades and self._level > OLDEST:
            older = self._older.intersection(self.memberships.belonging())
            check_level(self.invariants, self._level, older)

    def callers(self) -> None:
        super().callers()
        if self.rotations:
            self.rotations.act()
        if self.new_cluster:
            self.new_cluster.act()
        up = [n for n in self.live() if not n.is_paused()]
        if up and self.mix.upgrades and self.rng.random() < ENROLL_RATE:
            # In words that older members do not know.
            command = enrollment(self._name("spare"))
            self._admin(self.rng.choice(up), command, command.serial, "open.first")
        if self.mix.is_long and self.highest_index < LONG_ENTRIES:
            self._fill_the_log(up)
        if up and self.mix.crowd and self.rng.random() < self.mix.crowd_rate:
            self.effects[Effect.CROWD] += 1
            node = self.rng.choice(up)
            for _ in range(self.mix.crowd):
                self.ask_something(node)
                if self.rng.random() < 0.3:
                    self.read(node)

    def _fill_the_log(self, up: list[Machine]) -> None:
        """Let callers come as fast as they are answered, if there is a primary."""
        leading = [node for node in up if node.leads]
        newest = self.invariants.submissions[-2 * LONG_CROWD :]
        waiting = sum(not (each.outcomes or each.node_died) for each in newest)
        for _ in range(LONG_CROWD - waiting if leading else 0):
            self.ask_something(self.rng.choice([*leading, *leading, *up]))

    def _before_healing(self) -> None:
        """Lose the cluster, in some runs, and begin another one."""
        if self.new_cluster:
            self.new_cluster.begin()

    def told(self, outcome: Any) -> None:
        for kind, effect in TOLD:
            self.effects[effect] += isinstance(outcome, kind)

    def _check(self) -> None:
        if self.rotations:
            self._end_rotations(self.rotations)
        super()._check()
        if self.mix.upgrades:
            for node in self.live():
                level = node.running.status().feature_level
                if level != NEWEST and node.node_id in self.memberships.belonging():
                    self.invariants.violated(
                        "progress", f"{node.node_id} is at level {level}"
                    )

    # --- Rotations of keys

    def _end_rotations(self, rotations: Rotations) -> None:
        """Let each key be retired that is due; nothing is sealed with it then."""
        end = self.now + END_S
        while self.now < end:
            belonging = [self.nodes[i] for i in self.memberships.belonging()]
            if all(map(rotations.all_retired, belonging)):
                break
            self.step()
        for _ in range(round(CALL_S / STEP_S)):
            self.step()
        belonging = [self.nodes[i] for i in self.memberships.belonging()]
        rotations.check(belonging)
        self.effects[Effect.KEY_RETIRED] += max(map(rotations.retired_on, belonging))

    def spawn_on(self, node: Machine, work: Coroutine[Any, Any, None]) -> None:
        """Run background work in the process of a node."""
        node.spawn(work)

    def replicator_of(self, node: Machine) -> Any:
        return node.replicator

    def clock_of(self, node: Machine) -> EngineClock:
        return EngineClock(node, node.loop.time)


def lost_cluster(seed: int, nodes: int = 3) -> MixedCluster:
    """Return a short run whose cluster is lost in any case, and begins again."""
    dice = random.Random(f"{seed} {nodes} lost")
    mix = replace(Mix.drawn(dice), seconds=4.0, crowd=0, upgrades=False)
    sim = MixedCluster(seed, nodes, mix)
    sim.rotations = None
    sim.new_cluster = NewCluster(sim, dice, dice.choice(["recover", "restore"]))
    if sim.new_cluster.cause == "recover":
        # Dice of their own: the other runs stay what they were.
        mistakes = random.Random(f"{seed} {nodes} mistakes")
        sim.new_cluster.mistakes = Mistakes.drawn(sim, mistakes)
    return sim
