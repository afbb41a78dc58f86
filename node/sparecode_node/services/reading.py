# SPDX-License-Identifier: Apache-2.0
"""Reads: barrier, permission check and query, in that order and in one transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sparecode_node.queries.pages import PageTokenError
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.access.authorization import Authorization, Session
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import InvalidFieldError

T = TypeVar("T")

Query = Callable[[ReadTransaction, int], Awaitable[T]]
"""Reads the state. The time decides what has expired and what is locked."""

SessionQuery = Callable[[ReadTransaction, int, Session], Awaitable[T]]
"""Reads what depends on the calling session, too."""


FetchSegment = Callable[[int, float], Awaitable[bool]]
"""
Fetches the segment of the audit log with an event, for at most some seconds; returns
whether this node has it now.
"""
ANSWER_S = 1.0
"""What is left of a caller's time after a fetch."""


class Reader:
    """Reads for administrators: linearizable, or stale if the caller allows it (P2)."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        authorization: Authorization,
        clock: Clock,
        fetch_segment: FetchSegment | None = None,
    ) -> None:
        self._fetch_segment = fetch_segment
        self._replicator = replicator
        self._state = state
        self._authorization = authorization
        self._clock = clock

    def deadline(self, context: CallContext) -> Deadline:
        """Start counting down the time that the caller has left."""
        return Deadline.of(context, self._clock)

    async def read(
        self, context: CallContext, query: Query[T], *, stale_ok: bool
    ) -> Read[T]:
        """
        Return what *query* returns.

        Without *stale_ok* the value covers everything committed before the call. Raises
        `NotSignedInError`, `NotPermittedError`, `ProposeError`, `InvalidFieldError` on
        `page_token`, and what *query* raises.
        """

        async def without_session(
            transaction: ReadTransaction, now_ms: int, _: Session
        ) -> T:
            return await query(transaction, now_ms)

        return await self.read_for(context, without_session, stale_ok=stale_ok)

    async def read_further(self, context: CallContext, query: Query[T]) -> Read[T]:
        """
        Return what *query* returns, as a further part of a call that `read` began.

        The session is checked again, and the call counts once for its rate (Q3): a node
        that reads a long log in parts must not break off because it is fast. What the
        call began with no longer changes, so it needs no barrier. Raises as `read`.
        """

        async def without_session(
            transaction: ReadTransaction, now_ms: int, _: Session
        ) -> T:
            return await query(transaction, now_ms)

        return await self.read_for(
            context, without_session, stale_ok=True, counted=True
        )

    async def read_for(
        self,
        context: CallContext,
        query: SessionQuery[T],
        *,
        stale_ok: bool,
        counted: bool = False,
    ) -> Read[T]:
        """
        Return what *query* returns for the calling session. Raises as `read`.

        Older audit events that this node lacks are fetched first, if there is time.
        """
        deadline = Deadline.of(context, self._clock)
        if stale_ok:
            now_ms = self._clock.now_ms()
        else:
            passed = await self._replicator.read_barrier(timeout_s=deadline.left_s())
            now_ms = passed.at_ms
        while True:
            try:
                return await self._read_once(
                    context, query, deadline, now_ms, stale=stale_ok, counted=counted
                )
            except MissingSegmentError as error:
                timeout_s = deadline.left_s() - ANSWER_S
                fetch = self._fetch_segment
                if fetch is None or not await fetch(error.first, timeout_s):
                    raise
                counted = True

    async def _read_once(
        self,
        context: CallContext,
        query: SessionQuery[T],
        deadline: Deadline,
        now_ms: int,
        *,
        stale: bool,
        counted: bool,
    ) -> Read[T]:
        try:
            async with (
                asyncio.timeout(deadline.left_s()),
                self._state.transaction() as transaction,
            ):
                session = await self._authorization.check(
                    transaction, context, now_ms, stale=stale, counted=counted
                )
                return Read(
                    value=await query(transaction, now_ms, session),
                    node_id=self._replicator.node_id,
                    applied_index=transaction.applied_index,
                    stale=stale,
                )
        except PageTokenError:
            raise InvalidFieldError(
                "page_token", "must be the next_page_token of an answer to this method"
            ) from None
        except TimeoutError:
            raise OverloadedError("too many reads at once") from None
