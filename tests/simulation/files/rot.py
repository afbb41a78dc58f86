# SPDX-License-Identifier: Apache-2.0
"""
Disks that rot: what was synced is not what is read at the next start.

At most one machine of a run at a time, and only while a majority of the others has what
is needed. The machine may start and be right, or refuse aloud; or another member refuses
it, because it knows of promises that are no longer on this disk. Then an operator
replaces the disk, as the message says.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sparecode_node.replication.log import boots
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.files.journal_rot import (
    JournalRot,
    end_of_journal,
    is_before_mark,
    keep_mark,
    lacks_synced_batches,
    mark_on,
)
from tests.simulation.files.kernel import Folder, Rot
from tests.simulation.files.store import STATE, FileStore
from tests.simulation.invariants import Invariants
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.rollbacks import knows_better
from tests.simulation.statements import Statements

ROT_RATE = 0.05
COPY_RATE = 0.02
OF_JOURNAL = 0.3
OF_LAST_BATCH = 0.15
"""
How often the last batch of the journal rots, whatever else would have: what it holds is
often not in the state yet, and after a power cut the state may be older still.
"""
STATE_BACK = 0.15
INSIDIOUS = 0.7
"""
How often a page of the state is an older one that is well-formed, or the log of SQLite
ends earlier than it did: no check of SQLite notices either.
"""


class Starting(Protocol):
    """A machine that perhaps runs."""

    node_id: str

    def is_up(self) -> bool: ...


class World(Protocol):
    """The cluster."""

    now: float
    nodes: dict[str, Node]
    effects: Effects
    memberships: Memberships
    statements: Statements

    def crash(self, node: str, *, power: bool) -> None: ...
    def boot(self, node: Node) -> None: ...
    def wipe(self, node: Node) -> None: ...
    def trace(self, now: float, seen: str) -> None: ...


@dataclass
class RottingDisks:
    """Lets disks rot, and replaces those that were refused."""

    world: World
    rng: random.Random
    batches: random.Random
    """Dice of their own: whether the last batch rots, and how."""
    journals: JournalRot
    _copies: dict[str, tuple[object, Folder]] = field(default_factory=dict)
    """Of states, with the store each belongs to."""
    _waits_for_state: bool = False
    """Whether the last batch rots of the first machine whose state has it on its disk."""
    _unjudged: set[str] = field(default_factory=set)
    """
    Machines that have not started since their disk has rotted, for another reason.

    Their disks rot no further: if the checksums of the state are lost, too, nothing shows
    what the first rot has changed.
    """
    _shortened: set[str] = field(default_factory=set)
    """Machines that have not started since their journal has lost its end."""
    _refused: set[str] = field(default_factory=set)
    """Machines that wait for an empty disk."""

    def act(self) -> None:
        """Do what the dice say."""
        node_id = self.rng.choice(sorted(self.world.nodes))
        node = self.world.nodes[node_id]
        if self.rng.random() < COPY_RATE and node.is_up():
            self._copies.setdefault(node_id, (node.store, _copy(node)))
        if self.rng.random() < ROT_RATE and self._is_dispensable(node):
            self._spoil(node)
        self._waits_for_state |= self.journals.waits_for_state()
        if self._waits_for_state:
            self._let_a_state_be_ahead()

    def _let_a_state_be_ahead(self) -> None:
        """Let a journal lose a batch that its state has applied, and keeps."""
        for _, node in sorted(self.world.nodes.items()):
            assert isinstance(node.store, FileStore)
            has_applied = node.is_up() and (
                node.store.durable_index == node.journal.last_index
            )
            if has_applied and is_before_mark(node.disk) and self._is_dispensable(node):
                self._waits_for_state = False
                self._spoil(node, before_mark=True)
                return

    def replace_refused(self) -> None:
        """Give a machine whose disk was refused an empty one, once the others can."""
        self._unjudged -= {i for i, node in self.world.nodes.items() if node.is_up()}
        self._stop_those_that_others_refuse()
        for node_id in sorted(self._refused):
            node = self.world.nodes[node_id]
            node.restart_at = None  # It is started no more as it is.
            if self._is_dispensable(node):
                self._refused.remove(node_id)
                self._unjudged.discard(node_id)
                self._shortened.discard(node_id)
                self.world.memberships.doubtful.remove(node_id)
                self.world.memberships.wiped.add(node_id)
                self.world.wipe(node)

    def started(self, node: Node) -> None:
        """Learn that a node has been started, perhaps in vain."""
        if node.node_id in self._shortened and node.is_up():
            self._shortened.remove(node.node_id)
            self._replace_if_unknown(node)

    def stopped(self, node: Node) -> None:
        """Learn that a node has stopped itself."""
        disk = node.disk
        other_cause = disk.failing or disk.full or disk.hurt
        other_cause = other_cause or self.world.statements.must_stop(node)
        if disk.rotten and not other_cause and node.node_id not in self._refused:
            self.world.effects[Effect.ROTTEN_REFUSED] += 1
            self._refused.add(node.node_id)

    def _stop_those_that_others_refuse(self) -> None:
        """
        Stop a machine that runs, and may neither vote nor acknowledge any more.

        A batch of the journal may rot before the kernel has written the mark that names
        it. Then the machine takes it for torn, and only the other members know better.
        """
        for node_id, node in sorted(self.world.nodes.items()):
            refused = node.is_up() and node.journal.boots.refused_by
            if refused and node.disk.rotten and node_id not in self._refused:
                self.world.effects[Effect.ROTTEN_REFUSED] += 1
                self._refused.add(node_id)
                self.world.crash(node_id, power=False)

    def _is_dispensable(self, node: Node) -> bool:
        """Return whether all others are up, know its journal, and have lost nothing."""
        members, nodes = self.world.memberships, self.world.nodes
        voters = members.configuration.voters
        others = [nodes[voter] for voter in sorted(voters - {node.node_id})]
        if node.node_id not in voters or not members.can_lose_one(node.node_id):
            return False
        if not all(other.is_up() for other in others):
            return False
        known = {o.journal.configuration.member(node.node_id) for o in others}
        same_voters = {o.journal.configuration.voters for o in others} == {voters}
        named = all(getattr(member, "journal_id", "") for member in known)
        return same_voters and len(known) == 1 and named

    def _spoil(self, node: Node, *, before_mark: bool = False) -> None:
        assert isinstance(node.store, FileStore)
        if node.node_id in self._unjudged:
            return
        of_last_batch = self.batches.random() < OF_LAST_BATCH
        before_mark = before_mark or self.journals.is_before_mark()
        of_last_batch = of_last_batch or before_mark
        mark = mark_on(node.disk, newest=of_last_batch and not before_mark)
        if node.is_up():
            self.world.crash(node.node_id, power=True)
        else:  # What only its memory has hides what its disk has.
            node.disk.lose_power()
            node.store.lose_power(self.rng)
        ended = end_of_journal(node.disk)
        if of_last_batch:
            keep_mark(node.disk, mark)
            what = self.journals.spoil_last_batch(node.disk, self.batches)
        elif self.rng.random() < STATE_BACK:
            what = self._put_state_back(node)
        elif self.rng.random() < OF_JOURNAL:
            what = self.journals.spoil(node.disk, self.rng)
        else:
            what = self._spoil_state(node.store.folder)
        if not what:
            return
        self.world.effects[Effect.ROTTEN] += 1
        self.world.trace(self.world.now, f"{node.node_id}: {what}")
        node.disk.rotten = True
        node.invariants.promises.forget(node.node_id)
        self.world.memberships.doubtful.add(node.node_id)
        lacks = lacks_synced_batches(node.disk)
        left = end_of_journal(node.disk)
        effect = Effect.BEFORE_MARK_ROTTEN
        self.world.effects[effect] += before_mark and not lacks
        node.applied_at_start = 0  # Until its state is open.
        self.world.boot(node)
        self.world.effects[Effect.ROTTEN_ACCEPTED] += node.is_up()
        if not node.is_up():
            self._unjudged.add(node.node_id)
        is_ahead = node.applied_at_start > left[-1] and not looks_unfinished(node)
        check_started(node.invariants, node, lacks=lacks, is_ahead=is_ahead)
        if left < ended:
            self._shortened.add(node.node_id)
            self.started(node)

    def _replace_if_unknown(self, node: Node) -> None:
        """
        Replace a disk that has lost promises of which some other member does not know.

        Of the last second before a power cut the product does not promise to notice that:
        the leader alone has heard of it, and no member of what the leader's own log had.
        """
        members, nodes = self.world.memberships, self.world.nodes
        others = [nodes[v] for v in members.configuration.voters - {node.node_id}]
        if node.journal.boots.refused_by:
            return
        remembering = [o for o in others if boots.NAME in o.disk.names]
        for other in remembering:  # The kernel has had the time.
            other.disk.names[boots.NAME].write_back()
        knowing = [
            o for o in remembering if knows_better(o, node.node_id, node.hello())
        ]
        if knowing != others:
            self.world.effects[Effect.LOSS_UNKNOWN] += 1
            self._refused.add(node.node_id)
            self.world.crash(node.node_id, power=False)

    def _spoil_state(self, folder: Folder) -> str:
        if not folder.names:  # Lost in the power cut: nothing was synced yet.
            return ""
        name = self.rng.choice(sorted(folder.names))
        kind = self.rng.choice(list(Rot))
        if self.rng.random() < INSIDIOUS:
            name, kind = self.rng.choice(
                [(STATE, Rot.LOST_WRITE), (f"{STATE}-wal", Rot.BIT)]
            )
        if name not in folder.names:
            return ""
        changed = folder.names[name].rot(kind, self.rng)
        folder.write_out()
        return f"{name}: {kind.value}" if changed else ""

    def _put_state_back(self, node: Node) -> str:
        """Let the state be yesterday's, and the journal today's."""
        assert isinstance(node.store, FileStore)
        owner, copy = self._copies.pop(node.node_id, (None, None))
        if copy is None or owner is not node.store:
            return ""
        node.store.folder.put_back(copy, self.rng)
        self.world.effects[Effect.STATE_BACK] += 1
        return "the state is an older copy"


def check_started(
    invariants: Invariants, node: Starting, *, lacks: bool, is_ahead: bool = False
) -> None:
    """See that no node starts with a journal that lacks what was on its disk."""
    invariants.comparisons[Comparison.ROT_NAMED] += lacks and not node.is_up()
    only_ahead = is_ahead and not lacks
    invariants.comparisons[Comparison.AHEAD] += only_ahead and not node.is_up()
    if lacks and node.is_up():
        seen = f"{node.node_id} starts, and its mark names more than its journal has"
        invariants.violated("rot is noticed", seen)
    if is_ahead and node.is_up():
        seen = f"{node.node_id} starts, and has applied more than its journal has"
        invariants.violated("rot is noticed", seen)


def looks_unfinished(node: Node) -> bool:
    """
    Return whether state and journal look as after an installation that was broken off.

    The journal then begins after the newest snapshot, which the state is. Whether the
    journal lost what was there, or never had it, its own disk does not tell.
    """
    newest = node.replica.snapshots.current if node.replica else None
    return newest is not None and newest.index == node.applied_at_start


def _copy(node: Node) -> Folder:
    """Copy a state. The real files are written when it is put back."""
    assert isinstance(node.store, FileStore)
    return node.store.folder.copy(Path("/nowhere"))
