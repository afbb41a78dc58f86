# SPDX-License-Identifier: Apache-2.0
"""
The interface between services and Raft: few methods, kept narrow on purpose.

`cluster_replicator.ClusterReplicator` implements it for several nodes (PySyncObj), and
`loopback.LoopbackReplicator` for one process (tests, development).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import ArchiveReport, AuthorityKey
from sparecode_node.replication.errors import NotAppliedError
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.statemachine.commands import Call, UnstampedCall
from sparecode_node.statemachine.feature_level import FIRST
from sparecode_node.statemachine.results import BarrierPassed, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """
    A call on its way to the primary.

    *tokencodes* are the clear digits, one for each length that a reading may have. The
    primary needs them to match tokens (T1). They travel between members under mutual
    TLS and never enter the log: `Stamper` turns them into matches.
    """

    call: UnstampedCall
    tokencodes: tuple[str, ...] = ()
    matched_at_ms: int | None = None
    """The primary's time when it matched the tokencodes; None: not matched yet."""

    def __repr__(self) -> str:
        """Name the command, without the secret part."""
        return f"Proposal({type(self.call.command).__name__})"


class Stamper(Protocol):
    """Prepares proposals on the primary, before they enter the log (T1)."""

    def match(self, proposal: Proposal) -> Proposal | NotAppliedError:
        """
        Return the proposal with matched tokencodes.

        A call that cannot be judged here and now is replaced by the error that says
        why. It takes up to a few milliseconds, so it is called in a thread of its own.
        Never raises for bad input.
        """

    def stamp(self, proposals: Sequence[Proposal]) -> Sequence[Call | NotAppliedError]:
        """
        Return the calls with the primary's time and with matched tokencodes.

        A call that cannot be judged here and now is replaced by the error that says
        why.

        Called on the primary only, on the engine's thread or a worker, with the local
        applied state of that moment. Never raises for bad input.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One member as it sees itself, or as others fail to reach it."""

    node_id: NodeId
    reachable: bool
    """Whether it has answered."""
    busy: bool = False
    """Whether it runs, but has too much to do to answer."""
    refusal: str = ""
    """Why it refuses the caller as a member; empty: it does not."""
    is_primary: bool = False
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    digest: str = ""
    """Hash of the state at `applied_index`, hex; empty if it was not requested."""
    version: str = ""
    feature_level: int = FIRST
    """The newest level that its software knows."""
    clock_ms: int = 0
    """The member's clock when it answered."""
    audit_sequence: int = 0
    """Number of events in its audit log."""
    audit_head: str = ""
    """
    Hash of the last event, hex: equal on all nodes with the same number of events (U1).
    """
    role: MemberRole = MemberRole.VOTER
    """Its role by the configuration of the called node."""
    address: str = ""
    """Where other members reach it, by the same configuration."""
    recovery_bundle: str = ""
    """Whether a recovery bundle has its keys; see membership/bundle_record.py."""
    authorities: tuple[AuthorityKey, ...] = ()
    """The authorities that it trusts now; empty: unknown."""
    shown_authorities: tuple[str, ...] = ()
    """Fingerprints of the members' authorities that signed what it shows; empty: unknown."""
    archive: ArchiveReport | None = None
    """Its own archive of the audit log; None: it has none, or does not say."""
    last_entry: tuple[int, int] = 0, 0
    """Term and index of the last entry of its log, committed or not."""
    match_index: int = 0
    """
    The last entry that the member has on disk, as far as the primary knows. Only the
    primary tells it; 0 elsewhere.
    """


class Replicator(Protocol):
    """Replicates calls, and tells how far this node has got."""

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """
        Return the result of the call after a quorum has committed it.

        Forwards to the primary if that is another node. Retries within *timeout_s*
        while the call is certainly not applied, and also while its outcome is unknown:
        every call has a request id. Does not add to load: raises `OverloadedError` at
        once, and `RemovedError` on a node that was removed.

        Raises `NotAppliedError` or `OutcomeUnknownError` after the deadline.
        """

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        """
        Return once the local state covers everything committed before the call.

        Concurrent callers share a barrier. Raises `ProposeError`.
        """

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Return once the local applied index is at least *index*. Raises `ProposeError`."""

    async def status(
        self, *, digest: bool, timeout_s: float
    ) -> tuple[MemberStatus, ...]:
        """Return the status of all members, this node's first, also of unreachable ones."""

    async def transfer_primary(
        self, target: NodeId | None = None, *, timeout_s: float
    ) -> NodeId:
        """
        Make *target* the primary; return the new primary.

        Without *target*, the voter with the most of the log takes over. Raises
        `ChangeRefusedError` if no voter does, and `ProposeError`.
        """

    def members(self) -> tuple[Member, ...]:
        """Return the members by the newest configuration on this node."""

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:
        """
        Add *member* as a learner, which gets the log; return when that is committed.

        Does nothing if it is already a member at that address. Raises
        `ChangeRefusedError` (`MEMBER_EXISTS` at another address, `MEMBER_REMOVED` for
        the id of a removed member, which is never used again, `MEMBER_NOT_READY` while
        another change is in progress), and `ProposeError`. Any node takes changes of
        members, and each may be repeated after an unknown outcome.
        """

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:
        """
        Make a learner a voter once it has caught up; return when that is committed.

        Waits for that within the deadline. Does nothing if it is a voter already.
        Raises `ChangeRefusedError` (`MEMBER_UNKNOWN`, `MEMBER_NOT_READY`), and
        `ProposeError`.
        """

    async def remove_member(self, node_id: NodeId, *, timeout_s: float) -> None:
        """
        Remove a member forever; return when that is committed.

        A primary hands over first. Does nothing if the member was removed already.
        Raises `ChangeRefusedError` (`MEMBER_UNKNOWN`, or `MEMBER_NOT_READY` if too few
        of the remaining voters are in contact), and `ProposeError`.
        """

    @property
    def node_id(self) -> NodeId:
        """This node."""

    @property
    def primary(self) -> NodeId | None:
        """The primary, as far as this node has heard recently."""

    @property
    def led_term(self) -> int | None:
        """The term in which this node is the primary; None: it is not."""

    @property
    def ready(self) -> bool:
        """Whether a quorum is in contact, this node has caught up, and its journal works."""

    @property
    def removed(self) -> bool:
        """Whether this node knows that it was removed from the cluster, for good."""

    @property
    def refusals(self) -> Mapping[NodeId, str]:
        """The other nodes that refuse this one as a member, each with its reason."""

    @property
    def older_copies(self) -> tuple[NodeId, ...]:
        """The nodes that this one refuses as restored from an older copy."""

    @property
    def level_to_raise(self) -> int | None:
        """The feature level that all members know and the cluster lacks, if this node leads."""
