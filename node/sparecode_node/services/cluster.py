# SPDX-License-Identifier: Apache-2.0
"""Use case: the state of the cluster, as the called node sees it."""

from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authorization import Authorization
from sparecode_node.services.context import CallContext


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One member as it sees itself, or as the called node fails to see it."""

    node_id: NodeId
    reachable: bool
    is_primary: bool
    term: int
    commit_index: int
    applied_index: int
    lag: int
    """How far its applied index is behind the highest commit index seen."""
    digest: str
    """Of its state at its applied index; empty if not asked for."""
    version: str
    clock_offset_ms: int
    """Its clock minus the called node's, as far as one round trip tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """Every member, in the order of node ids."""

    node_id: NodeId
    """The node that answered."""
    primary: NodeId | None
    quorum: bool
    """A quorum of members was reached."""
    members: tuple[MemberView, ...]
    cluster_id: str
    """Empty before the cluster is initialized."""


class Cluster:
    """Shows the cluster to operators."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        authorization: Authorization,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._authorization = authorization
        self._clock = clock

    async def status(
        self, context: CallContext, *, digest: bool = False
    ) -> ClusterStatus:
        """
        Return every member's state.

        Works without a quorum, with a session valid in the local state (P2).
        Raises `NotSignedInError`, `NotPermittedError`.
        """
        raise NotImplementedError
