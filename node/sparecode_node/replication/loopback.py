# SPDX-License-Identifier: Apache-2.0
"""
`LoopbackReplicator`: a cluster of one node, in one process, without log or network.

For tests of services and for development. The semantics are the same: calls that are
proposed together are stamped and applied together, an answer comes after its
transaction, and a barrier passes when everything before it is applied.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sparecode_node.domain.clock import Clock
from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.codec import decode_entry, encode_entry
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    NoQuorumError,
    NotAppliedError,
    OutcomeUnknownError,
)
from sparecode_node.replication.members import Member
from sparecode_node.replication.replicator import MemberStatus, Proposal, Stamper
from sparecode_node.statemachine.commands import Call, UnstampedCall
from sparecode_node.statemachine.commands.cluster import PassBarrier
from sparecode_node.statemachine.results import BarrierPassed, Result


class DigestedState(AppliedState, Protocol):
    """A state machine that can hash its state."""

    def digest(self) -> str:
        """Return the hash of the state."""


class LoopbackReplicator:
    """A `Replicator` over a state machine in the same process and thread."""

    def __init__(
        self,
        state: DigestedState,
        stamper: Stamper,
        *,
        clock: Clock,
        node_id: NodeId = NodeId("n1"),  # noqa: B008 - a string.
        on_fatal: Callable[[str], object] = lambda _message: None,
    ) -> None:
        self._state = state
        self._stamper = stamper
        self._clock = clock
        self._node_id = node_id
        self._on_fatal = on_fatal
        self._queue: list[tuple[Proposal, asyncio.Future[Result]]] = []
        self._broken = False
        self._barriers = 0

    @property
    def node_id(self) -> NodeId:
        """This node, the only one."""
        return self._node_id

    @property
    def primary(self) -> NodeId | None:
        """This node, unless its state is broken."""
        return None if self._broken else self._node_id

    @property
    def led_term(self) -> int | None:
        """The only term, unless the state is broken."""
        return None if self._broken else 1

    @property
    def ready(self) -> bool:
        """Whether calls are applied."""
        return not self._broken

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """Return the result; calls that are proposed together are applied together."""
        if self._broken:
            raise NoPrimaryError("the state is broken")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._apply_queued)
        self._queue.append((proposal, future))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise OutcomeUnknownError("the deadline passed") from error

    def _apply_queued(self) -> None:
        queue, self._queue = self._queue, []
        try:
            stamped = self._stamper.stamp([proposal for proposal, _ in queue])
            queue, calls = _taken(queue, stamped)
            if not calls:
                return
            # Encode and decode, so that a call that would not survive the log does not
            # survive here either.
            calls = decode_entry(encode_entry(calls))
            results = self._state.apply(self._state.applied_index + 1, calls)
        except Exception as error:  # noqa: BLE001 - as in the engine: it stops.
            self._broken = True
            self._on_fatal(repr(error))
            for _, future in queue:
                if not future.done():
                    future.set_exception(NoPrimaryError("the state is broken"))
            return
        for (_, future), result in zip(queue, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        """Return once everything proposed before is applied."""
        self._barriers += 1
        call = UnstampedCall.of_node(
            self._node_id, PassBarrier(), RequestId(str(self._barriers))
        )
        result = await self.propose(Proposal(call=call), timeout_s=timeout_s)
        if not isinstance(result, BarrierPassed):
            raise TypeError(f"a barrier came back as {result!r}")
        return result

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:  # noqa: ARG002
        """Return if *index* is applied; no other node could bring it here."""
        if index > self._state.applied_index:
            raise NoQuorumError(f"entry {index} is not here")

    async def transfer_primary(
        self,
        target: NodeId | None = None,
        *,
        timeout_s: float,  # noqa: ARG002
    ) -> NodeId:
        """Refuse: there is no other node."""
        if target == self._node_id:
            return self._node_id
        detail = f"{target or 'no node'} is not another voting member"
        raise ChangeRefusedError(Rejected(Reason.MEMBER_UNKNOWN, detail))

    def members(self) -> tuple[Member, ...]:
        """Return this node, which has no address."""
        return (Member(node_id=self._node_id, address=""),)

    @property
    def removed(self) -> bool:
        """False: no other node could remove it."""
        return False

    @property
    def older_copies(self) -> tuple[NodeId, ...]:
        """None: there is no other node."""
        return ()

    @property
    def refusals(self) -> Mapping[NodeId, str]:
        """None: there is no other node."""
        return {}

    @property
    def level_to_raise(self) -> int | None:
        """None: nothing is older than this node."""
        return None

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:  # noqa: ARG002
        """Refuse: there is no log that another node could be sent."""
        raise _alone(f"{member.node_id} cannot be added: this node has no journal")

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:  # noqa: ARG002
        """Do nothing for this node; there are no others."""
        self._check_own(node_id)

    async def remove_member(self, node_id: NodeId, *, timeout_s: float) -> None:  # noqa: ARG002
        """Refuse: there is no other node to remove."""
        self._check_own(node_id)
        raise _alone(f"{node_id} is the only member")

    def _check_own(self, node_id: NodeId) -> None:
        if node_id != self._node_id:
            detail = f"{node_id} is not a member"
            raise ChangeRefusedError(Rejected(Reason.MEMBER_UNKNOWN, detail))

    async def status(
        self,
        *,
        digest: bool,
        timeout_s: float,  # noqa: ARG002
    ) -> tuple[MemberStatus, ...]:
        """Return the status of the one member."""
        applied = self._state.applied_index
        return (
            MemberStatus(
                node_id=self._node_id,
                reachable=True,
                is_primary=not self._broken,
                term=1,
                commit_index=applied,
                applied_index=applied,
                digest=self._state.digest() if digest else "",
                clock_ms=self._clock.now_ms(),
            ),
        )


def _alone(detail: str) -> ChangeRefusedError:
    return ChangeRefusedError(Rejected(Reason.MEMBER_NOT_READY, detail))


def _taken(
    queue: list[tuple[Proposal, asyncio.Future[Result]]],
    stamped: Sequence[Call | NotAppliedError],
) -> tuple[list[tuple[Proposal, asyncio.Future[Result]]], tuple[Call, ...]]:
    """Answer the calls that cannot be judged now; return the others and their callers."""
    taken, calls = [], []
    for waiting, each in zip(queue, stamped, strict=True):
        if not isinstance(each, NotAppliedError):
            taken.append(waiting)
            calls.append(each)
        elif not waiting[1].done():
            waiting[1].set_exception(each)
    return taken, tuple(calls)
