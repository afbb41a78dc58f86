# SPDX-License-Identifier: Apache-2.0
"""Use cases: review a restored or recovered cluster, and open it (E2)."""

from sparecode_node.domain.administrators import Permission, may
from sparecode_node.queries import review
from sparecode_node.queries.review import Review
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.commands.epochs import OpenCluster
from sparecode_node.statemachine.results import Applied
from sparecode_node.statemachine.tables.review import MARK_DIGITS


class EpochReview:
    """
    Shows what an older state brings back, and opens the cluster for agents.

    Every method raises `NotSignedInError`, `NotPermittedError` and `ProposeError`.
    """

    def __init__(self, *, proposer: Proposer, reader: Reader) -> None:
        self._proposer = proposer
        self._reader = reader

    async def review(self, context: CallContext) -> Read[Review]:
        """Return the review. It names users only for roles that may read them."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        names_users = may(session.role, Permission.READ_USERS)

        async def query(transaction: ReadTransaction, _: int) -> Review:
            return await review.find(transaction, names_users=names_users)

        return await self._reader.read(context, query, stale_ok=False)

    @idempotent
    async def open(self, context: CallContext, *, review: str) -> Applied:
        """
        Serve agents again, if the reviewed state is still the current one.

        Raises `InvalidFieldError`, and `Refused` (`REVIEW_STALE`, `ALREADY_OPEN`,
        and `APPROVAL_NEEDED` if another administrator can approve, P3).
        """
        fields.text("review", review, at_least=MARK_DIGITS, at_most=MARK_DIGITS)
        return await self._proposer.change(context, OpenCluster(review=review))
