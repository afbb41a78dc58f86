# SPDX-License-Identifier: Apache-2.0
"""Use cases: RADIUS clients, the agents that a shared secret identifies."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.ids import AgentIdentity, RequestId
from sparecode_node.domain.radius import (
    OVERLAP_MAX_MS,
    SESSION_TIMEOUT_MAX_S,
    TEXT_MAX,
    RadiusSettings,
    radius_identity,
)
from sparecode_node.domain.users import fold
from sparecode_node.queries import cluster, radius
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.radius_seals import RadiusSeals
from sparecode_node.services.secrets.sealing import BrokenSealError
from sparecode_node.statemachine.commands.radius import (
    RegisterRadiusClient,
    RotateRadiusSecret,
    UpdateRadiusClient,
)
from sparecode_node.statemachine.feature_level import RADIUS_CLIENTS
from sparecode_node.statemachine.results import Applied

log = logging.getLogger(__name__)

ATTRIBUTE_MAX = 253
"""The octets of an attribute's value (RFC 2865, 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret(Applied):
    """A shared secret that is shown once, and where it was committed."""

    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusClient:
    """A RADIUS client as the door needs it: with its secrets in clear."""

    name: str
    identity: AgentIdentity
    settings: RadiusSettings
    secrets: tuple[bytes, ...] = field(repr=False)
    """The current secret, then the replaced one while it still works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusDirectory:
    """Every RADIUS client at one moment."""

    available: bool
    """False: the cluster's feature level knows no RADIUS clients."""
    is_open: bool = True
    """False: the cluster was restored, and serves no agents yet (E2)."""
    clients: tuple[RadiusClient, ...]


class RadiusClients:
    """
    Manages RADIUS clients.

    Methods of administrators raise `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` and `ProposeError`. Below feature level 2 a command
    is not proposed: `OlderMemberError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        state: LocalState,
        seals: RadiusSeals,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._seals = seals
        self._clock = clock
        self._entropy = entropy

    @idempotent
    async def register(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        name: str,
        networks: Sequence[str],
        protects: Protects,
        restricted: bool = False,
        allow_unsigned: bool = False,
        allow_unsigned_proxied: bool = False,
        repeats_with_new_authenticator: bool = False,
        filter_id: str = "",
        class_attribute: str = "",
        session_timeout_s: int = 0,
    ) -> NewSecret:
        """Let a RADIUS client authenticate users, and return its secret (shown once)."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        name = fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        settings = RadiusSettings(
            networks=fields.networks(networks),
            allow_unsigned=allow_unsigned,
            allow_unsigned_proxied=allow_unsigned_proxied,
            repeats_with_new_authenticator=repeats_with_new_authenticator,
            filter_id=_attribute("filter_id", filter_id),
            class_attribute=_attribute("class_attribute", class_attribute),
            session_timeout_s=_timeout(session_timeout_s),
        )
        name_key, secret_id = fold(name), self._entropy.uuid()
        secret = self._seals.radius_secret(
            session.administrator, RequestId(context.request_id.lower())
        )

        async def prepare() -> RegisterRadiusClient:
            key_id = self._seals.active_key
            return RegisterRadiusClient(
                name=name,
                name_key=name_key,
                protects=protects,
                restricted=restricted,
                **dataclasses.asdict(settings),
                secret_id=secret_id,
                sealed_secret=self._seals.seal_radius_secret(
                    radius_identity(name_key), secret_id, secret.encode(), key_id
                ),
                key_id=key_id,
            )

        result = await self._proposer.propose_fresh(context, session, deadline, prepare)
        return NewSecret(secret=secret, index=applied(result).index)

    @idempotent
    async def update(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        name: str,
        networks: Sequence[str] = (),
        allow_unsigned: bool | None = None,
        allow_unsigned_proxied: bool | None = None,
        repeats_with_new_authenticator: bool | None = None,
        filter_id: str | None = None,
        class_attribute: str | None = None,
        session_timeout_s: int | None = None,
    ) -> Applied:
        """Change the settings of a RADIUS client. None leaves a value unchanged."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        command = UpdateRadiusClient(
            name_key=fold(name),
            networks=fields.networks(networks) if networks else (),
            allow_unsigned=allow_unsigned,
            allow_unsigned_proxied=allow_unsigned_proxied,
            repeats_with_new_authenticator=repeats_with_new_authenticator,
            filter_id=None if filter_id is None else _attribute("filter_id", filter_id),
            class_attribute=None
            if class_attribute is None
            else _attribute("class_attribute", class_attribute),
            session_timeout_s=None
            if session_timeout_s is None
            else _timeout(session_timeout_s),
        )
        return applied(
            await self._proposer.propose(context, session, deadline, command)
        )

    @idempotent
    async def rotate_secret(
        self, context: CallContext, *, name: str, overlap_ms: int
    ) -> NewSecret:
        """
        Give a RADIUS client a new secret, and return it (shown once).

        The secret before works for *overlap_ms* more; one that was already replaced
        stops at once.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        if not 0 <= overlap_ms <= OVERLAP_MAX_MS:
            raise InvalidFieldError(
                "overlap", f"must be at most {OVERLAP_MAX_MS // 86_400_000} days"
            )
        name_key, secret_id = fold(name), self._entropy.uuid()
        secret = self._seals.radius_secret(
            session.administrator, RequestId(context.request_id.lower())
        )

        async def prepare() -> RotateRadiusSecret:
            key_id = self._seals.active_key
            return RotateRadiusSecret(
                name_key=name_key,
                secret_id=secret_id,
                sealed_secret=self._seals.seal_radius_secret(
                    radius_identity(name_key), secret_id, secret.encode(), key_id
                ),
                key_id=key_id,
                overlap_ms=overlap_ms,
            )

        result = await self._proposer.propose_fresh(context, session, deadline, prepare)
        return NewSecret(secret=secret, index=applied(result).index)

    async def directory(self) -> RadiusDirectory:
        """Return every client as this node's state has it, with its secrets in clear."""
        async with self._state.transaction() as transaction:
            return await self._read(transaction)

    async def _read(self, transaction: ReadTransaction) -> RadiusDirectory:
        if await cluster.feature_level(transaction) < RADIUS_CLIENTS:
            return RadiusDirectory(available=False, clients=())
        now_ms = self._clock.now_ms()
        return RadiusDirectory(
            available=True,
            is_open=await cluster.is_open(transaction),
            clients=tuple(
                RadiusClient(
                    name=each.name,
                    identity=each.identity,
                    settings=each.settings,
                    secrets=tuple(
                        secret
                        for sealed in each.secrets
                        if sealed.ends_at_ms is None or sealed.ends_at_ms > now_ms
                        if (secret := self._opened(sealed)) is not None
                    ),
                )
                for each in await radius.every(transaction)
            ),
        )

    def _opened(self, sealed: radius.SealedSecret) -> bytes | None:
        try:
            return self._seals.unseal_radius_secret(
                sealed.identity, sealed.secret_id, sealed.sealed, sealed.key_id
            )
        except (BrokenSealError, UnknownKeyError) as error:
            log.warning(
                "radius_secret_not_opened",
                extra={"agent": sealed.identity, "cause": str(error)},
            )
            return None


def _attribute(name: str, value: str) -> str:
    """Return a text attribute, which must fit into 253 octets."""
    fields.text(name, value, at_most=TEXT_MAX)
    if len(value.encode()) > ATTRIBUTE_MAX:
        raise InvalidFieldError(name, f"must fit into {ATTRIBUTE_MAX} octets of UTF-8")
    return value


def _timeout(seconds: int) -> int:
    if not 0 <= seconds <= SESSION_TIMEOUT_MAX_S:
        raise InvalidFieldError(
            "session_timeout", f"must be 0 to {SESSION_TIMEOUT_MAX_S} seconds"
        )
    return seconds
