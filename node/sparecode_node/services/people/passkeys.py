# SPDX-License-Identifier: Apache-2.0
"""
Use cases: passkeys of administrators (P8).

A passkey is a second factor beside the password. It is not enough alone: the node
cannot tell how well a device checks its user, and the password's waits bound guessing
(L7). `Sessions` uses passkeys; this module makes challenges, and registers and removes.
"""

from dataclasses import dataclass

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import LABEL_MAX
from sparecode_node.queries import administrators, cluster, passkeys
from sparecode_node.queries import policy as policies
from sparecode_node.queries.passkeys import PasskeyView
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.passkey_checks import (
    Asking,
    PasskeyChecks,
    Purpose,
    RefusedAnswerError,
)
from sparecode_node.services.secrets.sealing import session_id
from sparecode_node.statemachine.commands.second_factors import (
    RegisterPasskey,
    RemovePasskey,
)
from sparecode_node.statemachine.feature_level import PASSKEYS
from sparecode_node.statemachine.results import Applied


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPasskeys:
    """The caller's passkeys, and whether this console can register more."""

    passkeys: tuple[PasskeyView, ...]
    available: bool
    has_code: bool
    """Whether the caller also has a secret of time-based codes."""


class Passkeys:
    """
    Registers and removes passkeys of the caller.

    Every method raises `NotSignedInError`, `NotPermittedError`, `Refused` and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        checks: PasskeyChecks,
        rates: Rates,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._checks = checks
        self._rates = rates

    async def own(
        self, context: CallContext, *, stale_ok: bool = False
    ) -> Read[OwnPasskeys]:
        """Return the caller's passkeys."""

        async def query(
            transaction: ReadTransaction, _: int, session: Session
        ) -> OwnPasskeys:
            name = session.administrator
            return OwnPasskeys(
                passkeys=tuple(await passkeys.all_of(transaction, name)),
                available=bool(await self._domain(transaction)),
                has_code=await administrators.has_code(transaction, session.session_id),
            )

        return await self._reader.read_for(context, query, stale_ok=stale_ok)

    async def available(self) -> bool:
        """Return whether passkeys can be used at this node's console, by its state."""
        async with self._state.transaction() as transaction:
            return bool(await self._domain(transaction))

    async def sign_in_options(self, visit: str) -> str:
        """
        Return what a browser needs to sign in with a passkey, as JSON; empty: it cannot.

        *visit*: the secret of the browser's visit. There is no caller yet. By the local
        state: it changes nothing.
        """
        if not visit:
            return ""
        return await self._options(Asking(Purpose.SIGN_IN, session_id(visit)))

    async def confirmation_options(self, context: CallContext) -> str:
        """Return what a browser needs to confirm with a passkey, as JSON (P7)."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        return await self._options(Asking(Purpose.CONFIRM, session.session_id))

    async def _options(self, asking: Asking) -> str:
        async with self._state.transaction() as transaction:
            domain = await self._domain(transaction)
        return self._checks.request(asking, domain) if domain else ""

    async def registration_options(self, context: CallContext) -> str:
        """Return what a browser needs to make a passkey, as JSON."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        now_ms = await self._proposer.barrier(deadline)
        await self._proposer.confirmed_at(context, session, now_ms)
        name = session.administrator
        async with self._state.transaction() as transaction:
            domain = await self._domain(transaction)
            known = await passkeys.all_of(transaction, name)
        if not domain:
            raise Refused(UNAVAILABLE)
        return self._checks.registration(
            Asking(Purpose.REGISTER, session.session_id),
            name,
            domain,
            (each.credential_id for each in known),
        )

    @idempotent
    async def register(
        self, context: CallContext, *, label: str, answer: str
    ) -> Applied:
        """
        Register the passkey that a browser has made. *label*: the device's name.

        Also raises `Refused` (`PASSKEY_REFUSED`, `PASSKEY_LIMIT`).
        """
        fields.text("label", label, at_least=1, at_most=LABEL_MAX)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        name = session.administrator
        self._rates.sign_in(
            administrator=name, peer=context.peer, client=session.session_id
        )
        await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            domain = await self._domain(transaction)
        if not domain:
            raise Refused(UNAVAILABLE)
        try:
            checked = self._checks.check_registration(
                answer, Asking(Purpose.REGISTER, session.session_id), domain
            )
        except RefusedAnswerError as error:
            raise Refused(
                Rejected(
                    Reason.PASSKEY_REFUSED,
                    f"the passkey was not accepted ({error}): try again",
                )
            ) from None
        command = RegisterPasskey(
            name=name,
            label=label.strip(),
            domain=domain,
            public_key=checked.public_key,
            answer=checked.answer,
        )
        return await self._proposer.change(context, command)

    @idempotent
    async def remove(self, context: CallContext, *, credential_id: bytes) -> Applied:
        """Remove a passkey of the caller, if another second factor remains."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        command = RemovePasskey(name=session.administrator, credential_id=credential_id)
        return await self._proposer.change(context, command)

    async def _domain(self, transaction: ReadTransaction) -> str:
        """Return the domain of passkeys; empty: this node's console cannot use any."""
        if await cluster.feature_level(transaction) < PASSKEYS:
            return ""
        domain = (await policies.current(transaction)).passkey_domain
        return domain if self._checks.origins(domain) else ""


UNAVAILABLE = Rejected(
    Reason.PASSKEY_REFUSED,
    "passkeys need the policy's passkey_domain, and in each node's configuration the "
    "addresses of the consoles, which are hosts of that domain",
)
