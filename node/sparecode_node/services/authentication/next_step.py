# SPDX-License-Identifier: Apache-2.0
"""Use case: an agent hands back a challenge with what the user gave for it (K2, K3)."""

from dataclasses import dataclass, field, replace

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import AgentIdentity, UserId
from sparecode_node.domain.passcodes import evaluations, is_lettered, normalized
from sparecode_node.domain.pins import pin_problem
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokens import Token
from sparecode_node.queries import policies, requests, tokens, users
from sparecode_node.queries.state import LocalState
from sparecode_node.queries.users import PinParameters
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.deciding import Answer, agent_of, settled
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import request_key
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.pin_folding import new_pin_problem, sealed_for
from sparecode_node.services.secrets.sealing import BrokenSealError, FieldValue, Sealing
from sparecode_node.statemachine.commands import RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.authentication import ContinueAuthentication


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What an agent hands back."""

    agent: AgentIdentity
    certificate: Certificate
    challenge: Challenge | None
    """None: it does not open."""
    tokencode: str = field(repr=False)
    new_pin: str = field(repr=False)
    authentication_id: str


class Continuing:
    """Judges the second step, on whichever node; the first may have been on another."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates
        self._clock = clock
        self._entropy = entropy

    async def continue_authentication(
        self,
        context: CallContext,
        *,
        challenge: bytes,
        next_tokencode: str,
        new_pin: str,
    ) -> Answer:
        """
        Return the decision, after a quorum has committed it.

        A challenge is answered once. What is no tokencode, or no PIN as the
        policy wants it, is told as such and answers nothing: raises
        `InvalidFieldError`, and as `Authentication.authenticate`.
        """
        fields.request_id(context.request_id)
        fields.challenge(challenge)
        agent = agent_of(context)
        handed = Handed(
            agent=agent.identity,
            certificate=agent.certificate,
            challenge=self._opened(challenge),
            tokencode=fields.tokencode("next_tokencode", next_tokencode),
            new_pin=normalized(
                fields.secret("new_pin", new_pin, at_most=fields.PASSCODE_MAX)
            ),
            authentication_id=self._entropy.uuid(),
        )
        _check_asked(handed)
        self._rates.next_step(
            agent=handed.agent,
            user=handed.challenge.user_id if handed.challenge else "",
        )
        deadline = Deadline.of(context, self._clock)
        said: dict[str, FieldValue] = {
            "challenge": challenge,
            "next_tokencode": next_tokencode,
            "new_pin": new_pin,
        }
        request = request_key(self._sealing, context, f"agent:{handed.agent}", said)
        return await settled(
            self._replicator,
            self._sealing,
            lambda: self._next_proposal(handed, request, deadline),
            deadline,
        )

    def _opened(self, sealed: bytes) -> Challenge | None:
        """Open the challenge; one that does not open is refused in apply (U1)."""
        try:
            return self._sealing.unseal_challenge(sealed)
        except BrokenSealError:
            return None

    async def _next_proposal(
        self, handed: Handed, request: RequestKey, deadline: Deadline
    ) -> Proposal:
        """Compute the verifier with what this node knows of the user (T1, T2)."""
        challenge = handed.challenge
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            user = (
                await users.pin_parameters(transaction, challenge.user_id)
                if challenge
                else None
            )
            found = (
                await tokens.find_with_user(transaction, challenge.serial)
                if challenge
                else None
            )
        token = found[0] if found else None
        wrong = _pin_problem(handed, policy, token)
        if wrong:
            # The policy of now refuses it; that of the first try may not have (Q2).
            if not await self._is_known(request, deadline):
                raise InvalidFieldError("new_pin", wrong)
            handed = replace(handed, new_pin="")
        hashed, *_ = await self._kdf.derive(
            self._pin_inputs(handed.new_pin, user, evaluations(policy)),
            lane=Lane.AUTHENTICATING,
            timeout_s=deadline.left_s(),
        )
        verifier, sealed_pin, key_id = b"", b"", self._sealing.active_key
        if token and user and handed.new_pin:
            verifier = self._sealing.pin_verifier(
                hashed, user.user_id, token.serial, key_id
            )
            sealed_pin = sealed_for(
                self._sealing, token, user.user_id, handed.new_pin, key_id
            )
        command = ContinueAuthentication(
            authentication_id=handed.authentication_id,
            agent=handed.agent,
            user_id=user.user_id if user else UserId(""),
            auth_version=user.auth_version if user else 0,
            policy_version=policy.version,
            key_id=key_id,
            challenge=challenge,
            moments=(),
            pin_verifier=verifier,
            certificate_fingerprint=handed.certificate.fingerprint,
            certificate_serial_number=handed.certificate.serial_number,
            sealed_pin=sealed_pin,
            pin_lettered=is_lettered(handed.new_pin),
        )
        call = UnstampedCall(
            command=command,
            request=request,
            node_id=self._replicator.node_id,
        )
        return Proposal(call=call, tokencodes=(handed.tokencode,))

    async def _is_known(self, request: RequestKey, deadline: Deadline) -> bool:
        """Say whether a request was decided before, on whichever node."""
        await self._replicator.read_barrier(timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            return await requests.find(transaction, request) is not None

    def _pin_inputs(
        self, new_pin: str, user: PinParameters | None, count: int
    ) -> list[KdfInput]:
        """Return what to hash: as many as for a passcode, whatever was asked for (T4)."""
        salt = (
            user.pin_salt
            if user
            else self._sealing.unknown_name_salt(Secret.PIN, b"challenge")
        )
        return [
            KdfInput(secret=Secret.PIN, salt=salt, text=text)
            for text in (new_pin, *[""] * (count - 1))
        ]


def _check_asked(handed: Handed) -> None:
    """Refuse a new PIN where none was asked for, and none where one was."""
    if handed.challenge is None:
        return
    asked = handed.challenge.step is NextStep.NEW_PIN
    if asked and not handed.new_pin:
        raise InvalidFieldError("new_pin", "is needed: a new PIN was asked for")
    if handed.new_pin and not asked:
        raise InvalidFieldError("new_pin", "must be empty: no new PIN was asked for")


def _pin_problem(handed: Handed, policy: Policy, token: Token | None) -> str:
    """Hold a new PIN to the policy (K2); which one it was says the command (T2)."""
    if not handed.new_pin:
        return ""
    return pin_problem(handed.new_pin, policy) or new_pin_problem(handed.new_pin, token)
