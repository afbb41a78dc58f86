# SPDX-License-Identifier: Apache-2.0
"""Use case: an agent answers a challenge with a tokencode or a new PIN (K2, K3)."""

from dataclasses import dataclass, field, replace

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import NO_USER
from sparecode_node.domain.passcodes import evaluations, is_lettered, normalized
from sparecode_node.domain.pins import pin_problem
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.queries import attempts, tokens, users
from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.users import PinParameters
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authentication.decisions import (
    AgentAnswer,
    AgentRequest,
    Decisions,
    described_resource,
    share_of,
)
from sparecode_node.services.context import AgentCaller, CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.pin_folding import new_pin_problem, sealed_for
from sparecode_node.services.secrets.pin_strength import blocked_pin_problem
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands.authentication import ContinueAuthentication


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStepAttempt:
    """One attempt at the second step, as the agent sent it."""

    request: AgentRequest
    challenge: Challenge | None
    """None: the challenge does not open."""
    tokencode: str = field(repr=False)
    new_pin: str = field(repr=False)
    client_address: str
    resource: str
    authentication_id: str


class Continuation:
    """Judges the second step, on any node: the first may have been on another."""

    def __init__(
        self,
        *,
        decisions: Decisions,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._decisions = decisions
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates

    @idempotent
    async def continue_authentication(
        self,
        context: CallContext,
        *,
        challenge: bytes,
        next_tokencode: str,
        new_pin: str,
        client_address: str = "",
        resource: str = "",
        is_guess: bool = True,
    ) -> AgentAnswer:
        """
        Return the decision, after a quorum has committed it.

        *client_address* and *resource* are for the audit log. Only RADIUS has them, and
        RADIUS needs the feature level at which the log does.

        Without *is_guess* it is refused as the answer to no challenge, at the same rate
        and cost (D2).

        A challenge is answered once. A malformed tokencode, or a PIN that the policy
        forbids, does not answer it: raises `InvalidFieldError`. Otherwise raises as
        `Authentication.authenticate`.
        """
        fields.request_id(context.request_id)
        fields.challenge(challenge)
        fields.text("client_address", client_address, at_most=fields.CLIENT_ADDRESS_MAX)
        fields.text("resource", resource, at_most=fields.RESOURCE_MAX)
        attempt = NextStepAttempt(
            request=self._decisions.request(context),
            challenge=self._opened(challenge),
            tokencode=fields.tokencode("next_tokencode", next_tokencode),
            new_pin=normalized(
                fields.secret("new_pin", new_pin, at_most=fields.PASSCODE_MAX)
            ),
            client_address=client_address,
            resource=described_resource(context, resource),
            authentication_id=self._decisions.new_id(),
        )
        _check_new_pin(attempt)
        await self._decisions.admit(attempt.request, context, _nothing)
        copied = await self._decisions.copied(context, attempt.request)
        if copied is not None:
            self._rates.copy(agent=attempt.request.agent.key)
            answer = await self._decisions.repeated(
                attempt.request, copied, lambda _: _user_id(attempt.challenge)
            )
            if answer is not None:
                return answer
        else:
            self._rates.next_step(
                agent=attempt.request.agent.key,
                user=attempt.challenge.user_id if attempt.challenge else "",
            )
        if not is_guess:
            attempt = replace(attempt, challenge=None)
        return await self._decisions.decide(
            attempt.request, lambda: self._proposal(attempt)
        )

    async def is_answerable(self, agent: AgentCaller, challenge: Challenge) -> bool:
        """
        Return whether a challenge can be answered still, as far as this node knows (K3).

        For a door that asks for more before the answer. Nothing is decided. Raises
        `RateError` (L7).
        """
        self._rates.next_step(agent=agent.key, user=challenge.user_id)
        async with self._state.transaction() as transaction:
            user = await users.pin_parameters(transaction, challenge.user_id)
            consumed = await attempts.is_consumed(transaction, challenge.challenge_id)
        return user is not None and not challenge.problem(
            agent.identity,
            user.auth_version,
            self._clock.now_ms(),
            consumed=consumed,
        )

    async def new_pin_problem(self, challenge: Challenge, new_pin: str) -> str:
        """
        Return why the user cannot have this PIN now; empty: they can (K2).

        For a door that asks for the tokencode after the PIN. The PIN is normalized.
        Nothing is decided: `continue_authentication` checks it again.
        """
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            found = await tokens.find_with_user(transaction, challenge.serial)
        token, owner = found or (None, None)
        return (
            pin_problem(new_pin, policy)
            or new_pin_problem(new_pin, token)
            or blocked_pin_problem(new_pin, policy, owner)
        )

    def _opened(self, sealed: bytes) -> Challenge | None:
        """Open the challenge. Apply refuses one that does not open (U1)."""
        try:
            return self._sealing.unseal_challenge(sealed)
        except BrokenSealError:
            return None

    async def _proposal(self, attempt: NextStepAttempt) -> Proposal:
        """Compute the verifier from what this node knows of the user (T1, T2)."""
        challenge = attempt.challenge
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            user = (
                await users.pin_parameters(transaction, challenge.user_id)
                if challenge
                else None
            )
            token_and_user = (
                await tokens.find_with_user(transaction, challenge.serial)
                if challenge
                else None
            )
        token = token_and_user[0] if token_and_user else None
        owner = token_and_user[1] if token_and_user else None
        problem = _pin_problem(attempt, policy, token, owner)
        if problem:
            # The current policy refuses it; the policy of the first try may not have (Q2).
            if not await self._decisions.is_remembered(attempt.request):
                raise InvalidFieldError("new_pin", problem)
            attempt = replace(attempt, new_pin="")
        hashed, *_ = await self._kdf.derive(
            self._pin_inputs(attempt.new_pin, user, evaluations(policy)),
            lane=Lane.AUTHENTICATING,
            share=share_of(attempt.request.agent),
            timeout_s=attempt.request.deadline.left_s(),
        )
        verifier, sealed_pin, key_id = b"", b"", self._sealing.active_key
        if token and user and attempt.new_pin:
            verifier = self._sealing.pin_verifier(
                hashed, user.user_id, token.serial, key_id
            )
            sealed_pin = sealed_for(
                self._sealing, token, user.user_id, attempt.new_pin, key_id
            )
        command = ContinueAuthentication(
            authentication_id=attempt.authentication_id,
            agent=attempt.request.agent.identity,
            user_id=user.user_id if user else NO_USER,
            auth_version=user.auth_version if user else 0,
            policy_version=policy.version,
            key_id=key_id,
            challenge=challenge,
            pin_verifier=verifier,
            certificate_fingerprint=attempt.request.agent.certificate.fingerprint,
            certificate_serial_number=attempt.request.agent.certificate.serial_number,
            sealed_pin=sealed_pin,
            pin_lettered=is_lettered(attempt.new_pin),
            client_address=attempt.client_address,
            resource=attempt.resource,
            radius_secret_id=attempt.request.agent.radius_secret_id,
            radius_signed=attempt.request.agent.radius_signed,
            bearer_id=attempt.request.agent.bearer_id,
        )
        return self._decisions.proposal(attempt.request, command, (attempt.tokencode,))

    def _pin_inputs(
        self, new_pin: str, user: PinParameters | None, count: int
    ) -> list[KdfInput]:
        """Return the inputs to hash: the same number as for a passcode, in each step (T4)."""
        salt = (
            user.pin_salt
            if user
            else self._sealing.unknown_name_salt(Secret.PIN, b"challenge")
        )
        return [
            KdfInput(secret=Secret.PIN, salt=salt, text=text)
            for text in (new_pin, *[""] * (count - 1))
        ]


async def _user_id(challenge: Challenge | None) -> str:
    """Return the id of the user of a challenge; empty: it did not open."""
    return challenge.user_id if challenge else ""


async def _nothing(_transaction: ReadTransaction) -> None:
    """Read nothing more."""


def _check_new_pin(attempt: NextStepAttempt) -> None:
    """Check that there is a new PIN exactly if the challenge asks for one."""
    if attempt.challenge is None:
        return
    wants_pin = attempt.challenge.step is NextStep.NEW_PIN
    if wants_pin and not attempt.new_pin:
        raise InvalidFieldError(
            "new_pin", "is required: the challenge asks for a new PIN"
        )
    if attempt.new_pin and not wants_pin:
        raise InvalidFieldError(
            "new_pin", "must be empty: the challenge does not ask for a new PIN"
        )


def _pin_problem(
    attempt: NextStepAttempt, policy: Policy, token: Token | None, user: User | None
) -> str:
    """Check a new PIN against the policy (K2); the command names its version (T2)."""
    if not attempt.new_pin:
        return ""
    return (
        pin_problem(attempt.new_pin, policy)
        or new_pin_problem(attempt.new_pin, token)
        or blocked_pin_problem(attempt.new_pin, policy, user)
    )
