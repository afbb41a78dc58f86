# SPDX-License-Identifier: Apache-2.0
"""
Use cases: a time-based code beside an administrator's password (RFC 6238).

Enrolling changes nothing until a code proves that the app has the secret. Until then
the secret is in a sealed draft, like generated codes (I3). Administrators cannot remove
their own second factor; another super administrator does it.
"""

import base64
import urllib.parse
from dataclasses import dataclass, field

from sparecode_node.domain.administrators import (
    SECOND_FACTOR,
    SECOND_FACTOR_DRAFT_MS,
    SECOND_FACTOR_SEED_BYTES,
)
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import fold
from sparecode_node.queries import administrators
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.sealed_values import SecondFactorDraft
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands.second_factors import (
    RemoveSecondFactor,
    SetSecondFactor,
)
from sparecode_node.statemachine.results import Applied

ISSUER = "Sparecode"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledSecondFactor:
    """The secret for an authenticator app. Shown once, and not in force yet."""

    secret: str = field(repr=False)
    """Base32, to type in."""
    uri: str = field(repr=False)
    """`otpauth://`, for a QR code."""
    draft: bytes = field(repr=False)
    ends_at_ms: int


class SecondFactors:
    """
    Sets and removes second factors of administrators.

    Every method raises `NotSignedInError`, `NotPermittedError`, `Refused` and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        sealing: Sealing,
        rates: Rates,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._sealing = sealing
        self._rates = rates
        self._entropy = entropy

    async def own(self, context: CallContext, *, stale_ok: bool = False) -> Read[bool]:
        """Return whether the caller has a secret of time-based codes."""

        async def query(transaction: ReadTransaction, _: int, session: Session) -> bool:
            return await administrators.has_code(transaction, session.session_id)

        return await self._reader.read_for(context, query, stale_ok=stale_ok)

    async def enroll(self, context: CallContext) -> EnrolledSecondFactor:
        """Draw a secret for the caller. Nothing changes until it is confirmed."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        now_ms = await self._proposer.barrier(deadline)
        await self._proposer.confirmed_at(context, session, now_ms)
        name = session.administrator
        async with self._state.transaction() as transaction:
            current = await administrators.password_parameters(transaction, name)
        if current and current.code:
            raise Refused(SET)
        seed = self._entropy.token_bytes(SECOND_FACTOR_SEED_BYTES)
        secret = base64.b32encode(seed).decode().rstrip("=")
        ends_at_ms = now_ms + SECOND_FACTOR_DRAFT_MS
        draft = SecondFactorDraft(administrator=name, seed=seed, ends_at_ms=ends_at_ms)
        return EnrolledSecondFactor(
            secret=secret,
            uri=uri_of(name, secret),
            draft=self._sealing.seal_second_factor_draft(draft),
            ends_at_ms=ends_at_ms,
        )

    @idempotent
    async def confirm(
        self, context: CallContext, *, draft: bytes, code: str
    ) -> Applied:
        """Require a code from now on. *code* proves that the app has the secret."""
        digits = fields.tokencode("code", code)
        fields.draft(draft)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        name = session.administrator
        self._rates.sign_in(administrator=name, peer=context.peer)
        opened = self._opened(draft, name)
        key_id = self._sealing.active_key
        command = SetSecondFactor(
            name=name,
            sealed_seed=self._sealing.seal_second_factor(name, opened.seed, key_id),
            key_id=key_id,
            draft_ends_at_ms=opened.ends_at_ms,
        )
        return await self._proposer.change(context, command, tokencodes=(digits,))

    @idempotent
    async def remove(self, context: CallContext, *, name: str) -> Applied:
        """Remove another administrator's second factor, and end their sessions."""
        key = AdministratorName(fold(fields.administrator("name", name)))
        return await self._proposer.change(context, RemoveSecondFactor(name=key))

    def _opened(self, draft: bytes, name: AdministratorName) -> SecondFactorDraft:
        try:
            opened = self._sealing.unseal_second_factor_draft(draft)
        except BrokenSealError:
            raise Refused(STALE) from None
        if opened.administrator != name:
            raise Refused(STALE)
        return opened


def uri_of(name: str, secret: str) -> str:
    """Return the URI that authenticator apps read from the QR code."""
    label = urllib.parse.quote(f"{ISSUER}:{name}")
    query = urllib.parse.urlencode(
        {
            "secret": secret,
            "issuer": ISSUER,
            "algorithm": SECOND_FACTOR.hash_name.value.upper(),
            "digits": SECOND_FACTOR.digits,
            "period": SECOND_FACTOR.period_s,
        }
    )
    return f"otpauth://totp/{label}?{query}"


SET = Rejected(
    Reason.SECOND_FACTOR_SET,
    "you already have a second factor: another super administrator must remove it "
    "first",
)
STALE = Rejected(
    Reason.DRAFT_STALE,
    "this secret belongs to another administrator: enroll again",
    "draft",
)
