# SPDX-License-Identifier: Apache-2.0
"""Proposals of administrators' commands, and the results of those proposals."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sparecode_node.domain.administrators import Permission
from sparecode_node.domain.ids import NO_SESSION, RequestId, SessionId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.queries import audit, cluster, requests
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.access import reauthentication
from sparecode_node.services.access.authorization import Authorization, Session
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    Outdated,
    Refused,
    refusal,
)
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands import Command, RequestKey, UnstampedCall
from sparecode_node.statemachine.etags import Conditional, target_in
from sparecode_node.statemachine.feature_level import ETAGS
from sparecode_node.statemachine.power import REAUTHENTICATION_NEEDED
from sparecode_node.statemachine.results import Applied, ApprovalPending, Result

ATTEMPTS = 3
"""The first attempt, and two more with newer parameters (T2)."""


class Proposer:
    """Proposes administrators' commands, with their request id and its tag (Q1)."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        authorization: Authorization,
        state: LocalState,
        sealing: Sealing,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._authorization = authorization
        self._sealing = sealing
        self._clock = clock

    async def change(
        self,
        context: CallContext,
        command: Command,
        *,
        tokencodes: tuple[str, ...] = (),
    ) -> Applied:
        """
        Apply a command that can be built without reading the state.

        *tokencodes* are clear digits. They go to the primary beside the command, and
        no further (T1).
        """
        deadline = self.deadline(context)
        session = await self.begin(context, deadline)
        result = await self.propose(
            context, session, deadline, command, tokencodes=tokencodes
        )
        return applied(result)

    def deadline(self, context: CallContext) -> Deadline:
        """Start counting down the time that the caller has left."""
        return Deadline.of(context, self._clock)

    async def begin(self, context: CallContext, deadline: Deadline) -> Session:
        """Check the request id and the session, before any expensive work."""
        fields.request_id(context.request_id)
        return await self._authorization.find(context, deadline)

    async def session(self, context: CallContext, deadline: Deadline) -> Session:
        """Return the session of a call that changes nothing."""
        return await self._authorization.find(context, deadline)

    def need(
        self, context: CallContext, session: Session, permission: Permission, what: str
    ) -> None:
        """Check a permission that depends on the content of the call, before its work."""
        self._authorization.need(context, session, permission, what)

    def now_ms(self) -> int:
        """Return the time of this node's clock, which decides nothing."""
        return self._clock.now_ms()

    async def confirmed(
        self, context: CallContext, session: Session, deadline: Deadline
    ) -> None:
        """
        Refuse a session that must confirm who it is, before the work for its command (P7).

        Apply checks it again. A request that is remembered passes: apply answers it (Q2).
        Raises `Refused` (`REAUTHENTICATION_NEEDED`) and `ProposeError`.
        """
        if not await self._must_confirm(session, self.now_ms()):
            return
        # A confirmation may have reached another node a moment ago.
        now_ms = await self.barrier(deadline)
        key = request_key(self._sealing, context, _caller(session))
        async with self._state.transaction() as transaction:
            remembered = await requests.find(transaction, key)
        if remembered is None:
            await self.confirmed_at(context, session, now_ms)

    async def confirmed_at(
        self, context: CallContext, session: Session, now_ms: int
    ) -> None:
        """
        Refuse a session that must confirm who it is, at the primary's time (P7).

        For a use case that has effects ahead of its command: a new key is handed out,
        or a secret is shown. So a request that is remembered does not pass.
        Raises `Refused` (`REAUTHENTICATION_NEEDED`), and records it (U1).
        """
        if await self._must_confirm(session, now_ms):
            self._authorization.refuse(
                context, session, Refused(REAUTHENTICATION_NEEDED)
            )

    async def _must_confirm(self, session: Session, now_ms: int) -> bool:
        async with self._state.transaction() as transaction:
            return await reauthentication.needed(
                transaction, session.session_id, now_ms
            )

    async def barrier(self, deadline: Deadline) -> int:
        """Wait until the local state is current; return the primary's time in ms."""
        passed = await self._replicator.read_barrier(timeout_s=deadline.left_s())
        return passed.at_ms

    async def propose(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        command: Command,
        *,
        tokencodes: tuple[str, ...] = (),
    ) -> Result:
        """
        Return the result of an administrator's command.

        Raises `Refused` and `ProposeError`.
        """
        proposal = self.proposal(
            context,
            await self._conditional(context, command),
            caller=_caller(session),
            session_id=session.session_id,
            tokencodes=tokencodes,
        )
        result = await self._replicator.propose(proposal, timeout_s=deadline.left_s())
        return _decided(await self._explained(result, command, deadline))

    def proposal(
        self,
        context: CallContext,
        command: Command,
        *,
        caller: str,
        session_id: SessionId = NO_SESSION,
        tokencodes: tuple[str, ...] = (),
    ) -> Proposal:
        """Return a command as it is proposed for *caller*. Raises `InvalidFieldError`."""
        call = UnstampedCall(
            command=command,
            request=request_key(self._sealing, context, caller),
            node_id=self._replicator.node_id,
            session_id=session_id,
        )
        return Proposal(call=call, tokencodes=tokencodes)

    def node_proposal(self, command: Command, request_id: str) -> Proposal:
        """Return a command that this node proposes on its own behalf."""
        node_id = self._replicator.node_id
        call = UnstampedCall.of_node(node_id, command, RequestId(request_id))
        return Proposal(call=call)

    async def propose_prepared(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        prepare: Callable[[], Awaitable[Command]],
    ) -> Result:
        """Propose what *prepare* builds from the current state, as `propose` (T2)."""
        await self.barrier(deadline)
        try:
            return await self.propose_fresh(context, session, deadline, prepare)
        except (InvalidFieldError, Refused) as error:
            if isinstance(error, Refused) and isinstance(error.rejected, Outdated):
                raise  # Apply has refused it.
            # The current policy or this node refuses it; the policy of the first try
            # may not have (Q2).
            key = request_key(self._sealing, context, _caller(session))
            async with self._state.transaction() as transaction:
                remembered = await requests.find(transaction, key)
            if remembered is None:
                raise
            return _decided(remembered)

    async def propose_fresh(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        prepare: Callable[[], Awaitable[Command]],
    ) -> Result:
        """
        Propose what *prepare* builds, and build it again while it is outdated (T2).

        For commands that depend on little: this does not wait for the newest state.
        """
        made: list[Command] = []

        async def proposal() -> Proposal:
            made.append(await self._conditional(context, await prepare()))
            return self.proposal(
                context,
                made[-1],
                caller=_caller(session),
                session_id=session.session_id,
            )

        result = await propose_until_fresh(self._replicator, proposal, deadline)
        return _decided(await self._explained(result, made[-1], deadline))

    async def _conditional(self, context: CallContext, command: Command) -> Command:
        """Return the command with the caller's etag, if all members know etags (P10)."""
        if context.etag and isinstance(command, Conditional):
            async with self._state.transaction() as transaction:
                if await cluster.feature_level(transaction) >= ETAGS:
                    return replace(command, etag=context.etag)
        return command

    async def _explained(
        self, result: Result, command: Command, deadline: Deadline
    ) -> Result:
        """Return the result; a refusal of an etag with who changed what, and when (P10)."""
        target = target_in(result) if isinstance(result, Rejected) else ""
        if not target:
            return result
        await self.barrier(deadline)
        criteria = audit.AuditFilter(
            target=target, action=type(command).__name__, outcome="applied"
        )
        async with self._state.transaction() as transaction:
            page = await audit.page(
                transaction, size=1, page_token="", criteria=criteria, from_sequence=0
            )
        for record in page.items:
            # An older event is not of a change that the caller has missed.
            if record.event.at_ms > self.now_ms() - DAY_MS:
                return Outdated.by(record.event)
        return result

    async def decide(
        self, prepare: Callable[[], Awaitable[Proposal]], deadline: Deadline
    ) -> Result:
        """Return the result of what *prepare* builds from the current state (T2)."""
        await self.barrier(deadline)
        return _decided(await propose_until_fresh(self._replicator, prepare, deadline))


async def propose_until_fresh(
    replicator: Replicator,
    prepare: Callable[[], Awaitable[Proposal]],
    deadline: Deadline,
) -> Result:
    """
    Return the result of what *prepare* builds from this node's state (T2).

    While apply finds its parameters outdated, nothing is charged: wait for the newer
    state and prepare again. Raises `OverloadedError` after three attempts, what
    *prepare* raises, and `ProposeError`.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            await replicator.read_barrier(timeout_s=deadline.left_s())
        proposal = await prepare()
        result = await replicator.propose(proposal, timeout_s=deadline.left_s())
        if not _is_stale(result):
            return result
    raise OverloadedError("the data changes too fast; try again")


def _is_stale(result: Result) -> bool:
    return isinstance(result, Rejected) and result.reason is Reason.STALE_PARAMETERS


def request_key(
    sealing: Sealing,
    context: CallContext,
    caller: str,
) -> RequestKey:
    """Return what identifies a request (Q1). Raises `InvalidFieldError`."""
    if context.content is None:
        raise TypeError(f"{context.method} changes the state and is not idempotent")
    tag, *other_tags = sealing.request_tags(context.method, context.content)
    return RequestKey(
        caller=caller,
        method=context.method,
        request_id=fields.request_id(context.request_id),
        tag=tag,
        other_tags=tuple(other_tags),
    )


def _caller(session: Session) -> str:
    return f"administrator:{session.administrator}"


def _decided(result: Result) -> Result:
    """Return the result. Raises `Refused` for a rejection and `ApprovalNeededError`."""
    if isinstance(result, Rejected):
        raise refusal(result)
    if isinstance(result, ApprovalPending):
        raise ApprovalNeededError(result.approval_id)
    return result


def applied(result: Result) -> Applied:
    """Return the result of a command that can only be applied."""
    if not isinstance(result, Applied):
        raise TypeError(f"unexpected result: {type(result).__name__}")
    return result
