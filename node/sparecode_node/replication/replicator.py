# SPDX-License-Identifier: Apache-2.0
"""
The seam between use cases and Raft: few verbs, kept narrow on purpose.

Implemented by `cluster_replicator.ClusterReplicator` (PySyncObj, several
nodes) and `loopback.LoopbackReplicator` (one process: tests, development).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import NotAppliedError
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.statemachine.commands import Call, UnstampedCall
from sparecode_node.statemachine.feature_level import FIRST
from sparecode_node.statemachine.results import BarrierPassed, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """
    A call on its way to the primary.

    *tokencodes* are the clear digits, one for each reading length, that the
    primary needs to match tokens (T1). They travel between members under
    mutual TLS, and never enter the log: `Stamper` turns them into matches.
    """

    call: UnstampedCall
    tokencodes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what is proposed, without the secret part."""
        return f"Proposal({type(self.call.command).__name__})"


class Stamper(Protocol):
    """What the primary does to a proposal before it enters the log (T1)."""

    def stamp(self, proposals: Sequence[Proposal]) -> Sequence[Call | NotAppliedError]:
        """
        Return the calls with the primary's time and with matched tokencodes.

        In the place of a call that cannot be judged here and now: why not.

        Called on the primary only, on the engine's thread or a worker, with
        the local applied state as it is then. Never raises for bad input.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One member as it sees itself, or as others fail to see it."""

    node_id: NodeId
    reachable: bool
    """It has answered."""
    busy: bool = False
    """It is there, and has too much to do to answer."""
    is_primary: bool = False
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    digest: str = ""
    """Hash of the state at `applied_index`, hex; empty if not asked for."""
    version: str = ""
    feature_level: int = FIRST
    """The newest that its software knows."""
    clock_ms: int = 0
    """The member's clock when it answered."""
    audit_sequence: int = 0
    """Events in its audit log."""
    audit_head: str = ""
    """Hash of the last of them, hex; equal wherever there are equally many (U1)."""
    role: MemberRole = MemberRole.VOTER
    """As the configuration of the node that was asked has it."""
    address: str = ""
    """Where other members reach it, by the same configuration."""
    last_entry: tuple[int, int] = 0, 0
    """Term and index of the last entry of its log, committed or not."""
    match_index: int = 0
    """Of entries up to here the primary knows that the member has them on disk; told
    by the primary only, 0 elsewhere."""


class Replicator(Protocol):
    """Replicates calls, and says how far this node has got."""

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """
        Return the result of the call after a quorum has committed it.

        Forwards to the primary if that is another node; retries inside
        *timeout_s* while the outcome is certainly "not applied", and, because
        every call has a request id, also while it is unknown. Only load is not
        added to: `OverloadedError` is raised at once.

        Raises `NotAppliedError` or `OutcomeUnknownError` after that.
        """

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        """
        Return once the local state covers all that was committed before the call.

        Concurrent callers share a barrier. Raises `ProposeError`.
        """

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Return once the local applied index is at least *index*. Raises `ProposeError`."""

    async def status(
        self, *, digest: bool, timeout_s: float
    ) -> tuple[MemberStatus, ...]:
        """Return every member's status, this node's first; unreachable ones say so."""

    async def transfer_primary(
        self, target: NodeId | None = None, *, timeout_s: float
    ) -> NodeId:
        """
        Have *target* lead, or whoever has most of the log; return who leads then.

        Raises `ChangeRefusedError` if nobody takes over, and `ProposeError`.
        """

    def members(self) -> tuple[Member, ...]:
        """Return the members by the newest configuration that this node has."""

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:
        """
        Have *member* be sent everything, as a learner; return when that is committed.

        Nothing happens if it is a member at that address already. Raises
        `ChangeRefusedError` (`MEMBER_EXISTS` at another address, `MEMBER_REMOVED`
        for an id that was removed once and is never used again, `MEMBER_NOT_READY`
        while another change is under way), and `ProposeError`. All changes of
        members may be asked of any node, and again after an unknown outcome.
        """

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:
        """
        Have a learner vote, when it has caught up; return when that is committed.

        Waits for it within the deadline. Nothing happens if it votes already.
        Raises `ChangeRefusedError` (`MEMBER_UNKNOWN`, `MEMBER_NOT_READY`), and
        `ProposeError`.
        """

    async def remove_member(self, node_id: NodeId, *, timeout_s: float) -> None:
        """
        Have a member be none any more, for ever; return when that is committed.

        The primary hands over first. Nothing happens if it was removed already.
        Raises `ChangeRefusedError` (`MEMBER_UNKNOWN`, or `MEMBER_NOT_READY` if too
        few of those that stay are in contact), and `ProposeError`.
        """

    @property
    def node_id(self) -> NodeId:
        """This node."""

    @property
    def primary(self) -> NodeId | None:
        """The primary as far as this node has heard of late."""

    @property
    def ready(self) -> bool:
        """A quorum is in contact, this node has caught up, its journal is usable."""

    @property
    def level_to_raise(self) -> int | None:
        """The feature level that all members know and the cluster lacks, if this node leads."""
