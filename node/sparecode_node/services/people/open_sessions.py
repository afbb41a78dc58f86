# SPDX-License-Identifier: Apache-2.0
"""Use cases: administrators see the open sessions, and end one (P2)."""

from sparecode_node.domain.administrators import Permission
from sparecode_node.domain.ids import (
    PUBLIC_SESSION_DIGITS,
    AdministratorName,
    SessionId,
)
from sparecode_node.domain.users import fold
from sparecode_node.queries import sessions
from sparecode_node.queries.sessions import SessionListing
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.commands.sessions import EndSession
from sparecode_node.statemachine.results import Applied


class OpenSessions:
    """Lists open sessions, and ends one of them on every node."""

    def __init__(
        self, *, proposer: Proposer, reader: Reader, state: LocalState
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state

    @idempotent
    async def end(self, context: CallContext, *, session_id: str) -> Applied:
        """
        End a session of the caller, or of another administrator (P2).

        *session_id*: its public id. Raises `NotSignedInError`, `InvalidFieldError`,
        `Refused` (`SESSION_UNKNOWN`), `ProposeError`.
        """
        deadline = self._proposer.deadline(context)
        caller = await self._proposer.begin(context, deadline)
        fields.text(
            "session_id",
            session_id,
            at_least=PUBLIC_SESSION_DIGITS,
            at_most=PUBLIC_SESSION_DIGITS,
        )
        await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            known = await sessions.by_public_id(transaction, session_id)
        # Apply answers for an unknown one, too: a retry may come after the session's end.
        command = EndSession(session_id=known or SessionId(session_id))
        return applied(await self._proposer.propose(context, caller, deadline, command))

    async def list(
        self,
        context: CallContext,
        *,
        administrator: str = "",
        all_administrators: bool = False,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[SessionListing]]:
        """
        Return a page of open sessions, newest first.

        Those of the caller, or of *administrator*, or those of all: these two need the
        permission to read administrators. Raises as `Reader.read`.
        """
        size = fields.page_size(page_size)
        name = None
        if administrator:
            name = AdministratorName(
                fold(fields.administrator("administrator", administrator))
            )

        async def query(
            transaction: ReadTransaction, now_ms: int, caller: Session
        ) -> Page[SessionListing]:
            if all_administrators or name not in (None, caller.administrator):
                self._proposer.need(
                    context,
                    caller,
                    Permission.READ_ADMINISTRATORS,
                    "list the sessions of others",
                )
            return await sessions.page(
                transaction,
                administrator=None
                if all_administrators
                else name or caller.administrator,
                calling=caller.session_id,
                now_ms=now_ms,
                size=size,
                page_token=page_token,
            )

        return await self._reader.read_for(context, query, stale_ok=stale_ok)
