# SPDX-License-Identifier: Apache-2.0
"""
The seam between use cases and Raft: five verbs, kept narrow on purpose.

Implemented by `cluster_replicator.ClusterReplicator` (PySyncObj, several
nodes) and `loopback.LoopbackReplicator` (one process: tests, development).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.results import BarrierPassed, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """
    A call on its way to the primary.

    *tokencodes* are the clear digits, one for each reading length, that the
    primary needs to match tokens (T1). They travel between members under
    mutual TLS, and never enter the log: `Stamper` turns them into matches.
    """

    call: Call
    tokencodes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what is proposed, without the secret part."""
        return f"Proposal({type(self.call.command).__name__})"


class Stamper(Protocol):
    """What the primary does to a proposal before it enters the log (T1)."""

    def stamp(self, proposals: Sequence[Proposal]) -> tuple[Call, ...]:
        """
        Return the calls with the primary's time and with matched tokencodes.

        Called on the primary only, on the engine's thread or a worker, with
        the local applied state as it is then. Never raises for bad input.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One member as it sees itself, or as others fail to see it."""

    node_id: NodeId
    reachable: bool
    is_primary: bool = False
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    digest: str = ""
    """Hash of the state at `applied_index`, hex; empty if not asked for."""
    version: str = ""
    clock_ms: int = 0
    """The member's clock when it answered."""
    audit_sequence: int = 0
    """Events in its audit log."""
    audit_head: str = ""
    """Hash of the last of them, hex; equal wherever there are equally many (U1)."""


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

    @property
    def node_id(self) -> NodeId:
        """This node."""

    @property
    def primary(self) -> NodeId | None:
        """The primary as far as this node has heard of late."""

    @property
    def ready(self) -> bool:
        """A quorum is in contact, this node has caught up, its journal is usable."""
