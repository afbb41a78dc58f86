# SPDX-License-Identifier: Apache-2.0
"""Calls on requests that need approval."""

from datetime import timedelta

from sparecode.v1 import administrators_pb2 as pb
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, position_in, time_in
from sparecode_client.values.approvals import Approval
from sparecode_client.values.results import Commit, Page


class Approvals(Caller):
    """The calls of `AdministratorService` on approvals."""

    async def list_approvals(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[Approval]:
        """Return a page of waiting and approved requests, oldest first."""
        request = pb.ListApprovalsRequest(
            page_size=page_size, page_token=page_token, stale_ok=stale_ok
        )
        answer = await self._client.unary(
            lambda node: node.administrators.ListApprovals, request, within=within
        )
        return Page(
            items=tuple(approval_in(each) for each in answer.approvals),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def approve(
        self,
        approval_id: int,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Approve a request.

        A requested change is made at once. For requested codes, the author may now issue
        them.

        Raises:
            NotPermitted: The request is your own.
            Refused: The requested change is no longer possible.
        """
        request = pb.ApproveRequest(
            request_id=request_id or new_request_id(), approval_id=approval_id
        )
        answer = await self._client.unary(
            lambda node: node.administrators.Approve, request, within=within
        )
        return commit_in(answer.commit)

    async def reject(
        self,
        approval_id: int,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Reject a request, or withdraw its approval. You may reject your own."""
        request = pb.RejectRequest(
            request_id=request_id or new_request_id(), approval_id=approval_id
        )
        answer = await self._client.unary(
            lambda node: node.administrators.Reject, request, within=within
        )
        return commit_in(answer.commit)


def approval_in(approval: pb.Approval) -> Approval:
    """Convert an approval."""
    return Approval(
        approval_id=approval.approval_id,
        author=approval.author,
        action=approval.action,
        target=approval.target,
        description=approval.description,
        serials=tuple(approval.serials),
        usernames=tuple(approval.usernames),
        recipient=approval.recipient,
        ask_time=time_in(approval, "ask_time"),
        end_time=time_in(approval, "end_time"),
        approver=approval.approver,
    )
