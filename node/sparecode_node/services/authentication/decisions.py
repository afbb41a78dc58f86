# SPDX-License-Identifier: Apache-2.0
"""From an agent's call to the committed decision: what both steps share (A, T)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sparecode_node.domain.ids import RequestId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.radius import NO_ATTRIBUTES, AcceptAttributes
from sparecode_node.queries import agents, cluster, requests
from sparecode_node.queries.batched_reads import Query
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.replication.errors import OlderMemberError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import (
    HTTP,
    RADIUS,
    AgentCaller,
    CallContext,
    Deadline,
)
from sparecode_node.services.errors import (
    CertificateDeniedError,
    NotPermittedError,
    Refused,
)
from sparecode_node.services.load.fair_queue import Group, Share
from sparecode_node.services.proposing import propose_until_fresh, request_key
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands import Command, RequestKey, UnstampedCall
from sparecode_node.statemachine.feature_level import HTTP_DOOR
from sparecode_node.statemachine.results import Authenticated, Decision, Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAnswer:
    """What an agent learns (A6)."""

    decision: Decision
    authentication_id: str
    challenge: bytes = field(default=b"", repr=False)
    """Sealed; for the decisions that require a next step."""
    attributes: AcceptAttributes = NO_ATTRIBUTES
    """What an acceptance tells the agent, over RADIUS and RadSec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """One request of an agent: the agent, the key of the request, and its deadline."""

    agent: AgentCaller
    key: RequestKey
    deadline: Deadline


class Decisions:
    """Admits agents, proposes their commands, and seals the answers."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        refusals: Refusals,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._refusals = refusals
        self._state = state
        self._sealing = sealing
        self._clock = clock
        self._entropy = entropy

    def new_id(self) -> str:
        """
        Return an id for a decision. It sorts by time.

        The index of the audit log then grows at its end: ids in random order would
        write seven times as much.
        """
        return self._entropy.uuid_at(self._clock.now_ms())

    def request(self, context: CallContext) -> AgentRequest:
        """Return the agent's request. Raises `InvalidFieldError`, `NotPermittedError`."""
        fields.request_id(context.request_id)
        # The listener has checked the agent's certificate.
        if not isinstance(context.caller, AgentCaller):
            raise NotPermittedError(f"only agents may call {context.method}")
        agent = context.caller
        return AgentRequest(
            agent=agent,
            key=request_key(self._sealing, context, agent_key(agent)),
            deadline=Deadline.of(context, self._clock),
        )

    async def admit(
        self, request: AgentRequest, context: CallContext, query: Query[T]
    ) -> T:
        """
        Turn a denied certificate away, before anything is hashed or proposed (A4).

        Apply checks the deny list again, so a node that is behind accepts nothing.
        Returns the result of *query* for an admitted agent: one read for both costs a
        call two fewer changes of threads.
        Raises `CertificateDeniedError`, and `OlderMemberError` for a door that older
        members do not have.
        """
        certificate = request.agent.certificate

        async def unless_denied(transaction: ReadTransaction) -> T:
            by_http = context.door == HTTP
            if by_http and await cluster.feature_level(transaction) < HTTP_DOOR:
                raise OlderMemberError("agents call by HTTP from level 2 on")
            if await agents.certificate_denied(transaction, certificate):
                raise _DeniedError
            return await query(transaction)

        try:
            return await self._state.at_once(unless_denied)
        except _DeniedError:
            self._refusals.record(
                context.method,
                Reason.CERTIFICATE_DENIED,
                f"agent:{request.agent.identity}",
            )
            raise CertificateDeniedError(
                "this certificate is on the deny list"
            ) from None

    def proposal(
        self, request: AgentRequest, command: Command, tokencodes: tuple[str, ...]
    ) -> Proposal:
        """Return the proposal of a command, with the clear digits beside it (T1)."""
        call = UnstampedCall(
            command=command, request=request.key, node_id=self._replicator.node_id
        )
        return Proposal(call=call, tokencodes=tokencodes)

    async def decide(
        self, request: AgentRequest, prepare: Callable[[], Awaitable[Proposal]]
    ) -> AgentAnswer:
        """
        Return the decision on what *prepare* builds from this node's state (T2).

        Raises `Refused` if nothing was decided (Q1, Q3), and `ProposeError`.
        """
        result = await propose_until_fresh(self._replicator, prepare, request.deadline)
        return self._answer(_decided(result))

    async def copied(
        self, context: CallContext, request: AgentRequest
    ) -> Authenticated | None:
        """
        Return the decision on a copy of a request, if this node has it already (D3).

        None: the request is new, or came by gRPC, whose client waits before it tries
        again. Strangers can send copies of packets, and plug-ins repeat calls at once, so
        copies by RADIUS and HTTP must cost little.

        None also for a known id with other content (Q1): that is a guess. It takes the
        rate and the hashes of an attempt, and apply refuses and records it.
        """
        if context.door not in (RADIUS, HTTP):
            return None

        async def remembered(transaction: ReadTransaction) -> Result | None:
            return await requests.find(transaction, request.key)

        found = await self._state.at_once(remembered)
        return found if isinstance(found, Authenticated) else None

    async def repeated(
        self,
        request: AgentRequest,
        decided: Authenticated,
        user: Callable[[ReadTransaction], Awaitable[str]],
    ) -> AgentAnswer | None:
        """
        Return a decision again, without a hash and a commit (D3).

        An acceptance stands only while agent and user may sign in (Q2). None: it does
        not; apply refuses it, and records that. *user*: returns the user's id, or an
        empty one. Raises `ProposeError`.
        """
        if decided.decision is not Decision.ACCEPTED:
            return self._answer(decided)
        # What was committed before this copy came must count.
        passed = await self._replicator.read_barrier(
            timeout_s=request.deadline.left_s()
        )
        async with self._state.transaction() as transaction:
            stands = await agents.admits(
                transaction,
                request.agent.identity,
                certificate=request.agent.certificate,
                radius_secret_id=request.agent.radius_secret_id,
                bearer_id=request.agent.bearer_id,
                user_id=await user(transaction),
                now_ms=passed.at_ms,
            )
        return self._answer(decided) if stands else None

    async def is_remembered(self, request: AgentRequest) -> bool:
        """Return whether any node has decided this request already (Q2)."""
        await self._replicator.read_barrier(timeout_s=request.deadline.left_s())
        async with self._state.transaction() as transaction:
            return await requests.find(transaction, request.key) is not None

    async def decided_ms_ago(
        self, context: CallContext, request_ids: Sequence[RequestId]
    ) -> Mapping[RequestId, int]:
        """
        Return how long ago any node decided these requests of the agent, in ms.

        An id that is not remembered is left out. For a client whose repeated requests
        have several ids (D3). Raises `ProposeError`.
        """
        if not isinstance(context.caller, AgentCaller):
            raise NotPermittedError(f"only agents may call {context.method}")
        caller = agent_key(context.caller)
        deadline = Deadline.of(context, self._clock)
        passed = await self._replicator.read_barrier(timeout_s=deadline.left_s())
        ages: dict[RequestId, int] = {}
        async with self._state.transaction() as transaction:
            for request_id in request_ids:
                age_ms = await requests.decided_ms_ago(
                    transaction,
                    caller,
                    context.method,
                    request_id,
                    now_ms=passed.at_ms,
                )
                if age_ms is not None:
                    ages[request_id] = age_ms
        return ages

    def _answer(self, decided: Authenticated) -> AgentAnswer:
        challenge = decided.challenge
        return AgentAnswer(
            decision=decided.decision,
            authentication_id=decided.authentication_id,
            challenge=self._sealing.seal_challenge(challenge) if challenge else b"",
            attributes=decided.attributes,
        )


class _DeniedError(Exception):
    """The state has the agent's certificate on the deny list."""


def described_resource(context: CallContext, resource: str) -> str:
    """Return the resource for the audit log, after the door's words for the source."""
    parts = filter(None, (context.source, resource))
    return ", ".join(parts)[: fields.RESOURCE_MAX]


def share_of(agent: AgentCaller) -> Share:
    """Return whose hashing an agent's is: each certificate has its own share (L8)."""
    return Share(group=Group.AGENTS, caller=agent.key)


def agent_key(agent: AgentCaller) -> str:
    """Return an agent as the caller of its requests (Q1)."""
    return f"agent:{agent.identity}"


def _decided(result: Result) -> Authenticated:
    """Return the decision. Raises `Refused` if nothing was decided (Q1, Q3)."""
    match result:
        case Authenticated():
            return result
        case Rejected():
            raise Refused(result)
        case _:
            raise TypeError(f"unexpected result: {type(result).__name__}")
