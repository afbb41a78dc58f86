# SPDX-License-Identifier: Apache-2.0
"""
Reconciles the cluster's membership with the replicated state. Runs on the primary.

An admitted node becomes a learner, and a learner that has caught up becomes a voter. It
may still lack sealed segments of the audit log: a vote takes no copy of them away. What
could is a removal, which is refused while too few others hold them (`segment_holders`).
Every step can be repeated, so a primary that fails midway leaves nothing half done.
"""

import asyncio
import logging

from sparecode_node.domain.ids import NodeId
from sparecode_node.queries import membership
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ChangeRefusedError, ProposeError
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.replication.replicator import Replicator

log = logging.getLogger(__name__)

PAUSE_S = 0.5
ADD_S = 5.0
PROMOTE_S = 10.0
"""For one learner to catch up, before the next one's turn."""


class MembershipSync:
    """Adds and promotes learners. Runs in the event loop."""

    def __init__(self, replicator: Replicator, state: LocalState) -> None:
        self._replicator = replicator
        self._state = state
        self._logged: dict[NodeId, str] = {}

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            if self._replicator.primary == self._replicator.node_id:
                await self.step()
            await asyncio.sleep(PAUSE_S)

    async def step(self) -> None:
        """Make the changes that are due, one after the other."""
        async with self._state.transaction() as transaction:
            known = await membership.nodes(transaction)
        members = {member.node_id for member in self._replicator.members()}
        for node in known:
            if not node.removed and node.node_id not in members:
                await self._add(Member(node_id=node.node_id, address=node.address))
        for member in self._replicator.members():
            if member.role is MemberRole.LEARNER:
                await self._promote(member.node_id)

    async def _add(self, member: Member) -> None:
        try:
            await self._replicator.add_learner(member, timeout_s=ADD_S)
        except ProposeError as error:
            self._not_yet(member.node_id, error)
        else:
            log.info("learner_added", extra={"member": member.node_id})

    async def _promote(self, node_id: NodeId) -> None:
        try:
            await self._replicator.promote(node_id, timeout_s=PROMOTE_S)
        except ProposeError as error:
            self._not_yet(node_id, error)
        else:
            self._logged.pop(node_id, None)
            log.info("learner_promoted", extra={"member": node_id})

    def _not_yet(self, node_id: NodeId, error: ProposeError) -> None:
        """Log a refusal once; the change is tried again."""
        words = str(error)
        refused = isinstance(error, ChangeRefusedError)
        if refused and self._logged.get(node_id) != words:
            self._logged[node_id] = words
            log.warning("member_not_changed", extra={"member": node_id, "cause": words})
