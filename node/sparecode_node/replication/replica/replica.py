# SPDX-License-Identifier: Apache-2.0
"""
One replica: journal, engine, state and proposals, put together.

Single-threaded, without its own clock or network: `engine_thread` runs it in
production, and the simulation in a loop under virtual time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import NoPrimaryError, SnapshotRefusedError
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import open_journal
from sparecode_node.replication.log.skips import Skips, SkipSettings
from sparecode_node.replication.log.storage import Beside, Storage, at_once
from sparecode_node.replication.members import Configuration, Member, founders
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.clock_watch import Agreement
from sparecode_node.replication.raft.engine import Engine, now
from sparecode_node.replication.raft.guard import Wire
from sparecode_node.replication.raft.handover import HandOverOutcome, PendingHandOver
from sparecode_node.replication.raft.membership_changes import (
    Change,
    ChangeOutcome,
    PendingChange,
)
from sparecode_node.replication.raft.proposals import Outcome, Pending, Proposals
from sparecode_node.replication.raft.read_index import PendingRead, ReadOutcome, Word
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.compaction import Compaction
from sparecode_node.replication.replicator import Proposal, Stamper
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.snapshots.installation import (
    SnapshotInstallation,
    finish_install,
)
from sparecode_node.replication.snapshots.recovery_checks import (
    check_state,
    open_snapshots,
)
from sparecode_node.replication.snapshots.store import Manifest, Measured
from sparecode_node.statemachine.feature_level import FIRST

NONCE_BYTES = 8
"""Of the random number of a start."""

ENTRIES_BEHIND_MAX = 256
"""A replica that lacks more entries has not caught up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """A replica's view of itself at one moment."""

    is_leader: bool = False
    leader: NodeId | None = None
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    has_contact: bool = False
    caught_up: bool = False
    snapshot_due: bool = False
    snapshot_source: NodeId | None = None
    """The node with the snapshot that this node needs to go on."""
    snapshot_from: int = 0
    """That node's log begins at this index: an older snapshot does not help."""
    snapshots_outdated: int = 0
    """How often the log after a snapshot was gone before this node had caught up."""
    links_quorum: bool = False
    """Whether this node is linked to a quorum. If not, it cannot find a primary."""
    clock_differs: bool = False
    """From a quorum's: this node must not become the primary (T5)."""
    linked: frozenset[NodeId] = frozenset()
    """The members that this node has a link to."""
    feature_level: int = FIRST
    """The level that all members know; see statemachine/feature_level.py."""
    last_entry: tuple[int, int] = 0, 0
    """Term and index of the last entry of the log, committed or not."""
    log_entries: int = 0
    log_bytes: int = 0
    log_kept_for: tuple[NodeId, ...] = ()
    """The members that need the log as it is."""
    log_kept_ratio: float = 0.0
    """The part of the bound that the log takes, while it is kept for them."""
    log_given_up: int = 0
    """How often the log was no longer kept for a member that had not caught up."""
    configuration: Configuration = Configuration()  # noqa: RUF009 - immutable.
    agreed: Configuration = Configuration()  # noqa: RUF009 - immutable.
    """The newest configuration known to be committed."""
    refused_by: str = ""
    """A member that has refused this node as an older copy; empty: none has."""
    older_copies: tuple[NodeId, ...] = ()
    """The nodes that this one refuses as older copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """The ids, members and timings that a replica starts with."""

    cluster_id: str
    node_id: NodeId
    members: tuple[Member, ...]
    """All of them, this one too: only for a journal that is created."""
    joins: bool = False
    """Whether a journal that is created is a learner's: the cluster exists already."""
    salt: bytes
    """
    Random, `log.format.SALT_BYTES` long, for a journal that is created, and for this
    start.
    """
    raft: RaftSettings = field(default_factory=RaftSettings)
    skips: SkipSettings = field(default_factory=SkipSettings)


class Replica:
    """A member of the cluster. Every method belongs to one thread."""

    def __init__(
        self,
        config: ReplicaConfig,
        *,
        storage: Storage,
        state: AppliedState,
        stamper: Stamper,
        wire: Wire,
        wall_ms: Callable[[], int],
        beside: Beside = at_once,
        measured: Callable[[], Measured | None] = lambda: None,
    ) -> None:
        """
        *beside* does what waits long for the disk: a snapshot, a shorter log.

        *measured* returns what another thread has read of the newest snapshot.
        """
        configured = founders(config.node_id, config.members, joins=config.joins)
        self._journal = open_journal(
            storage,
            Identity(config.cluster_id, config.node_id),
            configured,
            must_exist=state.applied_index > 0,
            salt=config.salt,
        )
        self._journal.count_start(config.salt[:NONCE_BYTES].hex())
        self.snapshots = open_snapshots(storage, measured())
        finish_install(self.snapshots, self._journal, state.applied_index)
        self._state = state
        self._proposals = Proposals(stamper)
        self.engine = Engine(
            journal=self._journal,
            state=state,
            proposals=self._proposals,
            wire=wire,
            wall_ms=wall_ms,
            settings=config.raft,
            applied=check_state(self._journal, state),
            address=next(
                (m.address for m in config.members if m.node_id == config.node_id), ""
            ),
        )
        self.engine.skips = Skips(config.skips, self._journal, state)
        self.engine.guard.differs = self._differs
        self.guard = self.engine.guard
        self.compaction = Compaction(
            config.cluster_id,
            self.snapshots,
            self._journal,
            state,
            config.raft,
            self.engine.leader,
            self.engine.retention,
            beside,
        )
        self._installation = SnapshotInstallation(
            config.cluster_id, self.snapshots, self._journal, state, self.engine, beside
        )

    def hello(self) -> Hello:
        """Return what this node shows when a link begins."""
        return self.engine.hello()

    def refusal_of_link(self, peer: str, hello: Hello) -> Refusal | None:
        """
        Return why a link of *peer* to this node must not begin, None if it may.

        *peer* shows *hello* once its last link has ended.
        """
        if self._differs(peer, hello):
            return Refusal.OTHER_STATE
        return self.guard.admission.refusal_of_link(peer, hello, fresh=True)

    def _differs(self, peer: str, hello: Hello) -> bool:
        return self.engine.skips.differ(peer, hello.applied_index, hello.skipped)

    def hear_nothing(self, member: str) -> None:
        """Take no part any more: *member* has refused this node as an older copy."""
        self.engine.hear_nothing(member)

    def submit(
        self,
        proposal: Proposal,
        *,
        timeout_s: float,
        callback: Callable[[Outcome], object],
    ) -> None:
        """Propose, if this replica leads; the callback is called exactly once."""
        self._proposals.submit(Pending(proposal, now() + timeout_s, callback))

    def read(
        self,
        *,
        timeout_s: float,
        callback: Callable[[ReadOutcome], object],
        word: Word | None = None,
    ) -> None:
        """
        Find the index to read at; the callback is called exactly once.

        *word* comes from the member that reads; it counts only if the guard listens to
        it.
        """
        if word is not None and not self.guard.hears(word):
            word = None
        self.guard.reads.submit(PendingRead(now() + timeout_s, callback, word))

    def term(self) -> int:
        """Return the newest term that this replica knows."""
        return self.engine.raftCurrentTerm

    def transfer(
        self,
        target: NodeId | None,
        *,
        timeout_s: float,
        callback: Callable[[HandOverOutcome], object],
    ) -> None:
        """Make another node lead; the callback is called exactly once."""
        # No call is proposed in the meantime, so it must not take long.
        deadline = now() + min(timeout_s, self.engine.settings.step_down_s)
        self.engine.hand_over.submit(
            PendingHandOver(target=target, deadline=deadline, callback=callback)
        )

    def change_members(
        self,
        change: Change,
        *,
        timeout_s: float,
        callback: Callable[[ChangeOutcome], object],
    ) -> None:
        """Change the members, if this replica leads; the callback is called exactly once."""
        pending = PendingChange(
            change=change, deadline=now() + timeout_s, callback=callback
        )
        self.engine.membership.submit(pending)

    def match_indexes(self) -> dict[str, int]:
        """Return the last index on each member's disk, if this replica leads."""
        engine = self.engine
        if not engine.is_leader():
            return {}
        known = {m: engine.roster.match_index(m) for m in engine.roster.others()}
        return known | {self._journal.identity.node_id: self._journal.durable_index}

    def tick(self, wait_s: float) -> None:
        """Do what is due, then wait for messages. Raises `Fatal`."""
        if not self.engine.voters() and (
            self._proposals.waiting or self._proposals.in_flight
        ):
            wait_s = 0.0  # It commits alone: no answer would end the wait.
        engine = self.engine
        if (
            engine.raftLastApplied < engine.raftCommitIndex
            and not self._journal.is_held
        ):
            wait_s = 0.0  # It has stopped applying only to take and answer messages.
        engine.doTick(wait_s)
        self._state.check()
        if not self._journal.is_held:
            self.compaction.run()

    def check_snapshot(self, manifest: Manifest) -> None:
        """
        Raise `SnapshotRefusedError` if it would be refused, or would not help.

        Otherwise make the other members keep what is needed after it.
        """
        self._installation.check(manifest)
        primary, first = self.guard.offer
        if manifest.index < first:
            raise SnapshotRefusedError("the primary's log begins after it")
        self.engine.retention.fetching(manifest.index, primary)

    def received(self, length: int) -> None:
        """Record that *length* bytes of the snapshot have arrived."""
        self.engine.retention.received(length)

    def fetch_given_up(self) -> None:
        """Need no log any more for the snapshot that was being fetched."""
        self.engine.retention.fetch_given_up()

    def keep_log(self, member: str, index: int, progress: int) -> None:
        """Keep the newest snapshot, and the log after it, for a member that fetches it."""
        self.engine.retention.take(member, index=index, progress=progress)

    def install(
        self,
        manifest: Manifest,
        done: Callable[[SnapshotRefusedError | None], object],
    ) -> None:
        """
        Install a received snapshot; *done* gets None, or why it was refused.

        It is called in this thread, once. Raises `SnapshotRefusedError`, `Fatal`.
        """
        self._installation.install(manifest, done)

    def position(self) -> tuple[object, ...]:
        """Return the parts of the status that callers wait for; cheap to compute."""
        engine = self.engine
        return (
            engine.is_leader(),
            engine.leader(),
            engine.raftCurrentTerm,
            engine.raftCommitIndex,
            engine.raftLastApplied,
        )

    def status(self) -> ReplicaStatus:
        """Return the status of this replica."""
        engine = self.engine
        leader = engine.leader()
        source = self.guard.snapshot_source()
        linked = engine.linked_followers()
        return ReplicaStatus(
            is_leader=engine.is_leader(),
            leader=None if leader is None else NodeId(leader),
            term=engine.raftCurrentTerm,
            commit_index=engine.raftCommitIndex,
            applied_index=engine.raftLastApplied,
            has_contact=engine.has_contact(),
            caught_up=engine.entries_behind() <= ENTRIES_BEHIND_MAX,
            snapshot_due=self.compaction.is_due(),
            snapshot_source=None if source is None else NodeId(source),
            snapshot_from=self.guard.offer[1],
            snapshots_outdated=engine.retention.outdated,
            links_quorum=engine.roster.links_quorum(linked),
            clock_differs=engine.clock_agreement() is Agreement.NO,
            linked=frozenset(map(NodeId, linked)),
            feature_level=self._state.feature_level,
            last_entry=(self._journal.last_term, self._journal.last_index),
            log_entries=len(self._journal),
            log_bytes=self._journal.bytes,
            log_kept_for=tuple(map(NodeId, engine.retention.members)),
            log_kept_ratio=engine.retention.used,
            log_given_up=engine.retention.given_up,
            configuration=self._journal.configuration,
            agreed=self._journal.agreed_configuration,
            refused_by=engine.rollbacks.refused_by,
            older_copies=tuple(map(NodeId, engine.rollbacks.refused)),
        )

    def stop(self) -> None:
        """Answer all callers, and close the journal."""
        self._proposals.stop()
        self.engine.hand_over.stop()
        self.engine.membership.leadership_lost()
        self.guard.reads.refuse(NoPrimaryError("the node is stopping"))
        self.engine.destroy()
        self._journal.close()
