# SPDX-License-Identifier: Apache-2.0
"""Use cases: RADIUS clients, the agents that a shared secret identifies."""

import base64
import dataclasses
import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.agents import Certificate, Protects
from sparecode_node.domain.ids import AdministratorName, AgentIdentity, NameKey
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.radius import (
    OVERLAP_MAX_MS,
    RadiusSettings,
    radius_identity,
)
from sparecode_node.domain.users import fold
from sparecode_node.queries import agents, cluster, radius
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Deadline
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

SECRET_BYTES = 20
"""160 random bits: 32 letters and digits."""


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
    """The current secret, then the replaced ones that still work."""
    secret_ids: tuple[str, ...]
    """Their ids, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusDirectory:
    """Every RADIUS client at one moment."""

    available: bool
    """False: the cluster's feature level knows no RADIUS clients."""
    is_open: bool = True
    """False: the cluster was restored, and serves no agents yet (E2)."""
    clients: tuple[RadiusClient, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStanding:
    """What a door must know of an agent with a certificate, at one moment."""

    name: str
    """Empty: no registered agent has this certificate's identity."""
    is_denied: bool
    is_available: bool
    """False: the cluster's feature level knows no RADIUS."""
    is_open: bool
    """False: the cluster was restored, and serves no agents yet (E2)."""


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
        self._directory = RadiusDirectory(available=False, clients=())
        self._clear: dict[radius.SealedSecret, bytes] = {}
        self._broken: set[radius.SealedSecret] = set()

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
        unsigned_until_signed: bool = False,
        repeats_with_new_authenticator: bool = False,
        prompts_for_passcode: bool = False,
        filter_id: str = "",
        class_attribute: str = "",
        session_timeout_s: int = 0,
    ) -> NewSecret:
        """
        Register a RADIUS client, and return its secret (shown once).

        A retry returns the secret of the first try, even under another active key.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        name = fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        if not allow_unsigned:
            _refuse_alone(
                allow_unsigned_proxied=allow_unsigned_proxied,
                unsigned_until_signed=unsigned_until_signed,
            )
        settings = RadiusSettings(
            networks=fields.networks(networks),
            allow_unsigned=allow_unsigned,
            allow_unsigned_proxied=allow_unsigned_proxied,
            unsigned_until_signed=unsigned_until_signed,
            repeats_with_new_authenticator=repeats_with_new_authenticator,
            prompts_for_passcode=prompts_for_passcode,
        )
        fields.check_attributes(
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout_s=session_timeout_s,
        )
        name_key, secret = fold(name), self._new_secret()
        secret_id = _secret_id(context, session.administrator, name_key)

        async def prepare() -> RegisterRadiusClient:
            key_id = self._seals.active_key
            return RegisterRadiusClient(
                name=name,
                name_key=name_key,
                protects=protects,
                restricted=restricted,
                **dataclasses.asdict(settings),
                filter_id=filter_id,
                class_attribute=class_attribute,
                session_timeout_s=session_timeout_s,
                secret_id=secret_id,
                sealed_secret=self._seals.seal_radius_secret(
                    radius_identity(name_key), secret_id, secret, key_id
                ),
                key_id=key_id,
            )

        result = await self._proposer.propose_fresh(context, session, deadline, prepare)
        return await self._committed(applied(result), name_key, secret_id, deadline)

    @idempotent
    async def update(
        self,
        context: CallContext,
        *,
        name: str,
        networks: Sequence[str] = (),
        allow_unsigned: bool | None = None,
        allow_unsigned_proxied: bool | None = None,
        unsigned_until_signed: bool | None = None,
        repeats_with_new_authenticator: bool | None = None,
        prompts_for_passcode: bool | None = None,
    ) -> Applied:
        """Change the settings of a RADIUS client. None leaves a value unchanged."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        exceptions = {
            "allow_unsigned_proxied": bool(allow_unsigned_proxied),
            "unsigned_until_signed": bool(unsigned_until_signed),
        }
        if allow_unsigned is False:
            _refuse_alone(**exceptions)
        command = UpdateRadiusClient(
            name_key=fold(name),
            networks=fields.networks(networks) if networks else (),
            allow_unsigned=allow_unsigned,
            allow_unsigned_proxied=allow_unsigned_proxied,
            unsigned_until_signed=unsigned_until_signed,
            repeats_with_new_authenticator=repeats_with_new_authenticator,
            prompts_for_passcode=prompts_for_passcode,
        )

        async def prepare() -> UpdateRadiusClient:
            if not allow_unsigned and any(exceptions.values()):
                async with self._state.transaction() as transaction:
                    identity = radius_identity(command.name_key)
                    if await radius.allows_unsigned(transaction, identity) is False:
                        _refuse_alone(**exceptions)
            return command

        return applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )

    @idempotent
    async def rotate_secret(
        self, context: CallContext, *, name: str, overlap_ms: int
    ) -> NewSecret:
        """
        Give a RADIUS client a new secret, and return it (shown once).

        The previous secret works for *overlap_ms* more. Those that were replaced earlier
        keep their ends; without an overlap they stop at once. A retry returns the secret
        of the first try.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        if not 0 <= overlap_ms <= OVERLAP_MAX_MS:
            raise InvalidFieldError(
                "overlap", f"must be at most {OVERLAP_MAX_MS // DAY_MS} days"
            )
        name_key, secret = fold(name), self._new_secret()
        secret_id = _secret_id(context, session.administrator, name_key)

        async def prepare() -> RotateRadiusSecret:
            key_id = self._seals.active_key
            return RotateRadiusSecret(
                name_key=name_key,
                secret_id=secret_id,
                sealed_secret=self._seals.seal_radius_secret(
                    radius_identity(name_key), secret_id, secret, key_id
                ),
                key_id=key_id,
                overlap_ms=overlap_ms,
            )

        result = await self._proposer.propose_fresh(context, session, deadline, prepare)
        return await self._committed(applied(result), name_key, secret_id, deadline)

    def _new_secret(self) -> bytes:
        return base64.b32encode(self._entropy.token_bytes(SECRET_BYTES))

    async def _committed(
        self, commit: Applied, name_key: NameKey, secret_id: str, deadline: Deadline
    ) -> NewSecret:
        """Return the secret that was committed: in a retry, that of the first try."""
        await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            sealed = await radius.secret(
                transaction, radius_identity(name_key), secret_id
            )
        if sealed is None:
            raise InvalidFieldError(
                "request_id",
                "drew a secret that was replaced since: rotate the secret again",
            )
        return NewSecret(secret=self._unsealed(sealed).decode(), index=commit.index)

    async def directory(self) -> RadiusDirectory:
        """
        Return every client as this node's state has it, with its secrets in clear.

        While nothing changes, this is the same object each time, and nothing is opened.
        """
        async with self._state.transaction() as transaction:
            directory = await self._read(transaction)
        if directory != self._directory:
            self._directory = directory
        return self._directory

    async def standing(
        self, identity: AgentIdentity, certificate: Certificate
    ) -> AgentStanding:
        """Return what this node's state has of an agent with a certificate (RadSec)."""
        async with self._state.transaction() as transaction:
            return AgentStanding(
                name=await agents.name_of(transaction, identity),
                is_denied=await agents.certificate_denied(transaction, certificate),
                is_available=await cluster.feature_level(transaction) >= RADIUS_CLIENTS,
                is_open=await cluster.is_open(transaction),
            )

    async def _read(self, transaction: ReadTransaction) -> RadiusDirectory:
        if await cluster.feature_level(transaction) < RADIUS_CLIENTS:
            return RadiusDirectory(available=False, clients=())
        now_ms = self._clock.now_ms()
        stored = await radius.every(transaction)
        self._open({secret for each in stored for secret in each.secrets})
        return RadiusDirectory(
            available=True,
            is_open=await cluster.is_open(transaction),
            clients=tuple(self._client(each, now_ms) for each in stored),
        )

    def _client(self, stored: radius.StoredClient, now_ms: int) -> RadiusClient:
        working = [
            each
            for each in stored.secrets
            if each.ends_at_ms is None or each.ends_at_ms > now_ms
            if each in self._clear
        ]
        return RadiusClient(
            name=stored.name,
            identity=stored.identity,
            settings=stored.settings,
            secrets=tuple(self._clear[each] for each in working),
            secret_ids=tuple(each.secret_id for each in working),
        )

    def _open(self, current: set[radius.SealedSecret]) -> None:
        """Open the secrets that are new, and forget those that are gone."""
        self._broken &= current
        self._clear = {
            each: clear for each, clear in self._clear.items() if each in current
        }
        for sealed in current - self._clear.keys():
            try:
                self._clear[sealed] = self._unsealed(sealed)
            except (BrokenSealError, UnknownKeyError) as error:
                # Its key may come soon, so each call tries again, and logs once.
                if sealed not in self._broken:
                    self._broken.add(sealed)
                    log.warning(
                        "radius_secret_not_opened",
                        extra={"agent": sealed.identity, "cause": str(error)},
                    )

    def _unsealed(self, sealed: radius.SealedSecret) -> bytes:
        return self._seals.unseal_radius_secret(
            sealed.identity, sealed.secret_id, sealed.sealed, sealed.key_id
        )


def _secret_id(
    context: CallContext, administrator: AdministratorName, name_key: NameKey
) -> str:
    """
    Return the id of the secret that a request draws, equal in a retry.

    Another method, client or administrator with the same request id has another one.
    """
    content = json.dumps([context.method, administrator, name_key])
    return str(uuid.uuid5(uuid.UUID(context.request_id), content))


def _refuse_alone(*, allow_unsigned_proxied: bool, unsigned_until_signed: bool) -> None:
    """Refuse what only says more about unsigned requests, which are not allowed."""
    if allow_unsigned_proxied:
        raise InvalidFieldError(
            "allow_unsigned_proxied", "needs allow_unsigned, which permits less"
        )
    if unsigned_until_signed:
        raise InvalidFieldError(
            "unsigned_until_signed", "needs allow_unsigned, which it limits"
        )
