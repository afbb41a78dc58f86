# SPDX-License-Identifier: Apache-2.0
"""
Tells the state which sealed segments this member holds, and follows what others tell (U1).

A member discards sealed events from its state only when every voter holds them. So a
voter that installs a snapshot finds in it all events that were in the states when it
began to vote, and that it has not stored itself. A member that is away or has a full
disk makes the others keep the events.

A new voter fetches older segments while it votes, and does not count as their holder. A
member that answers is removed only when a majority of the voters that stay hold its
segments and answer: so a segment survives the loss of any machines that the cluster
survives. One that is down has no copy to count on; apply refuses to remove it only if no
other member holds a segment. What a member tells is about itself, and only this node
compares it with the file, so it is as true as the member is a member.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.segments import Holding, common, in_words
from sparecode_node.queries import segment_holders
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.members import MemberRole
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.cluster.segment_plan import discardable
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.services.errors import InvalidFieldError, refusal
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.segments import (
    DeclareSegmentsLost,
    NoteSegments,
)
from sparecode_node.statemachine.feature_level import AUDIT_SEGMENTS

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at the file and the state."""
NOTE_S = 5.0
"""Between two notes of a node that fetches many segments."""
ATTEMPT_S = 5.0
DESTROYED_MAX = 32
"""Members that one declaration names."""


class SegmentHolders:
    """What the members hold. Every node runs it, beside the keeper of its own file."""

    def __init__(
        self,
        *,
        keeper: SegmentKeeper,
        replicator: Replicator,
        state: LocalState,
        entropy: Entropy,
    ) -> None:
        self._keeper = keeper
        self._replicator = replicator
        self._state = state
        self._entropy = entropy

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            noted = False
            try:
                noted = await self.step()
            except (ProposeError, sqlite3.OperationalError) as error:
                # A snapshot of an older level has no such tables for a moment.
                log.debug("segments cannot be noted yet: %s", error)
            await asyncio.sleep(NOTE_S if noted else LOOK_S)

    async def step(self) -> bool:
        """
        Note what this node holds, if the state says otherwise; return whether it was noted.

        Raises `ProposeError`.
        """
        async with self._state.transaction() as transaction:
            seen = await segment_holders.overview(transaction)
        own, members = self._replicator.node_id, self._replicator.members()
        # What this node has is judged by the file itself, in the keeper.
        self._keeper.allow(
            discardable(
                members, seen.holdings, seen.last, seen.lost, removed=seen.removed
            ),
            found=seen.found(other_than=own),
        )
        holding = self._keeper.holding
        if (
            holding is None
            or seen.feature_level < AUDIT_SEGMENTS
            or own not in {each.node_id for each in members}
            or holding == seen.holdings.get(own, Holding())
            or holding.through > seen.last
        ):
            return False
        await self._note(own, holding)
        return True

    async def _note(self, own: NodeId, holding: Holding) -> None:
        call = UnstampedCall.of_node(
            own, note_of(own, holding), RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        if isinstance(result, Rejected):
            log.debug("segments were not noted: %s", result.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """Members that answer and stay when another one is removed."""

    members: tuple[NodeId, ...] = ()
    copies: int = 0
    """How many of them must hold each of its segments; 0: any one member, here or not."""


async def who_stays(
    replicator: Replicator, state: LocalState, leaving: NodeId, *, timeout_s: float
) -> Stay:
    """
    Return who must hold the segments of a member before it is removed (U1).

    Raises `ProposeError`.
    """
    async with state.transaction() as transaction:
        seen = await segment_holders.overview(transaction)
    voters = {
        each.node_id
        for each in replicator.members()
        if each.role is MemberRole.VOTER and each.node_id != leaving
    }
    if not voters or leaving not in seen.holdings:
        return Stay()
    statuses = await replicator.status(digest=False, timeout_s=min(LOOK_S, timeout_s))
    here = {each.node_id for each in statuses if each.reachable or each.busy}
    if leaving not in here:
        return Stay()
    return Stay(members=tuple(sorted(here & voters)), copies=len(voters) // 2 + 1)


def note_of(own: NodeId, holding: Holding) -> NoteSegments:
    """Return the command that tells what a member holds."""
    return NoteSegments(
        node_id=own,
        through=holding.through,
        missing=tuple(number for gap in holding.missing for number in gap),
    )


def destroyed_members(names: Sequence[str]) -> tuple[NodeId, ...]:
    """Return the node ids in a request. Raises `InvalidFieldError`."""
    if len(names) > DESTROYED_MAX:
        raise InvalidFieldError("destroyed", f"at most {DESTROYED_MAX} members")
    return tuple(sorted({fields.node_id("destroyed", each) for each in names}))


async def check_lost(
    replicator: Replicator,
    state: LocalState,
    command: DeclareSegmentsLost,
    *,
    timeout_s: float,
) -> None:
    """
    Refuse to declare lost what a member that answers holds; the others fetch it there.

    Raises `Refused` (`SEGMENT_HELD`) and `ProposeError`.
    """
    await replicator.read_barrier(timeout_s=timeout_s)
    async with state.transaction() as transaction:
        seen = await segment_holders.overview(transaction)
    wanted = ((command.first, command.last),)
    statuses = await replicator.status(digest=False, timeout_s=min(LOOK_S, timeout_s))
    for each in statuses:
        held = seen.holdings.get(each.node_id, Holding()).held
        if (each.reachable or each.busy) and (there := common(wanted, held)):
            raise refusal(
                Rejected(
                    Reason.SEGMENT_HELD,
                    f"{each.node_id} has segments {in_words(there)}, and the other "
                    "members fetch them there",
                )
            )
