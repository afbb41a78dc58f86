# SPDX-License-Identifier: Apache-2.0
"""Use cases: changes that another administrator must approve (P3, I10)."""

from dataclasses import replace
from typing import Protocol

from sparecode_node.queries import approvals
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.people.live_codes import LiveCodeCounts
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.commands.approvals import Approve, Reject
from sparecode_node.statemachine.commands.pending import Change
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.results import Applied

APPROVAL_ID_MAX = 2**63 - 1


class ChangeCheck(Protocol):
    """Checks what the state does not know, before a change takes effect."""

    async def __call__(self, change: Change, *, timeout_s: float) -> None:
        """Raise `Refused` if the change would do harm now."""


class Approvals:
    """
    Lists, approves and rejects waiting requests.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`APPROVAL_UNKNOWN`, `APPROVAL_STALE`,
    `SELF_SERVICE_FORBIDDEN`, and the refusals of the change itself) and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        check: ChangeCheck,
        counts: LiveCodeCounts,
    ) -> None:
        """Keep *check*, which repeats what was checked at the request."""
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._check = check
        self._counts = counts

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[ApprovalView]]:
        """Return a page of waiting requests and of permits, oldest first."""
        size = fields.page_size(page_size)

        async def query(
            transaction: ReadTransaction, now_ms: int
        ) -> Page[ApprovalView]:
            return await approvals.page(
                transaction, size=size, page_token=page_token, now_ms=now_ms
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def approve(self, context: CallContext, *, approval_id: int) -> Applied:
        """Apply a waiting change, or permit its author to issue the waiting codes."""
        command = Approve(approval_id=_number(approval_id))
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            change = await approvals.waiting_change(transaction, command.approval_id)
        if change is not None:
            await self._check(change, timeout_s=deadline.left_s())

        async def prepare() -> Approve:
            if not isinstance(change, UpdatePolicy):
                return command
            counted = await self._counts.counted(context, session, deadline, change)
            return replace(command, counted=counted)

        return applied(
            await self._proposer.propose_fresh(context, session, deadline, prepare)
        )

    @idempotent
    async def reject(self, context: CallContext, *, approval_id: int) -> Applied:
        """Refuse a waiting request, or withdraw a permit."""
        command = Reject(approval_id=_number(approval_id))
        return await self._proposer.change(context, command)


def _number(approval_id: int) -> int:
    if not 1 <= approval_id <= APPROVAL_ID_MAX:
        raise InvalidFieldError("approval_id", "must be the id of a waiting request")
    return approval_id
