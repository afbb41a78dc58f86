# SPDX-License-Identifier: Apache-2.0
"""From an agent's question to the committed decision: what both steps share (A, T)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.context import AgentCaller, CallContext, Deadline
from sparecode_node.services.errors import NotPermittedError, Refused
from sparecode_node.services.proposing import ATTEMPTS
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.results import Authenticated, Decision, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an agent learns (A6)."""

    decision: Decision
    authentication_id: str
    challenge: bytes = field(default=b"", repr=False)
    """Sealed; for the decisions that require a next step."""


async def settled(
    replicator: Replicator,
    sealing: Sealing,
    prepare: Callable[[], Awaitable[Proposal]],
    deadline: Deadline,
) -> Answer:
    """
    Return the decision on what *prepare* makes of this node's state (T2).

    Raises `Refused` where none was taken (Q1, Q3), and `ProposeError`.
    """
    for _ in range(ATTEMPTS):
        proposal = await prepare()
        result = await replicator.propose(proposal, timeout_s=deadline.left_s())
        if not _is_stale(result):
            return _answer(_decided(result), sealing)
        # What this node knew of the user was old, and nothing was charged.
        await replicator.read_barrier(timeout_s=deadline.left_s())
    raise OverloadedError("the user changes too fast; try again")


def agent_of(context: CallContext) -> AgentCaller:
    """Return the agent that calls; its certificate was checked at the edge."""
    if not isinstance(context.caller, AgentCaller):
        raise NotPermittedError(f"only agents may call {context.method}")
    return context.caller


def _is_stale(result: Result) -> bool:
    return isinstance(result, Rejected) and result.reason is Reason.STALE_PARAMETERS


def _decided(result: Result) -> Authenticated:
    """Return the decision. Raises `Refused` where none was taken (Q1, Q3)."""
    match result:
        case Authenticated():
            return result
        case Rejected():
            raise Refused(result)
        case _:
            raise TypeError(f"unexpected result: {type(result).__name__}")


def _answer(decided: Authenticated, sealing: Sealing) -> Answer:
    challenge = decided.challenge
    return Answer(
        decision=decided.decision,
        authentication_id=decided.authentication_id,
        challenge=sealing.seal_challenge(challenge) if challenge else b"",
    )
