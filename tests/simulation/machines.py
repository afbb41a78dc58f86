# SPDX-License-Identifier: Apache-2.0
"""Simulated machines: a disk, a state store, and perhaps a replica that runs."""

import copy
import random
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log.file import NAME
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.clock_watch import ANSWER_S, FRESH_S
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.read_index import Word
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.replica import Replica, ReplicaConfig
from sparecode_node.replication.replicator import Proposal
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.skipping import SkippedEntry
from sparecode_node.statemachine.snapshots import SnapshotError, SnapshotFacts
from tests.replication.recording_state import RecordingState
from tests.simulation.disk import Disk
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.installations import JudgedReplica
from tests.simulation.intact import judge_refusals
from tests.simulation.invariants import Invariants
from tests.simulation.network import Network
from tests.simulation.promises import PROMISES

if TYPE_CHECKING:
    from tests.simulation.keepers import Keepers
    from tests.simulation.statements import Statements

EPOCH_S = 1_800_000_000.0

ENDINGS = (Fatal, StartRefusedError, sqlite3.DatabaseError)
"""How a node ends by itself, and says why in one line (`daemon/node.py`)."""

SNAPSHOT_S = 1.2
"""
Four things in a worker thread, each of up to 0.2 s (`keepers.Keepers.beside_s`), and a
tick of the engine after each, which may come late.
"""

CLOCK_NEWS_S = FRESH_S + ANSWER_S
"""The greatest age of what a node knows of another's clock."""


class World(Protocol):
    """The surroundings of a machine."""

    now: float
    rng: random.Random
    ids: list[str]
    nodes: dict[str, "Node"]
    raft: RaftSettings
    network: Network
    invariants: Invariants
    effects: Effects
    statements: "Statements"
    keepers: "Keepers"

    def run_on(self, node: "Node", act: Callable[[Any], object]) -> bool: ...
    def clocks(self, ids: Collection[str], since: float) -> list[set[float]]:
        """Return how far the clock of each of them was off since then."""


class Store(Protocol):
    """A state machine on its disk: survives the node, and loses power with it."""

    @property
    def state(self) -> AppliedState: ...
    def start(self, disk: Disk) -> None:
        """Let a new process take the store over."""

    def die(self) -> None:
        """End the process in the middle of something: nothing more reaches the disk."""

    def lose_power(self, rng: random.Random) -> None: ...
    def applied(self) -> dict[str, int]:
        """Return request id -> index of what is in the state."""

    def digest(self) -> str: ...
    def serialize(self) -> bytes: ...
    def install(self, body: bytes) -> None:
        """Become what a snapshot holds, durably; the process does not know it yet."""

    def reload(self) -> None:
        """Let the process know what it has installed."""

    def facts(self, body: bytes) -> SnapshotFacts:
        """Read a whole snapshot. Raises `SnapshotError`."""

    def checkpoint(self) -> int: ...
    def copy(self) -> "Store":
        """Return a store with the same content."""

    def close(self) -> None: ...


class RecordingStore:
    """The tiny state machine; a power cut takes it back to an earlier index."""

    def __init__(self) -> None:
        self.state = RecordingState()

    def start(self, disk: Disk) -> None:
        """Keep what there is: this one has nothing but what is committed."""

    def die(self) -> None:
        """Do nothing: each entry is there as a whole, or not at all."""

    def lose_power(self, rng: random.Random) -> None:
        """Forget the last entries; the journal has them."""
        entries, durable = self.state.entries, self.state.durable_index
        least = max(durable, len(entries) - 50, 0)
        kept = entries[: rng.randint(least, len(entries))]
        self.state = RecordingState()
        self.state.durable_index = durable
        for index, calls in kept:
            self.state.apply(index, calls)

    def applied(self) -> dict[str, int]:
        return {
            request: getattr(r, "index", 0) for request, r in self.state.results.items()
        }

    def digest(self) -> str:
        return self.state.digest()

    def serialize(self) -> bytes:
        return self.state.serialize()

    def install(self, body: bytes) -> None:
        self.state.deserialize(body)

    def reload(self) -> None:
        """Do nothing: this one has nothing but what is stored."""

    def facts(self, body: bytes) -> SnapshotFacts:
        state = RecordingState()
        try:
            state.deserialize(body)
        except ValueError as error:
            raise SnapshotError(str(error)) from error
        return SnapshotFacts(index=state.applied_index, digest=state.digest())

    def checkpoint(self) -> int:
        return self.state.checkpoint()

    def copy(self) -> "RecordingStore":
        other = RecordingStore()
        other.state = copy.deepcopy(self.state)
        return other

    def close(self) -> None:
        """Do nothing: no file is open."""


class _Applying:
    """The state, with kills around each transaction, and the invariants watching."""

    def __init__(self, node: "Node") -> None:
        self._node = node

    @property
    def applied_index(self) -> int:
        return self._node.store.state.applied_index

    @property
    def now_ms(self) -> int:
        return self._node.store.state.now_ms

    @property
    def feature_level(self) -> int:
        return self._node.store.state.feature_level

    @property
    def skipped(self) -> tuple[SkippedEntry, ...]:
        return self._node.store.state.skipped

    @property
    def member_keys(self) -> Mapping[NodeId, MemberKey]:
        return self._node.store.state.member_keys

    def denies(self, certificate: Certificate) -> bool:
        return self._node.store.state.denies(certificate)

    def checkpoint(self) -> int:
        self._node.disk.burn()
        if self._node.sim.rng.random() < 0.2:
            return 0  # A reader is in the way.
        done = self._node.store.checkpoint()
        self._node.disk.burn()
        return done

    def check(self) -> None:
        """Do nothing: its checkpoints fail where they are called."""

    def install(self, snapshot: str) -> None:
        self._node.disk.burn()
        body = self._node.disk.read(snapshot.partition(":")[2])
        self._node.invariants.promises.on_install(self._node, self.applied_index)
        self._node.store.install(body)
        self._node.disk.burn()
        self._node.sim.effects[Effect.SNAPSHOT_INSTALLED] += 1

    def reload(self) -> None:
        self._node.store.reload()

    def apply(self, index: int, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        self._node.disk.burn(Effect.KILL_IN_TRANSACTION)
        self._fail_if_unable(index, calls)
        node = self._node
        replica, seen = node.replica, node.invariants
        term = replica.engine.raftCurrentTerm if replica else 0
        entry_term = replica.engine.journal.term_at(index) if replica else None
        seen.on_apply(node.node_id, term, index, calls, entry_term)
        if replica:
            seen.promises.members.on_apply(node.journal, index)
        results = node.store.state.apply(index, calls)
        self._node.disk.burn(Effect.KILL_IN_TRANSACTION)
        return results

    def skip(self, entry: SkippedEntry, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        node = self._node
        voters = node.journal.configuration_at(entry.index).voters
        node.sim.statements.check(node.node_id, entry.index, entry.digest, voters)
        return node.store.state.skip(entry, calls)

    def _fail_if_unable(self, index: int, calls: tuple[Call, ...]) -> None:
        disk = self._node.disk
        if self._node.sim.statements.stops_all(index, calls):
            disk.hurt = True
            raise ArithmeticError("no machine can compute this")
        if disk.unable:
            disk.unable, disk.hurt = False, True
            self._node.sim.effects[Effect.APPLY_FAILED] += 1
            raise ArithmeticError("this machine computes wrongly")


class Node:
    """One machine: its disk, its store, and perhaps a replica that runs."""

    disk_type: type[Disk] = Disk
    late_calls = False

    def __init__(
        self,
        sim: World,
        node_id: str,
        store: Store,
        written: tuple[Member, ...],
        *,
        joins: bool = False,
    ) -> None:
        """*written*: the members in its configuration file."""
        self.sim = sim
        self.written = written
        self.joins = joins
        self.node_id = node_id
        self.store = store
        self.disk = self._new_disk()
        self._clocks = [(float("-inf"), 0.0)]
        """Since when its clock is off, and how far."""
        self.replica: JudgedReplica | None = None
        self.paused_until = 0.0
        self.restart_at: float | None = None
        self.life = 0
        self.raft: RaftSettings | None = None
        """Its own settings, if they are not those of the run."""
        self.led = False
        self.applied_at_start = 0
        self.had_entries = self.had_applied = 0
        """When it last stopped."""
        self.keeper_waits = 0, 0.0
        """In which life, and until when, after a snapshot that failed."""

    @property
    def invariants(self) -> Invariants:
        """The rules that its log is judged by."""
        return self.sim.invariants

    def _new_disk(self) -> Disk:
        disk = self.disk_type(self.node_id, self.sim.rng, self.sim.effects)
        disk.violated = self._violated
        return disk

    def _violated(self, kind: str, seen: str) -> None:
        self.invariants.violated(kind, seen)

    @property
    def clock_s(self) -> float:
        """How far its clock is off."""
        return self._clocks[-1][1]

    def set_clock(self, seconds: float) -> None:
        """Put its clock so far off."""
        self._clocks.append((self.sim.now, seconds))

    def clocks(self, since: float) -> set[float]:
        """Return how far its clock was off since then."""
        ends = [begin for begin, _ in self._clocks[1:]] + [float("inf")]
        pairs = zip(self._clocks, ends, strict=True)
        return {clock_s for (_, clock_s), end in pairs if end >= since}

    def wall_s(self) -> float:
        """Return what its clock shows, in seconds since some beginning."""
        return EPOCH_S + self.sim.now + self.clock_s

    def match(self, proposal: Proposal) -> Proposal:
        """Return it as it is: tokencodes are matched when it is stamped."""
        return proposal

    def stamp(self, proposals: Sequence[Proposal]) -> tuple[Call, ...]:
        """Be the stamper of the replica."""
        at_ms = int(self.wall_s() * 1000)
        self.sim.effects[Effect.STAMP_BACK] += at_ms < self.sim.invariants.stamped_ms
        self.sim.invariants.stamped_ms = at_ms
        voters = self.journal.configuration.voters
        clocks = self.sim.clocks(voters, self.sim.now - CLOCK_NEWS_S)
        self.sim.invariants.on_stamp(self.node_id, self.clock_s, clocks)
        self.invariants.promises.on_stamp(self)
        return tuple(p.call.stamped(at_ms) for p in proposals)

    # --- What the invariants look at

    @property
    def journal(self) -> Journal:
        return self.running.engine.journal

    @property
    def term(self) -> int:
        return self.running.engine.raftCurrentTerm

    @property
    def leads(self) -> bool:
        return self.running.engine.is_leader()

    def word(self) -> Word:
        """Return what it says of its term at this moment."""
        return Word(member=self.node_id, hello=self.hello(), term=self.running.term())

    @property
    def running(self) -> JudgedReplica:
        assert self.replica is not None
        return self.replica

    # --- What the network sees

    def is_up(self) -> bool:
        return self.replica is not None

    def is_paused(self) -> bool:
        return self.sim.now < self.paused_until

    def takes_no_snapshot(self) -> bool:
        """Return whether it is paused, has no room, or waits after a failure."""
        waits = self.sim.now < self.keeper_waits_until()
        return waits or self.is_paused() or self.disk.full

    def keeper_waits_until(self) -> float:
        """Return when the keeper goes on that waits after a failure; 0.0: it does not."""
        life, until = self.keeper_waits
        return until if life == self.life else 0.0

    def snapshot_s(self) -> float:
        return SNAPSHOT_S

    def hello(self) -> Hello:
        return self.running.hello()

    def connected(self, peer: str, hello: Hello, answer: Hello) -> None:
        """Learn that a link has begun; tell a peer that it is refused, if it is."""
        refusals: list[Refusal | None] = []

        def connect(replica: Replica) -> None:
            refusals.append(replica.refusal_of_link(peer, hello))
            if Refusal.ROLLED_BACK not in refusals:
                replica.guard.connected(peer, answer)

        self.sim.run_on(self, connect)
        if Refusal.REMOVED in refusals and self.is_up():
            self.invariants.promises.on_refusal(self, peer)
        if Refusal.ROLLED_BACK in refusals:
            refused = self.sim.nodes[peer]
            by = self.node_id
            self.sim.run_on(refused, lambda replica: replica.hear_nothing(by))

    def disconnected(self, peer: str) -> None:
        self.sim.run_on(self, lambda replica: replica.guard.disconnected(peer))

    def receive(self, peer: str, message: Message, hello: Hello) -> None:
        known = self.journal.configuration.member(peer) is not None
        self.sim.effects[Effect.NEWER_MEMBER] += not known and peer not in (
            self.journal.configuration.removed
        )
        promises, now = self.invariants.promises, self.sim.now
        before = promises.before_request(self, peer, message, now)
        self.sim.run_on(
            self, lambda replica: replica.guard.receive(peer, message, hello)
        )
        if before is not None and self.is_up():
            promises.after_request(self, peer, before)

    def send(self, peer: str, message: Message) -> None:
        """Be the wire of the replica."""
        self.promised(peer, message)
        self.sim.network.send(self.node_id, peer, message)

    def promised(self, peer: str, message: Message) -> None:
        """Judge what it says to another member."""
        if self.replica is not None:  # Else it starts, and has no journal yet.
            if message["type"] in PROMISES:
                self.disk.check_holds(NAME)
            promises, now = self.invariants.promises, self.sim.now
            promises.on_send(self, peer, message, self.sim.nodes, now)

    def start(self) -> None:
        self.life += 1
        self.led = False
        self.replica = None
        self.store.start(self.disk)
        self.applied_at_start = self.store.state.applied_index
        self.config = ReplicaConfig(
            cluster_id="simulated",
            node_id=NodeId(self.node_id),
            members=self.written,
            joins=self.joins,
            salt=self.sim.rng.randbytes(16),
            raft=self.raft or self.sim.raft,
            skips=self.sim.statements.settings(self.node_id, self.applied_at_start),
        )
        self.replica = JudgedReplica(
            self,
            self.config,
            storage=self.disk,
            state=_Applying(self),
            stamper=self,
            wire=self,
            wall_ms=lambda: round(self.wall_s() * 1000),
            beside=self.sim.keepers.beside(self),
        )
        self._watch()

    def _watch(self) -> None:
        """See what a process that has just started does with its log, and relies on."""
        self._count_conflicts(self.journal)
        judge_refusals(self)
        engine = self.running.engine
        append = engine.append_configuration

        def seen(after: Configuration) -> int:
            invariants = self.invariants
            invariants.changes.on_append(self, after, invariants.wishes)
            return append(after)

        engine.append_configuration = seen

    def _count_conflicts(self, journal: Journal) -> None:
        delete = journal.deleteEntriesFrom

        def counted(position: int) -> None:
            self.sim.effects[Effect.CONFLICT] += max(0, len(journal) - position)
            changed = journal.configured_at
            delete(position)
            self.sim.effects[Effect.CHANGE_ROLLED_BACK] += (
                journal.configured_at < changed
            )

        journal.deleteEntriesFrom = counted

    def wipe(self, store: Store) -> None:
        """Lose the disk, and get an empty one."""
        self.invariants.promises.forget(self.node_id)
        self.store.close()
        self.store = store
        self.disk = self._new_disk()
        self.had_entries = self.had_applied = 0

    def put_back(self, disk: Disk, store: Store) -> None:
        """Return to what the machine was at an earlier time."""
        self.invariants.promises.forget(self.node_id)
        self.store.close()
        self.disk, self.store = disk, store
        self.had_entries = self.had_applied = 0

    def remember_what_it_had(self) -> None:
        """Note how far it was, to see what is gone when it comes back."""
        if self.replica is not None:
            dropped = self.replica.guard.dropped
            refused = sum(dropped[cause] for cause in Refusal)
            self.sim.effects[Effect.OUTSIDER_HEARD] += refused
            self.had_entries = self.journal.last_index
            self.had_applied = self.store.state.applied_index
