# SPDX-License-Identifier: Apache-2.0
"""
Checks of a waiting change when it is approved, which ask the members again (P3).

The request of such a change was checked by asking the members. Since then a day may have
passed, and they may hold something else, or have taken other certificates. Apply cannot
ask members, so the node that is called to approve asks them.
"""

import asyncio
from collections.abc import Callable, Sequence

from sparecode_node.domain.membership import Successor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.cluster.authority_use import (
    check_unused,
    use_of_successors,
)
from sparecode_node.services.cluster.segment_holders import check_lost
from sparecode_node.services.errors import refusal
from sparecode_node.statemachine.commands.membership import (
    FinishAuthorities,
    KeepAuthorities,
)
from sparecode_node.statemachine.commands.segments import DeclareSegmentsLost


class ApprovalChecks:
    """Asks the members about a waiting change, before an approval applies it."""

    def __init__(
        self,
        replicator: Replicator,
        state: LocalState,
        accepted: Callable[[], Sequence[Successor]],
    ) -> None:
        """Keep *accepted*, which reads the successors whose proof this node has checked."""
        self._replicator = replicator
        self._state = state
        self._accepted = accepted

    async def check(self, change: object, *, timeout_s: float) -> None:
        """
        Check again what the request of a change has asked the members.

        Raises `Refused` (`MEMBER_NOT_READY`, `APPROVAL_STALE`, `SEGMENT_HELD`) and
        `ProposeError`.
        """
        match change:
            case KeepAuthorities():
                await check_unused(
                    self._replicator, self._state, change.node_id, timeout_s=timeout_s
                )
            case FinishAuthorities():
                await self._check_successors(change, timeout_s)
            case DeclareSegmentsLost():
                await check_lost(
                    self._replicator, self._state, change, timeout_s=timeout_s
                )

    async def _check_successors(
        self, change: FinishAuthorities, timeout_s: float
    ) -> None:
        use = await use_of_successors(
            self._replicator,
            self._state,
            await asyncio.to_thread(self._accepted),
            change.node_id,
            timeout_s=timeout_s,
        )
        if use.successors != change.successors:
            raise refusal(
                Rejected(
                    Reason.APPROVAL_STALE,
                    "the members use other successors than at the request: "
                    "request it again",
                )
            )
