# SPDX-License-Identifier: Apache-2.0
"""Use case: an agent asks whether a passcode is right (A, T)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import AgentIdentity, SessionId, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passcodes import (
    CodeCandidate,
    PinCandidate,
    Reading,
    Split,
    is_lettered,
    normalized,
    splits,
)
from sparecode_node.domain.users import fold
from sparecode_node.queries import policies, users
from sparecode_node.queries.state import LocalState
from sparecode_node.queries.users import PasscodeParameters
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import AgentCaller, CallContext, Deadline
from sparecode_node.services.errors import NotPermittedError, Refused
from sparecode_node.services.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.proposing import ATTEMPTS
from sparecode_node.services.rates import Rates
from sparecode_node.services.sealing import Sealing
from sparecode_node.statemachine.commands import Authenticate, Call, RequestKey
from sparecode_node.statemachine.results import Authenticated, Result

EVALUATIONS = 2
"""Hashes per attempt, always, while PINs are digits and codes have letters (T4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an agent wants to know."""

    agent: AgentIdentity
    certificate: Certificate
    name_tag: bytes
    passcode: str = field(repr=False)
    """As normalized."""
    client_address: str
    resource: str
    authentication_id: str


class Authentication:
    """Judges passcodes. Any node may be asked; a code is accepted once cluster-wide."""

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

    async def authenticate(
        self,
        context: CallContext,
        *,
        username: str,
        passcode: str,
        client_address: str,
        resource: str,
    ) -> Authenticated:
        """
        Return the decision, after a quorum has committed it.

        Raises `InvalidFieldError` (a field beyond its bound, a bad request id),
        `Refused` (`REQUEST_ID_REUSED`, `REQUEST_TABLE_FULL`), `ProposeError`, and
        `RateError` before anything is hashed (L7).
        Whatever else the rules say is the decision REFUSED.
        """
        fields.request_id(context.request_id)
        fields.secret("username", username, at_most=fields.USERNAME_MAX)
        fields.secret("passcode", passcode, at_most=fields.PASSCODE_MAX)
        fields.text("client_address", client_address, at_most=fields.CLIENT_ADDRESS_MAX)
        fields.text("resource", resource, at_most=fields.RESOURCE_MAX)
        said = {
            "username": username,
            "passcode": passcode,
            "client_address": client_address,
            "resource": resource,
        }
        deadline = Deadline.of(context, self._clock)
        agent = _agent(context)
        asked = Asked(
            agent=agent.identity,
            certificate=agent.certificate,
            name_tag=self._sealing.name_tag(fold(username)),
            passcode=normalized(passcode),
            client_address=client_address,
            resource=resource,
            authentication_id=self._entropy.uuid(),
        )
        self._rates.attempt(
            agent=asked.agent,
            client_address=client_address,
            name_tag=asked.name_tag,
        )
        request = RequestKey(
            caller=f"agent:{asked.agent}",
            method=context.method,
            request_id=fields.request_id(context.request_id),
            tag=self._sealing.request_tag(context.method, said),
        )
        for _ in range(ATTEMPTS):
            proposal = await self._proposal(asked, request, deadline)
            result = await self._replicator.propose(
                proposal, timeout_s=deadline.left_s()
            )
            if not _is_stale(result):
                return _decided(result)
            # What this node knew of the user was old, and nothing was charged.
            await self._replicator.read_barrier(timeout_s=deadline.left_s())
        raise OverloadedError("the user changes too fast; try again")

    async def _proposal(
        self, asked: Asked, request: RequestKey, deadline: Deadline
    ) -> Proposal:
        """Compute the candidates with what this node knows of the user (T1, T2)."""
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            user = await users.passcode_parameters(transaction, asked.name_tag)
        found = splits(asked.passcode, policy)
        hashes = await self._kdf.derive(
            self._inputs(found, user, asked.name_tag),
            lane=Lane.AUTHENTICATING,
            timeout_s=deadline.left_s(),
        )
        readings = self._readings(found, user, hashes)
        command = Authenticate(
            authentication_id=asked.authentication_id,
            agent=asked.agent,
            name_tag=asked.name_tag,
            user_id=user.user_id if user else UserId(""),
            auth_version=user.auth_version if user else 0,
            policy_version=policy.version,
            key_id=self._sealing.active_key,
            lettered=is_lettered(asked.passcode),
            readings=readings,
            client_address=asked.client_address,
            resource=asked.resource,
            certificate_fingerprint=asked.certificate.fingerprint,
            certificate_serial_number=asked.certificate.serial_number,
        )
        call = Call(
            command=command,
            request=request,
            node_id=self._replicator.node_id,
            session_id=SessionId(""),
            at_ms=0,
        )
        clear = tuple(split.code for split in found if not split.emergency)
        return Proposal(call=call, tokencodes=clear)

    def _inputs(
        self,
        found: Sequence[Split],
        user: PasscodeParameters | None,
        name_tag: bytes,
    ) -> list[KdfInput]:
        """
        Return what to hash: always two, whoever the user and whatever the passcode.

        A passcode with a letter: PIN and code. Digits alone: the PIN before 6
        and before 8 digits. What is not there is hashed all the same (A6, T4).
        """
        if user:
            pin_salt, code_salt = user.pin_salt, user.code_salt
        else:
            pin_salt = self._sealing.unknown_name_salt(Secret.PIN, name_tag)
            code_salt = self._sealing.unknown_name_salt(Secret.CODE, name_tag)
        inputs = []
        for split in found:
            inputs.append(KdfInput(secret=Secret.PIN, salt=pin_salt, text=split.pin))
            if split.emergency:
                inputs.append(
                    KdfInput(secret=Secret.CODE, salt=code_salt, text=split.code)
                )
        nothing = KdfInput(secret=Secret.PIN, salt=pin_salt, text="")
        return inputs + [nothing] * (EVALUATIONS - len(inputs))

    def _readings(
        self,
        found: Sequence[Split],
        user: PasscodeParameters | None,
        hashes: Sequence[bytes],
    ) -> tuple[Reading, ...]:
        """Make candidates of the hashes, in the order of `_inputs`."""
        computed = iter(hashes)
        readings = []
        for split in found:
            pin, code = next(computed), next(computed) if split.emergency else b""
            readings.append(
                Reading(
                    length=len(split.code),
                    emergency=split.emergency,
                    bare=not split.pin,
                    pins=self._pins(pin, user) if user and split.pin else (),
                    codes=self._codes(code, user) if user and code else (),
                    tokencodes=(),
                )
            )
        return tuple(readings)

    def _pins(
        self, hashed: bytes, user: PasscodeParameters
    ) -> tuple[PinCandidate, ...]:
        return tuple(
            PinCandidate(
                serial=serial,
                verifier=self._sealing.pin_verifier(hashed, user.user_id, serial),
            )
            for serial in user.pin_serials
        )

    def _codes(
        self, hashed: bytes, user: PasscodeParameters
    ) -> tuple[CodeCandidate, ...]:
        return tuple(
            CodeCandidate(
                set_id=set_id,
                verifier=self._sealing.code_verifier(hashed, user.user_id, set_id),
            )
            for set_id in user.set_ids
        )


def _agent(context: CallContext) -> AgentCaller:
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
