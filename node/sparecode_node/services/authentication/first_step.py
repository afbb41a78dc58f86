# SPDX-License-Identifier: Apache-2.0
"""Use case: an agent asks whether a passcode is right (A, T)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.ids import (
    NO_KEY,
    NO_USER,
    KeyId,
    NameKey,
    RequestId,
)
from sparecode_node.domain.passcodes import (
    CodeCandidate,
    PinCandidate,
    Reading,
    Split,
    evaluations,
    is_lettered,
    normalized,
    splits,
)
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.users import USERNAME_LENGTH_MAX, fold
from sparecode_node.queries import moves, users
from sparecode_node.queries import policy as policies
from sparecode_node.queries.batched_reads import Query
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.users import PasscodeParameters
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services import fields
from sparecode_node.services.authentication.decisions import (
    AgentAnswer,
    AgentRequest,
    Decisions,
    described_resource,
    share_of,
)
from sparecode_node.services.context import AgentCaller, CallContext
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.fair_queue import NEWCOMER
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.feature_level import FORMER_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class PasscodeAttempt:
    """One attempt to authenticate, as the agent sent it."""

    request: AgentRequest
    name_key: NameKey = field(repr=False)
    """The folded text of the name field; people type their PIN there (A6)."""
    passcode: str = field(repr=False)
    """Normalized."""
    client_address: str
    resource: str
    """After the door's words for the source, which are no part of the request."""
    authentication_id: str
    is_guess: bool = True
    """False: refuse it as the passcode of an unknown user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What this node knows when it computes the candidates of an attempt (T2)."""

    key_id: KeyId
    name_tags: Sequence[bytes]
    policy: Policy
    user: PasscodeParameters | None
    has_moves: bool
    """Whether users have ever moved to or from this cluster."""


class Authentication:
    """Judges passcodes, on any node. A code is accepted once in the whole cluster."""

    def __init__(
        self,
        *,
        decisions: Decisions,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
    ) -> None:
        self._decisions = decisions
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates

    def check_room(self, agent: AgentCaller | None = None) -> None:
        """
        Raise `HashingOverloadedError` if no passcode of an agent can be hashed now.

        Without *agent*: if that of no agent can be (L8).
        """
        self._kdf.check_room(
            Lane.AUTHENTICATING, share_of(agent) if agent else NEWCOMER
        )

    async def decided_ms_ago(
        self, context: CallContext, request_ids: Sequence[RequestId]
    ) -> Mapping[RequestId, int]:
        """Return how long ago requests of the agent were decided; see `Decisions`."""
        return await self._decisions.decided_ms_ago(context, request_ids)

    async def count_prompt(
        self,
        context: CallContext,
        agent: AgentCaller,
        *,
        name_key: NameKey,
        client_address: str,
    ) -> None:
        """
        Count a request that a door answers by asking for a passcode (L7).

        Nothing is decided. Raises `RateError`, and `ProposeError` if this node could
        not judge the passcode.
        """
        self._rates.attempt(
            agent=agent.key,
            client_address=client_address,
            name_tag=self._sealing.name_tags(name_key)[0],
        )
        self.check_room(agent)
        await self._decisions.decided_ms_ago(context, ())

    def count_unsigned(self, agent: AgentCaller) -> None:
        """Count a request that anyone may have sent. Raises `RateError` (L7)."""
        self._rates.unsigned(agent=agent.identity)

    @idempotent
    async def authenticate(
        self,
        context: CallContext,
        *,
        username: str,
        passcode: str,
        client_address: str,
        resource: str,
        is_guess: bool = True,
    ) -> AgentAnswer:
        """
        Return the decision, after a quorum has committed it.

        Without *is_guess* it is refused as the passcode of an unknown user, and charges
        no one. Bounds, rates and cost are the same, so no one learns which it was (D2).

        Raises `InvalidFieldError` (a field beyond its bound, a bad request id),
        `Refused` (`REQUEST_ID_REUSED`, `REQUEST_TABLE_FULL`), `ProposeError`, and
        `CertificateDeniedError` and `RateError` before anything is hashed (A4, L7).
        Any other refusal by the rules is the decision REFUSED.
        """
        fields.request_id(context.request_id)
        fields.secret("username", username, at_most=USERNAME_LENGTH_MAX)
        fields.secret("passcode", passcode, at_most=fields.PASSCODE_MAX)
        fields.text("client_address", client_address, at_most=fields.CLIENT_ADDRESS_MAX)
        fields.text("resource", resource, at_most=fields.RESOURCE_MAX)
        attempt = PasscodeAttempt(
            request=self._decisions.request(context),
            name_key=fold(username),
            passcode=normalized(passcode),
            client_address=client_address,
            resource=described_resource(context, resource),
            authentication_id=self._decisions.new_id(),
            is_guess=is_guess,
        )
        known = await self._decisions.admit(
            attempt.request, context, self._query(attempt)
        )
        copied = await self._decisions.copied(context, attempt.request)
        if copied is not None:
            self._rates.copy(agent=attempt.request.agent.key)
            answer = await self._decisions.repeated(
                attempt.request,
                copied,
                lambda transaction: self._user_id(transaction, attempt.name_key),
            )
            if answer is not None:
                return answer
        else:
            # What is shed counts against no rate.
            self.check_room(attempt.request.agent)
            self._rates.attempt(
                agent=attempt.request.agent.key,
                client_address=client_address,
                name_tag=self._sealing.name_tags(attempt.name_key)[0],
            )
        first = [known]

        async def prepare() -> Proposal:
            return await self._proposal(
                attempt,
                first.pop()
                if first
                else await self._state.at_once(self._query(attempt)),
            )

        return await self._decisions.decide(attempt.request, prepare)

    async def _user_id(self, transaction: ReadTransaction, name_key: NameKey) -> str:
        """Return the id of the user with this name; empty: there is none."""
        name_tags = self._sealing.name_tags(name_key)
        user = await users.passcode_parameters(transaction, name_tags)
        return user.user_id if user else ""

    def _query(self, attempt: PasscodeAttempt) -> Query[_Known]:
        """Return what reads what this node knows of the user (T2)."""
        # Read before the state: if the state is newer, apply answers STALE_PARAMETERS.
        key_id = self._sealing.active_key
        name_tags = self._sealing.name_tags(attempt.name_key)

        async def known(transaction: ReadTransaction) -> _Known:
            return _Known(
                key_id=key_id,
                name_tags=name_tags,
                policy=await policies.current(transaction),
                user=await users.passcode_parameters(transaction, name_tags),
                has_moves=await moves.any_move(transaction),
            )

        return known

    async def _proposal(self, attempt: PasscodeAttempt, known: _Known) -> Proposal:
        """Compute the candidates from what this node knows of the user (T1, T2)."""
        policy, user, name_tags = known.policy, known.user, known.name_tags
        if not attempt.is_guess:
            user = None
            name_tags = self._sealing.name_tags(unknown_name(attempt.name_key))
        passcode_splits = splits(attempt.passcode, policy)
        hashes = await self._kdf.derive(
            self._inputs(passcode_splits, user, name_tags[0], evaluations(policy)),
            lane=Lane.AUTHENTICATING,
            share=share_of(attempt.request.agent),
            timeout_s=attempt.request.deadline.left_s(),
        )
        readings = self._readings(passcode_splits, user, hashes, known.key_id)
        command = Authenticate(
            authentication_id=attempt.authentication_id,
            agent=attempt.request.agent.identity,
            name_tag=user.name_tag if user else name_tags[0],
            user_id=user.user_id if user else NO_USER,
            auth_version=user.auth_version if user else 0,
            policy_version=policy.version,
            key_id=known.key_id,
            lettered=is_lettered(attempt.passcode),
            readings=readings,
            client_address=attempt.client_address,
            resource=attempt.resource,
            certificate_fingerprint=attempt.request.agent.certificate.fingerprint,
            certificate_serial_number=attempt.request.agent.certificate.serial_number,
            radius_secret_id=attempt.request.agent.radius_secret_id,
            radius_signed=attempt.request.agent.radius_signed,
            bearer_id=attempt.request.agent.bearer_id,
            # Of one cluster alone, the log has nothing of what is typed as a name.
            slot=slot_of(attempt.name_key) + 1 if known.has_moves else 0,
        )
        clear = tuple(split.code for split in passcode_splits if not split.emergency)
        return self._decisions.proposal(attempt.request, command, clear)

    def _inputs(
        self,
        passcode_splits: Sequence[Split],
        user: PasscodeParameters | None,
        name_tag: bytes,
        count: int,
    ) -> list[KdfInput]:
        """
        Return the inputs to hash. The number is the same for every user and passcode.

        First come the possible PINs, then the emergency codes, and then fillers in
        place of missing ones (A6, T4).
        """
        if user:
            pin_salt, code_salt = user.pin_salt, user.code_salt
        else:
            pin_salt = self._sealing.unknown_name_salt(Secret.PIN, name_tag)
            code_salt = self._sealing.unknown_name_salt(Secret.CODE, name_tag)
        inputs = [
            KdfInput(secret=Secret.PIN, salt=pin_salt, text=pin)
            for pin in _pins_in(passcode_splits)
        ]
        inputs += [
            KdfInput(secret=Secret.CODE, salt=code_salt, text=split.code)
            for split in passcode_splits
            if split.emergency
        ]
        filler = KdfInput(secret=Secret.PIN, salt=pin_salt, text="")
        return inputs + [filler] * (count - len(inputs))

    def _readings(
        self,
        passcode_splits: Sequence[Split],
        user: PasscodeParameters | None,
        hashes: Sequence[bytes],
        active: KeyId,
    ) -> tuple[Reading, ...]:
        """Return the readings with candidates from the hashes, in the order of `_inputs`."""
        possible_pins = _pins_in(passcode_splits)
        pins = dict(zip(possible_pins, hashes, strict=False))
        codes = iter(hashes[len(possible_pins) :])
        readings = []
        for split in passcode_splits:
            code = next(codes) if split.emergency else b""
            readings.append(
                Reading(
                    length=len(split.code),
                    emergency=split.emergency,
                    bare=not split.pin,
                    pins=self._pins(pins[split.pin], user, active)
                    if user and split.pin
                    else (),
                    codes=self._codes(code, len(split.code), user, active)
                    if user and code
                    else (),
                    code_tags=self._sealing.code_tags(code, user.user_id)
                    if user and code and user.level >= FORMER_CODES
                    else (),
                )
            )
        return tuple(readings)

    def _pins(
        self, hashed: bytes, user: PasscodeParameters, active: KeyId
    ) -> tuple[PinCandidate, ...]:
        return tuple(
            PinCandidate(
                serial=serial,
                verifier=self._sealing.pin_verifier(
                    hashed, user.user_id, serial, key_id
                ),
                key_id=NO_KEY if key_id == active else key_id,
            )
            for serial, key_id in user.pins
        )

    def _codes(
        self, hashed: bytes, length: int, user: PasscodeParameters, active: KeyId
    ) -> tuple[CodeCandidate, ...]:
        return tuple(
            CodeCandidate(
                set_id=each.set_id,
                verifier=self._sealing.code_verifier(
                    hashed, user.user_id, each.set_id, each.key_id
                ),
                key_id=NO_KEY if each.key_id == active else each.key_id,
            )
            for each in user.sets
            if each.code_length == length
        )


def _pins_in(passcode_splits: Sequence[Split]) -> list[str]:
    """Return the possible PINs, once each: two codes of one length share a PIN (T4)."""
    return list(dict.fromkeys(split.pin for split in passcode_splits))


def unknown_name(name_key: NameKey) -> NameKey:
    """Return a name that no user can have, because names hold no control characters."""
    return NameKey(f"\b {name_key}")
