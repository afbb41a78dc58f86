# SPDX-License-Identifier: Apache-2.0
"""
Use cases: bearer keys of agents that call by HTTP (D5).

A key has 256 random bits, so one SHA-256 is enough to keep it: nothing can be guessed.
It is shown once, and its digest is all that the state has.
"""

import hashlib
import ipaddress
import json
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.ids import AdministratorName, NameKey
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.radius import OVERLAP_MAX_MS
from sparecode_node.domain.users import fold
from sparecode_node.queries import agent_keys
from sparecode_node.queries.agent_keys import KnownKey
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import AgentCaller, CallContext
from sparecode_node.services.errors import (
    InvalidFieldError,
    NoCredentialsError,
)
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.statemachine.commands.agents import CreateAgentKey
from sparecode_node.statemachine.results import Applied

KEY_BYTES = 32
KEY_PREFIX = "sparecode_"
"""By this beginning, scanners find a key that was published by mistake."""
KEY_TEXT_MAX = 64
"""No key is longer, so nothing longer is hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey(Applied):
    """A bearer key that is shown once, and where it was committed."""

    key: str = field(repr=False)


class AgentKeys:
    """Creates keys, and finds the agent that a key names."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        state: LocalState,
        rates: Rates,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._rates = rates
        self._clock = clock
        self._entropy = entropy

    @idempotent
    async def create(
        self,
        context: CallContext,
        *,
        name: str,
        overlap_ms: int,
        networks: Sequence[str] = (),
    ) -> NewKey:
        """
        Give an agent a new bearer key, and return it (shown once).

        The previous key works for *overlap_ms* more. Those that were replaced earlier
        keep their ends; without an overlap they stop at once. *networks*: the addresses
        that the agent may use the key from; empty: any. Raises `InvalidFieldError`,
        also for a retry whose first answer is lost: its key is not known any more.
        Raises `NotSignedInError`, `NotPermittedError`, `Refused` and `ProposeError`.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        if not 0 <= overlap_ms <= OVERLAP_MAX_MS:
            raise InvalidFieldError(
                "overlap", f"must be at most {OVERLAP_MAX_MS // DAY_MS} days"
            )
        drawn = urlsafe_b64encode(self._entropy.token_bytes(KEY_BYTES)).decode()
        key, name_key = KEY_PREFIX + drawn.rstrip("="), fold(name)
        command = CreateAgentKey(
            name_key=name_key,
            bearer_id=_bearer_id(context, session.administrator, name_key),
            digest=digest_of(key),
            networks=fields.networks(networks) if networks else (),
            overlap_ms=overlap_ms,
        )

        async def prepare() -> CreateAgentKey:
            return command

        commit = applied(
            await self._proposer.propose_fresh(context, session, deadline, prepare)
        )
        await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            known = await agent_keys.find(transaction, command.digest)
        if known is None:
            raise InvalidFieldError(
                "request_id",
                "drew a key in an earlier try, whose answer is lost: create another",
            )
        return NewKey(key=key, index=commit.index)

    async def caller(self, key: str, address: str) -> AgentCaller:
        """
        Return the agent that a key names, as this node's state has it (A4).

        *address*: where the call came from. Apply looks at the key again. Raises
        `NoCredentialsError` for a key that is unknown, has ended, or may not be used
        from there, and `RateError` if the address has shown too many of those (L7).
        """
        digest = digest_of(key) if len(key) <= KEY_TEXT_MAX else b""

        async def read(transaction: ReadTransaction) -> KnownKey | None:
            return await agent_keys.find(transaction, digest)

        known = await self._state.at_once(read)
        now_ms = self._clock.now_ms()
        if (
            known is None
            or (known.ends_at_ms is not None and known.ends_at_ms <= now_ms)
            or not _comes_from(address, known.networks)
        ):
            self._rates.stranger(address)
            raise NoCredentialsError
        return AgentCaller(identity=known.identity, bearer_id=known.bearer_id)


def digest_of(key: str) -> bytes:
    """Return what the state has of a key."""
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _bearer_id(
    context: CallContext, administrator: AdministratorName, name_key: NameKey
) -> str:
    """
    Return the id of the key that a request draws, equal in a retry.

    Another agent or administrator with the same request id has another one.
    """
    content = json.dumps([context.method, administrator, name_key])
    return str(uuid.uuid5(uuid.UUID(context.request_id), content))


def _comes_from(address: str, networks: Sequence[str]) -> bool:
    if not networks:
        return True
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return any(host in ipaddress.ip_network(each) for each in networks)
