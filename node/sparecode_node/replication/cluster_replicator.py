# SPDX-License-Identifier: Apache-2.0
"""`ClusterReplicator`: the `Replicator` of a node in a cluster."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparecode_node.domain.clock import Clock
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import ArchiveReport, AuthorityKey
from sparecode_node.replication import levels
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.calls.forward_queue import ForwardQueues
from sparecode_node.replication.calls.membership_requests import (
    MembershipRequests,
    with_configuration,
)
from sparecode_node.replication.calls.peer_calls import PeerCalls
from sparecode_node.replication.calls.primary_contact import ATTEMPT_S, PrimaryContact
from sparecode_node.replication.calls.quorum_wait import QuorumWait
from sparecode_node.replication.calls.read_points import ReadPoints
from sparecode_node.replication.calls.waiters import AppliedWaiters, Shared
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import (
    ClockError,
    NoPrimaryError,
    NoQuorumError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
    RemovedError,
)
from sparecode_node.replication.links.key_exchange import KeyExchange, NoKeys
from sparecode_node.replication.links.member_keys import MemberKeys
from sparecode_node.replication.links.segment_exchange import (
    NoSegments,
    SegmentExchange,
)
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.links.transport import PeerAddresses, PeerTransport
from sparecode_node.replication.log.skips import SkipFolder, SkipSettings
from sparecode_node.replication.members import Member
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Promote,
    Remove,
)
from sparecode_node.replication.replica.engine_thread import EngineThread, OpenState
from sparecode_node.replication.replica.observer import (
    Observer,
    PrimaryWatch,
    Unobserved,
    proposal_observed,
)
from sparecode_node.replication.replica.replica import ReplicaConfig, ReplicaStatus
from sparecode_node.replication.replica.snapshot_keeper import (
    SnapshotKeeper,
    StateSnapshots,
)
from sparecode_node.replication.replicator import MemberStatus, Proposal
from sparecode_node.replication.settings import CALL_BYTES_MAX, RaftSettings
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.results import BarrierPassed, Result

log = logging.getLogger(__name__)

RETRY_S = 0.05
"""Between two attempts, if no news of a primary comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """What a node needs to take part."""

    cluster_id: str
    addresses: PeerAddresses
    tls: PeerTls
    directory: Path
    """Holds the journal, and belongs to this process alone."""
    raft: RaftSettings = field(default_factory=RaftSettings)
    version: str = ""
    recovery_bundle: Callable[[], str] = str
    """Returns the state of this node's recovery bundle; reads files."""
    authorities: Callable[[], tuple[AuthorityKey, ...]] = tuple
    """Returns the authorities that this node trusts now."""
    shown_authorities: Callable[[], tuple[str, ...]] = tuple
    """Returns the fingerprints of those that signed the certificates it shows."""
    archive: Callable[[], ArchiveReport | None] = lambda: None
    """Returns what this node says of its archive of the audit log."""
    feature_level: int = NEWEST
    skip_folder: SkipFolder | None = None
    """Has the statements about entries that the operators skip (E3)."""
    observer: Observer = field(default_factory=Unobserved)
    keys: KeyExchange = field(default_factory=lambda: KeyExchange(NoKeys()))
    member_keys: MemberKeys = field(default_factory=MemberKeys)
    """The keys that members must show (P5a)."""
    segments: SegmentExchange = field(
        default_factory=lambda: SegmentExchange(NoSegments())
    )
    on_malformed: Callable[[str, str], object] = lambda *_: None
    """Called with method and peer of a call to this member that does not decode."""


@dataclass(slots=True)
class _Known:
    """What is known of the outcome of one proposal."""

    doubt: OutcomeUnknownError | None = None
    """An earlier attempt may have been applied, whatever the last one says."""
    failure: ProposeError | None = None
    under_way: bool = False
    """Whether an attempt has no outcome yet."""

    def error(self, no_quorum: NoQuorumError) -> ProposeError:
        """Return the error for a caller that does not wait for a quorum any longer."""
        if self.doubt is None and self.under_way:
            return OutcomeUnknownError("the primary did not answer before it was lost")
        if self.doubt is None and isinstance(self.failure, ClockError):
            return self.failure
        return self.doubt or no_quorum


class ClusterReplicator:
    """
    A `Replicator` over Raft. `start` it once, `stop` it once, in one loop.

    *salt* is random, `log.format.SALT_BYTES` long, for a journal that is created.
    *read_digest* returns the applied index and the digest at it; *read_head* returns
    the number of audit events and the hash of the last one. Both run in a worker
    thread, on their own connections.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        clock: Clock,
        salt: bytes,
        open_state: OpenState,
        read_digest: Callable[[], tuple[int, str]],
        read_head: Callable[[], tuple[int, str]],
        snapshots: StateSnapshots,
        on_fatal: Callable[[str], object],
    ) -> None:
        self._config = config
        self._clock = clock
        # Reading the whole state takes seconds: concurrent callers share it.
        self._digest = Shared(lambda: asyncio.to_thread(read_digest), name="digest")
        self._read_head = read_head
        self._observer = config.observer
        self._primary_watch = PrimaryWatch(self._observer)
        self._status = ReplicaStatus()
        self._news = asyncio.Event()
        self._applied = AppliedWaiters()
        self._quorum_wait = QuorumWait(config.raft.election_max_s)
        self._transport = PeerTransport(
            config.addresses,
            config.tls,
            config.cluster_id,
            config.keys,
            level=config.feature_level,
            on_malformed=config.on_malformed,
            member_keys=config.member_keys,
            patience_s=config.raft.election_min_s,
            on_failed=lambda message: self._take_fatal(message, on_fatal),
        )
        self._transport.lend(config.segments)
        self._forwarding = ForwardQueues(self._transport.channel, self._observer)
        self._running = False
        self._engine = EngineThread(
            ReplicaConfig(
                cluster_id=config.cluster_id,
                node_id=config.addresses.node_id,
                members=config.addresses.written(),
                joins=config.addresses.joins,
                salt=salt,
                raft=config.raft,
                skips=SkipSettings(
                    folder=config.skip_folder,
                    authorities=lambda: self._transport.authorities,
                ),
            ),
            config.directory,
            open_state=open_state,
            wire=self._transport.wire,
            wall_ms=clock.now_ms,
            on_status=self._take_status,
            on_fatal=lambda message: self._take_fatal(message, on_fatal),
            observer=self._observer,
        )
        self._snapshots = SnapshotKeeper(
            self._engine, snapshots, self._transport.channel, self._observer
        )
        contact = PrimaryContact(
            node_id=self.node_id,
            engine=self._engine,
            primary=lambda: self.primary if self._running else None,
            channel=self._transport.channel,
            news=self._news_before,
            quorum_wait=self._quorum_wait,
        )
        self._read_points = ReadPoints(contact, now_ms=clock.now_ms)
        self._changes = MembershipRequests(contact)

    # --- Start and stop

    async def start(self) -> None:
        """Open journal and state, then listen and dial. Raises `StartRefusedError`."""
        await self._engine.start()
        try:
            calls = PeerCalls(
                engine=self._engine,
                snapshots=self._snapshots,
                changes=self._changes,
                read_points=self._read_points,
                status=lambda digest: self._own_status(digest=digest),
            )
            await self._transport.start(self._engine, calls)
            await self._snapshots.start()
        except BaseException:
            await self._engine.stop()
            raise
        self._running = True

    async def stop(self) -> None:
        """Stop the network first, then the engine, even if a stop before it fails."""
        self._running = False
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._engine.stop)
            stack.push_async_callback(self._transport.stop)
            stack.push_async_callback(self._snapshots.stop)
            stack.push_async_callback(self._read_points.stop)
            stack.push_async_callback(self._digest.stop)

    async def renew_certificate(self, tls: PeerTls) -> None:
        """Show another certificate to the other members from now on."""
        await self._transport.renew(tls)

    def _take_status(self, status: ReplicaStatus) -> None:
        self._status = status
        self._transport.take_status(status)
        self._primary_watch.take(status.leader, status.term)
        self._read_points.take_primary(status.leader)
        self._applied.advance(status.applied_index)
        self._quorum_wait.take_contact(has_contact=status.has_contact)
        self._news.set()
        self._snapshots.take_status(status)

    def _take_fatal(self, message: str, tell: Callable[[str], object]) -> None:
        self._running = False
        self._status = ReplicaStatus()
        self._quorum_wait.take_contact(has_contact=False)
        tell(message)

    # --- Replicator

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return self._config.addresses.node_id

    @property
    def primary(self) -> NodeId | None:
        """The primary, as far as this node has heard recently."""
        return self._status.leader

    @property
    def led_term(self) -> int | None:
        """The term in which this node is the primary; None: it is not."""
        status = self._status  # Another thread replaces it.
        return status.term if status.leader == self.node_id else None

    @property
    def replica_status(self) -> ReplicaStatus:
        """The latest status of this node's replica; any thread may read it."""
        return self._status

    @property
    def ready(self) -> bool:
        """A quorum is in contact, and this node has caught up."""
        status = self._status
        return self._running and status.has_contact and status.caught_up

    @property
    def removed(self) -> bool:
        """
        Whether this node's own log, or a member that it has called, says so.

        A node that was away learns it by a refusal. Any thread may read it.
        """
        return (
            self.node_id in self._status.agreed.removed
            or Refusal.REMOVED in self.refusals.values()
        )

    @property
    def refusals(self) -> Mapping[NodeId, str]:
        """The other nodes that refuse this one, each with its reason. Thread-safe."""
        member = self._status.refused_by
        if not member:
            return self._transport.refusals
        older = {NodeId(member): Refusal.ROLLED_BACK.value}
        return {**self._transport.refusals, **older}

    @property
    def older_copies(self) -> tuple[NodeId, ...]:
        """The nodes that this one refuses as older copies. Thread-safe."""
        return self._status.older_copies

    def _check_not_removed(self) -> None:
        if self.removed:
            raise RemovedError(self.node_id)

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """
        Return the result of the call after a quorum has committed it.

        A primary that sheds load is not asked again: callers have their own retries.
        """
        encoded = encode_call(proposal.call)
        if len(encoded) > CALL_BYTES_MAX:
            raise ValueError("the call is too large for the log")
        with proposal_observed(self._observer):
            return await self._propose(proposal, encoded, timeout_s)

    async def _propose(
        self, proposal: Proposal, encoded: bytes, timeout_s: float
    ) -> Result:
        known = _Known()
        try:
            async with self._quorum_wait.limited():
                return await self._propose_until(
                    asyncio.get_running_loop().time() + timeout_s,
                    proposal,
                    encoded,
                    known,
                )
        except NoQuorumError as error:
            raise known.error(error) from error

    async def _propose_until(
        self, deadline: float, proposal: Proposal, encoded: bytes, known: "_Known"
    ) -> Result:
        """Propose again and again, and record in *known* what is known meanwhile."""
        while True:
            left_s = deadline - asyncio.get_running_loop().time()
            known.under_way = True
            try:
                levels.check(proposal.call, self._status.feature_level)
                attempt_s = max(0.001, min(left_s, ATTEMPT_S))
                return await self._attempt(proposal, encoded, attempt_s)
            except OutcomeUnknownError as error:
                known.doubt = known.failure = error
            except (OverloadedError, RemovedError) as error:
                raise known.doubt or error from error
            except NotAppliedError as error:
                known.failure = error
            known.under_way = False
            if not await self._news_before(deadline):
                raise known.doubt or known.failure

    @property
    def level_to_raise(self) -> int | None:
        """A feature level that all members know and the cluster does not have yet, if any."""
        status = self._status
        if not (self._running and status.is_leader):
            return None
        others = [m for m in status.configuration.ids if m != self.node_id]
        return levels.to_raise(status.feature_level, others, self._transport.levels)

    async def _attempt(
        self, proposal: Proposal, encoded: bytes, timeout_s: float
    ) -> Result:
        """Propose once, here or on the primary."""
        self._check_not_removed()
        status = self._status
        primary = status.leader
        if self._running and primary is None and not status.links_quorum:
            raise NoQuorumError("this node is not linked to a quorum")
        if self._running and primary is None and status.clock_differs:
            raise ClockError("this node's clock differs from a quorum's")
        if not self._running or primary is None:
            raise NoPrimaryError("no primary is known here")
        if primary == self.node_id:
            return await self._engine.propose(proposal, timeout_s=timeout_s)
        return await self._forwarding.to(primary).forward(
            encoded, proposal.tokencodes, timeout_s=timeout_s
        )

    async def _news_before(self, deadline: float) -> bool:
        """Wait for a change, or a moment; return False if the deadline comes first."""
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s <= RETRY_S:
            return False
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._news.wait()
        return True

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        """Return once the local state covers everything committed before the call."""
        self._check_not_removed()
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._quorum_wait.limited():
            barrier = await self._read_points.passed(timeout_s=timeout_s)
            left_s = deadline - asyncio.get_running_loop().time()
            await self._applied.wait(barrier.index, timeout_s=left_s)
        return barrier

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Return once *index* is applied here."""
        async with self._quorum_wait.limited():
            await self._applied.wait(index, timeout_s=timeout_s)

    async def transfer_primary(
        self, target: NodeId | None = None, *, timeout_s: float
    ) -> NodeId:
        """
        Make *target* the primary; return the new primary.

        Without *target*, the voter with the most of the log takes over. No call gets
        lost: calls wait for the new primary.
        """
        self._check_not_removed()
        return await self._changes.transfer(target, timeout_s=timeout_s)

    def members(self) -> tuple[Member, ...]:
        """Return the members by the newest configuration here."""
        return self._status.configuration.members

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:
        """Add *member* as a learner, which gets the log."""
        self._check_not_removed()
        await self._changes.change_members(AddLearner(member), timeout_s=timeout_s)

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:
        """Make a learner a voter, once it has caught up."""
        self._check_not_removed()
        await self._changes.change_members(Promote(node_id), timeout_s=timeout_s)

    async def remove_member(self, node_id: NodeId, *, timeout_s: float) -> None:
        """Remove a member forever."""
        if node_id == self.node_id and self.removed:
            return
        self._check_not_removed()
        await self._changes.change_members(Remove(node_id), timeout_s=timeout_s)

    async def status(
        self, *, digest: bool, timeout_s: float
    ) -> tuple[MemberStatus, ...]:
        """Return every member's status."""
        members = self._status.configuration.members
        # All at the same time: digests can be compared only at the same index.
        statuses = await asyncio.gather(
            self._own_status(digest=digest),
            *(
                peer_messages.ask_status(
                    self._transport.channel(member.node_id),
                    member.node_id,
                    digest=digest,
                    timeout_s=timeout_s,
                )
                for member in members
                if member.node_id != self.node_id
            ),
        )
        return with_configuration(
            statuses, members, await self._changes.match_indexes(timeout_s)
        )

    async def _own_status(self, *, digest: bool) -> MemberStatus:
        status = self._status
        without = status.applied_index, ""
        applied, hashed = await self._digest.result() if digest else without
        head = await asyncio.to_thread(self._read_head)
        return MemberStatus(
            node_id=self.node_id,
            reachable=True,
            is_primary=status.is_leader,
            term=status.term,
            commit_index=status.commit_index,
            applied_index=applied,
            digest=hashed,
            version=self._config.version,
            feature_level=self._config.feature_level,
            clock_ms=self._clock.now_ms(),
            audit_sequence=head[0],
            audit_head=head[1],
            recovery_bundle=await asyncio.to_thread(self._config.recovery_bundle),
            authorities=await asyncio.to_thread(self._config.authorities),
            shown_authorities=await asyncio.to_thread(self._config.shown_authorities),
            archive=self._config.archive(),
            last_entry=status.last_entry,
        )
