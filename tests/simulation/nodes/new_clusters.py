# SPDX-License-Identifier: Apache-2.0
"""
A new cluster after the old one is lost: recovered from a survivor, or restored (E).

It begins while everything goes wrong. All machines stop. The log of the new cluster is
written by the product's code: onto the disk of the survivor that has most of the log, or
onto another machine with the state of a backup. Then the cluster is opened, new machines
join it, and one that was thought to be lost comes back with all it had.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.codec import decode_entry
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.members import Member
from sparecode_node.replication.offline.refounding import apply_entries, begin_log
from sparecode_node.replication.raft.follower import REGULAR
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    Promote,
)
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.tables.review import REVIEWED, mark_of
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.machines import Node
from tests.simulation.nodes.machines import Machine
from tests.simulation.nodes.memberships import NodeMemberships
from tests.simulation.nodes.mistakes import Mistakes, log_of
from tests.simulation.observed import Observed
from tests.simulation.people import (
    CODES,
    FEW_CODES,
    GUESSED,
    HURRIED,
    REISSUED,
    SPENDERS,
)
from tests.simulation.rules import CodeRules
from tests.simulation.sqlite_store import SqliteStore
from tests.simulation.work import machine_store

if TYPE_CHECKING:
    from tests.simulation.nodes.mixed import MixedCluster

NEW_ID = "renewed"
BACKUP_RATE, NEWER_RATE = 0.1, 0.005
"""Of the first backup, in a step, and of each later one: most are not the newest state."""
STEP_S = 0.05
FAULTY_S = 4.0
WAIT_S = 60.0
"""For each step of an operator."""
TRIES = 60
"""Steps in which only that is done, after the opening."""
BESIDE_S = 0.01
"""For one thing that a worker thread does: a snapshot has dozens of chunks."""
AGAIN = 0.3
"""How often, in a step, what was spent in the old cluster is tried again."""


@dataclass(frozen=True)
class Backup:
    """The state of a node at one moment."""

    image: bytes = field(repr=False)
    index: int
    term: int
    state_at_ms: int


@dataclass
class NewCluster:
    """What an operator does when the old cluster is lost."""

    world: "MixedCluster"
    rng: random.Random
    cause: str
    """`recover` or `restore`."""
    backup: Backup | None = None
    mistakes: Mistakes | None = None
    """What people do with the lost machines before they recover the cluster."""
    _known_commit: dict[str, int] = field(default_factory=dict)

    @classmethod
    def drawn(cls, world: "MixedCluster", rng: random.Random) -> "NewCluster | None":
        """Return that of a run, or None: its cluster is not lost."""
        cause = rng.choice(["", "", "recover", "restore"])
        return cls(world, rng, cause) if cause else None

    # --- While the old cluster works

    def act(self) -> None:
        """Make a backup, sometimes."""
        if self.mistakes and self.world.cluster_id != NEW_ID:
            self.mistakes.act()
        up = [node for node in self.world.live() if not node.is_paused()]
        rate = BACKUP_RATE if self.backup is None else NEWER_RATE
        if self.cause != "restore" or self.world.cluster_id == NEW_ID or not up:
            return
        if self.rng.random() >= rate:
            return
        node = self.rng.choice(up)
        store = _store(node)
        term = node.journal.term_at(store.applied_index)
        # The permission for a backup is an entry, and the node has applied it.
        if store.applied_index >= self.world.begun_at and term is not None:
            self.backup = Backup(
                store.committed(), store.applied_index, term, store.now_ms
            )

    # --- The new cluster

    def begin(self) -> None:
        """Lose the old cluster, and begin another one, if that can be."""
        world = self.world
        old = list(world.nodes.values())
        voters = world.memberships.configuration.voters
        survivors = sorted(voters & set(world.memberships.belonging()))
        if len(voters) < 2 or not (
            self.backup if self.cause == "restore" else survivors
        ):
            return
        world.invariants.check_applied()
        if self.mistakes:
            self.mistakes.before_the_loss()
        self._stop_all(old)
        founder = (
            self._recovered(survivors) if self.cause == "recover" else self._restored()
        )
        world.trace(world.now, f"{self.cause}: {founder.node_id} is a new cluster")
        world.ids = [founder.node_id]
        _quicken(founder)
        dice = random.Random(self.rng.random())
        world.memberships = NodeMemberships(world, dice, 0.0, 3)
        founder.restart_at = world.now
        self._try_before_the_opening()
        self._open()
        self._return_one([n for n in old if n is not founder and n.node_id in voters])
        for number in (1, 2):
            self._join(f"m{number}")
        world.points.allow(world.ids)
        for _ in range(round(FAULTY_S / STEP_S)):
            world.faults.act(world.ids)
            world.callers()
            self._spend_again()
            world.step()
        world.points.allow(())

    def _stop_all(self, machines: list[Machine]) -> None:
        for node in machines:
            self.world.faults.mend(node)
            self.world.stop(node, power=self.rng.random() < 0.5, cause="lost")
            node.restart_at = None
        self.world.faults.mend_between([node.node_id for node in machines])
        self.world.wires.storms.clear()

    # --- From a survivor

    def _recovered(self, voters: list[NodeId]) -> Machine:
        """Continue on the survivor that has most of the log: few of the voters are left."""
        world = self.world
        most = max(1, (len(voters) - 1) // 2)
        survivors = self.rng.sample(voters, self.rng.randint(1, most))
        if self.mistakes:
            lost = world.memberships.configuration.voters - set(survivors)
            self.mistakes.make(survivors, lost)
        logs = {node_id: log_of(world.nodes[node_id]) for node_id in survivors}
        node_id = max(survivors, key=lambda i: (logs[i].last_term, logs[i].last_index))
        node, journal = world.nodes[node_id], logs[node_id]
        rules = self._continue(journal.last_index, _entries(journal))
        apply_entries(journal, node.store.state)
        lacking = sum(
            index > journal.last_index
            or world.earlier.applied.get(index) != rules.applied.get(index)
            for indexes in world.earlier.done.values()
            for index in indexes
        )
        told = sum(map(len, world.earlier.done.values()))
        rules.comparisons[Comparison.RECOVERED] += told - lacking
        world.trace(
            world.now, f"{node_id} lacks {lacking} of {told} acknowledged changes"
        )
        disk, state_at_ms = node._new_disk(), node.store.state.now_ms
        self._begin_log(node, disk, journal.last_index, journal.last_term, state_at_ms)
        node.disk = disk
        return node

    # --- From a backup

    def _restored(self) -> Machine:
        """Begin on another machine with the state of the backup."""
        world, backup = self.world, self.backup
        assert backup is not None
        member = Member(node_id=NodeId("m0"), address="m0:7301")
        store = SqliteStore.of(backup.image)
        node = Machine(world, member.node_id, store, (member,))
        world.nodes[node.node_id] = world.wires.processes[node.address] = node
        rules = self._continue(backup.index, {})
        rules.comparisons[Comparison.RESTORED] += len(rules.spent_before)
        self._begin_log(node, node.disk, backup.index, backup.term, backup.state_at_ms)
        return node

    # --- Both

    def _continue(self, index: int, entries: dict[int, tuple[Call, ...]]) -> CodeRules:
        """Judge the new cluster from now on; its log continues the old one's at *index*."""
        world, old = self.world, self.world.rules
        world.earlier = old
        rules = CodeRules(violations=old.violations, comparisons=old.comparisons)
        rules.on_violation = old.on_violation
        rules.applied = {i: old.applied[i] for i in old.applied if i <= index}
        rules.applied |= entries
        rules.sets = old.sets
        rules.spent_before = frozenset(old.accepted)
        rules.serves_agents = False
        world.rules = world.invariants = rules
        world.cluster_id = NEW_ID
        return rules

    def _begin_log(
        self, node: Machine, disk: Any, index: int, last_term: int, state_at_ms: int
    ) -> None:
        node.cluster_id = NEW_ID
        begin_log(
            disk,
            Member(node_id=NodeId(node.node_id), address=node.address),
            begun=BeginEpoch(
                cluster_id=NEW_ID,
                cause=self.cause,
                state_index=index,
                state_at_ms=state_at_ms,
            ),
            at_ms=int(node.wall_s() * 1000),
            last_term=last_term,
            salt=self.rng.randbytes(16),
        )

    # --- The operator

    def _until(self, done: Callable[[], bool], what: str) -> bool:
        """Wait for something; a cluster in good health does it in time."""
        end = self.world.now + WAIT_S
        while self.world.now < end:
            if done():
                return True
            self.world.step()
        self.world.invariants.violated("progress", f"{self.cause}: {what}")
        return False

    def _try_before_the_opening(self) -> None:
        world = self.world
        if not self._until(lambda: world.leader() is not None, "no primary"):
            return
        for _ in range(20):
            self._spend_again()
            world.callers()
            world.step()

    def _leave_out_the_future(self) -> None:
        """
        Judge no tokencode that was accepted at a time which is still to come.

        A majority whose clocks were ahead has done it, and a new cluster cannot know.
        So an operator waits with the opening (docs/runbooks/restore.md).
        """
        world, old = self.world, self.world.earlier
        clocks = (node.wall_s() for node in world.live())
        now_ms = 1000 * min(clocks, default=float("inf"))
        ahead = {
            each.what
            for who in old.accepted.values()
            for each in who.values()
            if not each.set_id
            and any(call.at_ms > now_ms for call in old.applied[each.index])
        }
        world.rules.spent_before -= ahead

    def _open(self) -> None:
        """Review the cluster and open it, and issue new codes to all."""
        world = self.world
        world._insist(lambda node: [world._sign_in(node, "open.new")])
        self._leave_out_the_future()
        world.rules.serves_agents = True

        def opened(node: Node) -> list[Submission]:
            db = machine_store(node).db
            command = OpenCluster(review=mark_of(db.execute(q) for q in REVIEWED))
            return [world._admin(node, command, world._name("open"), "open.new")]

        world._insist(opened)
        for _ in range(TRIES):  # New codes end the old ones, if they were live.
            self._spend_again()
            world.step()
        for user in (*SPENDERS, GUESSED, REISSUED, HURRIED):
            if not any(machine_store(n).auth_version(user) for n in world.live()):
                continue  # The survivor had not heard of this user.
            count = CODES if user in (*SPENDERS, GUESSED) else FEW_CODES
            world._insist(lambda node, u=user, c=count: world._issue(node, u, c))

    def _join(self, node_id: str) -> None:
        """Let a machine join, and promote it when it has caught up."""
        world = self.world
        member = Member(node_id=NodeId(node_id), address=f"{node_id}:7301")
        world.add_machine(node_id, (*world.memberships.configuration.members, member))
        _quicken(world.nodes[node_id])
        for change in (AddLearner(member), Promote(member.node_id)):
            self._until(lambda c=change: self._changed(c), f"{change} not done")

    def _changed(self, change: Change) -> bool:
        """Ask for a change of members; return whether it is done."""
        memberships = self.world.memberships
        result = memberships.configuration
        if isinstance(change, AddLearner):
            done = result.member(change.node_id) is not None
        else:
            done = change.node_id in result.voters
        waiting = any(not each.outcomes for each in self.world.invariants.wishes)
        if not done and not waiting:
            memberships._ask(change)
        return done

    def _return_one(self, old: list[Machine]) -> None:
        """Let a machine of the old cluster come back, which is no quorum of it."""
        if old:
            self.rng.choice(old).restart_at = self.world.now

    def _spend_again(self) -> None:
        """Try again what was accepted in the old cluster."""
        world = self.world
        spent = [
            each.wanted
            for each in world._client_requests
            if f"{each.wanted.user} {each.wanted.what}" in world.rules.spent_before
        ]
        up = [node for node in world.live() if not node.is_paused()]
        if spent and up and self.rng.random() < AGAIN:
            world.rules.comparisons[Comparison.SPENT_AGAIN] += 1
            world.try_once(self.rng.choice(up), self.rng.choice(spent))

    # --- Looking

    def look(self) -> None:
        """See that no node of the old cluster counts any more (E2)."""
        world = self.world
        clusters = {node.node_id: node.cluster_id for node in world.nodes.values()}
        for node in world.nodes.values():
            if node.replica is None or not node.is_up():
                continue
            check_links(world.invariants, node, clusters, _linked(node))
            if node.cluster_id != world.cluster_id:
                life = f"{node.node_id}.{node.life}"
                committed = node.running.engine.raftCommitIndex
                known = self._known_commit.setdefault(life, committed)
                check_old_member(world.invariants, node, known, committed)


def check_links(
    invariants: Invariants, node: Any, clusters: dict[str, str], linked: set[str]
) -> None:
    """See that a node has accepted no link of a node of another cluster."""
    strangers = {each for each in linked if clusters[each] != node.cluster_id}
    if strangers:
        seen = f"{node.node_id} of {node.cluster_id}: {sorted(strangers)}"
        invariants.violated("no link between clusters", seen)


def check_old_member(
    invariants: Invariants, node: Observed, known: int, committed: int
) -> None:
    """See that a node of the old cluster does not lead, and learns of no commit."""
    invariants.comparisons[Comparison.OLD_MEMBER] += 1
    if node.leads or committed > known:
        seen = f"{node.node_id} leads: {node.leads}; {known}, {committed}"
        invariants.violated("no old member counts", seen)


def _quicken(node: Machine) -> None:
    """Let a machine's worker threads be no slower than this; others were slow before."""
    node.speed = replace(node.speed, beside_s=min(node.speed.beside_s, BESIDE_S))


def _linked(node: Machine) -> set[str]:
    """Return the nodes whose links a node has accepted."""
    assert node.replicator is not None
    return set(node.replicator._transport._peers._linked_from)


def _entries(journal: Journal) -> dict[int, tuple[Call, ...]]:
    """Return the calls in a log, by index."""
    return {
        index: decode_entry(command[1:]) if command[:1] == REGULAR else ()
        for index in range(journal.first_index + 1, journal.last_index + 1)
        for command in [journal.entry(index)[0]]
    }


def _store(node: Machine) -> SqliteStore:
    assert isinstance(node.store, SqliteStore)
    return node.store
