# SPDX-License-Identifier: Apache-2.0
"""
What people do wrong before they recover a lost cluster, while its majority is gone (E2).

They start the lost machines again on empty disks. Or a storage array puts the lost
machines back together to what they were before. The machines of a majority then meet
each other, and accept each other. Nothing may come of it: no answer, no leader, and no
change of the logs of the survivors. Afterwards an operator does what the runbook says.

Machines that are put back meet a survivor from the start. If they were among themselves,
nothing on their disks would show that time has gone back, and they would go on until a
survivor tells them. So docs/runbooks/restored-machine.md says what is to be started last.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from sparecode_node.replication.log import boots
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import Journal, open_journal
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.snapshots.installation import finish_install
from sparecode_node.replication.snapshots.recovery_checks import open_snapshots
from tests.simulation.fault_effects import Effect
from tests.simulation.invariants import Invariants, Read, Submission
from tests.simulation.nodes.machines import Machine
from tests.simulation.rollbacks import Copy, copy_of, knows_better

if TYPE_CHECKING:
    from tests.simulation.nodes.mixed import MixedCluster

COPY_RATE = 0.2
"""Of the copy of all machines at one moment, in a step."""
STEP_S = 0.05
HALF_S = 4.0
"""Of the time that passes until someone notices."""
STARTED_S = 10.0


class Mistake(Enum):
    """Where the lost machines are started."""

    EMPTY = "on empty disks"
    BACK = "as older copies"


class Fenced(Protocol):
    """A machine that was put back."""

    node_id: str

    @property
    def running(self) -> Any: ...


@dataclass
class Mistakes:
    """One mistake with the lost machines, or none."""

    world: "MixedCluster"
    rng: random.Random
    kind: Mistake | None
    _copies: dict[str, Copy] = field(default_factory=dict)
    _copied: frozenset[str] = frozenset()
    """The voters when the copies were made."""

    @classmethod
    def drawn(cls, world: "MixedCluster", rng: random.Random) -> "Mistakes":
        """Return that of a run."""
        return cls(
            world, rng, rng.choice([None, Mistake.EMPTY, Mistake.BACK, Mistake.BACK])
        )

    # --- While the old cluster works

    def act(self) -> None:
        """Copy all voters at one moment, once, as a storage array does."""
        if (
            self.kind is not Mistake.BACK
            or self._copies
            or self.rng.random() >= COPY_RATE
        ):
            return
        voters = self.world.memberships.configuration.voters
        live = {node.node_id: node for node in self.world.live()}
        known = {node.journal.configuration.voters for node in live.values()}
        if voters and voters <= live.keys() and known == {voters}:
            self._copied = voters
            self._copies = {each: copy_of(live[each]) for each in sorted(voters)}

    def before_the_loss(self) -> None:
        """Let the kernels write what members have seen of each other: they had the time."""
        for node in self.world.live() if self.kind is Mistake.BACK else ():
            node.disk.names[boots.NAME].write_back()

    def close(self) -> None:
        """Close the copies that were not put back."""
        for each in self._copies.values():
            each.store.close()

    # --- When the machines are lost

    def make(self, survivors: Sequence[str], lost: Collection[str]) -> None:
        """Start lost machines while all others are down; look what comes of it."""
        world, nodes = self.world, self.world.nodes
        kept, gone = [nodes[i] for i in survivors], [nodes[i] for i in sorted(lost)]
        if not self._can_be(kept, gone):
            return
        marks = {node.node_id: mark_of(log_of(node)) for node in kept}
        begun = len(world.invariants.submissions), len(world.invariants.reads)
        led = set(world.invariants.leaders)
        world.memberships.wiped |= set(lost)
        if self.kind is Mistake.EMPTY:
            self._empty(kept, gone)
        else:
            self._put_back(kept, gone)
        self._check_answers(begun)
        check_none_leads(world.invariants, led)
        self._stop([*kept, *gone])
        world.trace(world.now, f"the mistake is noticed: {self.kind}, {sorted(lost)}")
        for node in kept:
            before, after = marks[node.node_id], mark_of(log_of(node))
            check_kept(world.invariants, node.node_id, before, after)

    def _can_be(self, kept: list[Machine], gone: list[Machine]) -> bool:
        """Return whether the product can notice the mistake."""
        lost = {node.node_id for node in gone}
        if self.kind is Mistake.EMPTY:
            # If all that a machine's file names were empty, that would be a new cluster.
            return not any(
                {member.node_id for member in node.written} <= lost for node in gone
            )
        return (
            self.kind is Mistake.BACK
            # Copies do not link to a member that has joined since they were made.
            and lost | {node.node_id for node in kept} <= self._copied
            and all(
                knows_better(node, each, self._copies[each].hello)
                for node in kept
                for each in lost
            )
        )

    def _empty(self, kept: list[Machine], gone: list[Machine]) -> None:
        """Start them on empty disks; those that have the log come later, or never."""
        world, come = self.world, self.rng.choice(["never", "first", "later"])
        world.trace(world.now, f"empty disks; those that have the log come {come}")
        world.effects[Effect.MAJORITY_EMPTY] += 1
        if come == "first":
            self._start(kept)
        for node in gone:
            world.wipe(node)
        self._start(gone)
        self._pass()
        if come == "later":
            self._start(kept)
        self._kill(self.rng.choice(gone))
        self._pass()

    def _put_back(self, kept: list[Machine], gone: list[Machine]) -> None:
        """Put them back together; those that meet a survivor say so, and none goes on."""
        world = self.world
        world.trace(world.now, f"put back: {[node.node_id for node in gone]}")
        world.effects[Effect.MAJORITY_BACK] += 1
        self._start(kept)
        for _ in range(round(STARTED_S / STEP_S)):
            if all(node in world.live() for node in kept):
                break
            world.step()
        heard = self._cut_off(kept, gone)
        for node in gone:
            world.put_back(node, self._copies.pop(node.node_id))
        self._start(gone)
        self._pass()
        for node in heard:
            check_fenced(world.invariants, node, up=node in world.live())
        if self.rng.random() < 0.5:
            self._stop(kept)
        self._kill(self.rng.choice(gone))
        self._pass()
        for node in heard:
            check_fenced(world.invariants, node, up=node in world.live())

    def _cut_off(self, kept: list[Machine], gone: list[Machine]) -> list[Machine]:
        """Let one of them alone meet the survivors, if the rest is no majority."""
        majority = len(self._copied) // 2 + 1
        if len(gone) > majority or self.rng.random() < 0.5:
            return gone
        one = self.rng.choice(gone)
        pairs = {(a, b) for a in kept for b in gone if b is not one}
        ids = {(a.node_id, b.node_id) for a, b in pairs}
        both = ids | {(b, a) for a, b in ids}
        self.world.wires.cut(both, seconds=2 * HALF_S)
        return [one]

    def _start(self, machines: list[Machine]) -> None:
        for node in machines:
            node.restart_at = self.world.now

    def _kill(self, node: Machine) -> None:
        """Kill a machine; it starts again."""
        self.world.stop(node, power=self.rng.random() < 0.5, cause="killed")

    def _stop(self, machines: list[Machine]) -> None:
        for node in machines:
            self.world.stop(node, power=self.rng.random() < 0.5, cause="lost")
            node.restart_at = None
        self.world.faults.mend_between([node.node_id for node in machines])

    def _pass(self) -> None:
        """Let time pass, and people ask."""
        for _ in range(round(HALF_S / STEP_S)):
            self.world.callers()
            self.world.step()

    def _check_answers(self, begun: tuple[int, int]) -> None:
        invariants, (calls, reads) = self.world.invariants, begun
        asked = [*invariants.submissions[calls:], *invariants.reads[reads:]]
        check_unanswered(invariants, asked)


def log_of(node: Machine) -> Journal:
    """Open a stopped node's log and state, as `sparecode-node recover` does."""
    node.store.start(node.disk)
    journal = open_journal(
        node.disk,
        Identity("simulated", node.node_id),
        Configuration.of(node.written),
        must_exist=True,
        salt=b"",
    )
    applied = node.store.state.applied_index
    finish_install(open_snapshots(node.disk), journal, applied)
    return journal


def mark_of(journal: Journal) -> tuple[int, int]:
    """Return term and index of the last entry."""
    return journal.last_term, journal.last_index


def check_kept(
    invariants: Invariants,
    node_id: str,
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    """See that a survivor's log is what it was: none may lead, so none may change it."""
    if before != after:
        seen = f"{node_id} had {before}, and has {after}"
        invariants.violated("survivors keep their logs", seen)


def check_none_leads(invariants: Invariants, before: Collection[int]) -> None:
    """See that no term has a leader that had none *before*."""
    if new := invariants.leaders.keys() - set(before):
        invariants.violated("no leader without memory", f"in terms {sorted(new)}")


def check_unanswered(
    invariants: Invariants, asked: Sequence[Submission | Read]
) -> None:
    """See that a majority that has lost its memory answers no one."""
    for each in asked:
        if any(not isinstance(outcome, Exception) for outcome in each.outcomes):
            invariants.violated("no answer without memory", f"{each}")


def check_fenced(invariants: Invariants, node: Fenced, *, up: bool) -> None:
    """See that a machine that was put back says so, once it has met a survivor."""
    if not (up and node.running.status().refused_by):
        invariants.violated("older copies say so", f"{node.node_id}, up: {up}")
