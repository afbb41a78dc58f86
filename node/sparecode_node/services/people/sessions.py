# SPDX-License-Identifier: Apache-2.0
"""Use cases: administrators sign in and out (P2)."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import NamedTuple

from sparecode_node.domain.caller_addresses import source_of
from sparecode_node.domain.ids import AdministratorName, NameKey, SessionId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import PasskeyAnswer
from sparecode_node.domain.policy import FactorRule
from sparecode_node.domain.users import fold
from sparecode_node.queries import (
    administrators,
    cluster,
    passkeys,
    resets,
)
from sparecode_node.queries import policy as policies
from sparecode_node.queries.resets import PendingReset
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services import fields
from sparecode_node.services.access import reauthentication
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.fair_queue import (
    Group,
    Share,
    administrators_share,
)
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.people.device_cookies import (
    DeviceCookies,
    is_for_password,
)
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.passkey_checks import (
    Asking,
    PasskeyChecks,
    Purpose,
)
from sparecode_node.services.secrets.password_strength import normal_password
from sparecode_node.services.secrets.sealed_values import DeviceCookie
from sparecode_node.services.secrets.sealing import Sealing, session_id
from sparecode_node.statemachine.commands.sessions import (
    CloseSession,
    OpenSession,
    Reauthenticate,
)
from sparecode_node.statemachine.feature_level import (
    CLIENT_WAITS,
    PASSKEYS,
    SESSION_LIMITS,
)
from sparecode_node.statemachine.results import Applied, Result, SessionOpened

BEARER_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """The calling session."""

    administrator: str
    role: str
    ends_at_ms: int
    idle_ms: int
    """The session ends after this much time without use (policy)."""
    temporary: bool = False
    """Whether the administrator has to change a temporary password first."""
    lacks_factor: bool = False
    """Whether it has not shown the second factor that the policy requires (P8)."""
    factor_rule: str = FactorRule.OPTIONAL.value
    """The policy's `administrators_second_factor`."""
    has_passkey: bool = False
    confirmed: bool = True
    """Whether it may change power without a reauthentication (P7)."""
    pending_resets: tuple[PendingReset, ...] = ()
    """Requested resets of administrators, which every page announces (P4)."""


class SignedIn(NamedTuple):
    """A new session, with its bearer token, which is shown once."""

    bearer: str
    opened: SessionOpened
    device_cookie: str = ""
    """Shown at later sign-ins, it makes the client a known device (L7)."""

    def __repr__(self) -> str:
        """Show the session without its secrets."""
        return f"SignedIn(bearer=***, opened={self.opened!r})"


class Sessions:
    """Opens and ends sessions. A session begins and ends on every node at once."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        device_cookies: DeviceCookies,
        passkey_checks: PasskeyChecks,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates
        self._device_cookies = device_cookies
        self._passkey_checks = passkey_checks
        self._entropy = entropy

    @idempotent
    async def login(
        self,
        context: CallContext,
        *,
        administrator: str,
        password: str,
        second_factor: str = "",
        passkey: str = "",
    ) -> SignedIn:
        """
        Open a session.

        A repeated sign-in gets no session: a caller who knows the password and the
        request id would otherwise test codes of the second factor for nothing (Q1).
        *second_factor* is the code of an administrator who has a second factor. Without
        it, such an administrator is refused with `SECOND_FACTOR_NEEDED` if the password
        is right. *passkey* is a browser's answer to `Passkeys.sign_in_options`, instead
        of a code. The context's device cookie tells a known device from strangers (L7);
        its visit is the browser that was given the challenge.
        Raises `Refused` (`SIGN_IN_REFUSED`, `SECOND_FACTOR_WRONG`, `REQUEST_ID_REUSED`,
        `NOT_INITIALIZED`),
        `InvalidFieldError`, `ProposeError`, and `RateError` before anything is hashed
        (L7).
        """
        fields.request_id(context.request_id)
        fields.text(
            "administrator",
            administrator,
            at_least=1,
            at_most=fields.ADMINISTRATOR_NAME_MAX,
        )
        fields.secret("password", password, at_most=fields.PASSWORD_MAX)
        name = AdministratorName(fold(administrator))
        device = await self._known_device(context.device_cookie, name)
        self._rates.sign_in(
            administrator=name,
            peer=context.peer,
            client=device.device if device else "",
        )
        deadline = self._proposer.deadline(context)
        codes: tuple[str, ...] = ()
        if second_factor:
            codes = (fields.tokencode("second_factor", second_factor),)
        bearer = urlsafe_b64encode(self._entropy.token_bytes(BEARER_BYTES)).decode()
        bearer = bearer.rstrip("=")
        session = session_id(bearer, context.client_certificate)
        share = (
            administrators_share(name)
            if device
            else Share(group=Group.STRANGERS, caller=source_of(context.peer))
        )
        salt = b""

        # It reads the current state, so a name that is not there does not exist. Such a
        # name is not proposed: apply would record it.
        async def prepare() -> Proposal:
            nonlocal salt
            command, salt = await self._prepare(
                context, name, password, session, deadline, device, share=share
            )
            return self._proposer.proposal(
                context,
                replace(
                    command,
                    second_factor=bool(codes),
                    passkey=await self._checked(
                        passkey,
                        Asking(Purpose.SIGN_IN, session_id(context.visit)),
                        name,
                    ),
                ),
                caller=f"administrator:{command.administrator}",
                tokencodes=codes,
            )

        result = await self._proposer.decide(prepare, deadline)
        return SignedIn(
            bearer=bearer,
            opened=opened(result),
            device_cookie=self._device_cookies.make(name, salt) if salt else "",
        )

    @idempotent
    async def reauthenticate(
        self,
        context: CallContext,
        *,
        password: str,
        second_factor: str = "",
        passkey: str = "",
    ) -> Applied:
        """
        Confirm the caller, who may then change power for five minutes (P7).

        *second_factor* is the code of an administrator who has a second factor;
        *passkey* is a browser's answer to `Passkeys.confirmation_options`.
        Raises `Refused` (`WRONG_PASSWORD`, `SECOND_FACTOR_NEEDED`,
        `SECOND_FACTOR_WRONG`, `LOCKED`), `InvalidFieldError`, `NotSignedInError`,
        `ProposeError`, and `RateError` before anything is hashed (L7).
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.secret("password", password, at_most=fields.PASSWORD_MAX)
        codes: tuple[str, ...] = ()
        if second_factor:
            codes = (fields.tokencode("second_factor", second_factor),)
        name = session.administrator
        self._rates.sign_in(
            administrator=name, peer=context.peer, client=session.session_id
        )

        async def prepare() -> Proposal:
            command, _ = await self._prepare(
                context,
                name,
                password,
                session.session_id,
                deadline,
                None,
                share=administrators_share(name),
            )
            return self._proposer.proposal(
                context,
                Reauthenticate(
                    administrator=name,
                    candidate=command.candidate,
                    administrator_version=command.administrator_version,
                    key_id=command.key_id,
                    second_factor=bool(codes),
                    passkey=await self._checked(
                        passkey, Asking(Purpose.CONFIRM, session.session_id), name
                    ),
                ),
                caller=f"administrator:{name}",
                session_id=session.session_id,
                tokencodes=codes,
            )

        return applied(await self._proposer.decide(prepare, deadline))

    @idempotent
    async def logout(self, context: CallContext) -> Applied:
        """End the calling session. Raises `NotSignedInError`, `ProposeError`."""
        return await self._proposer.change(context, CloseSession(everywhere=False))

    @idempotent
    async def logout_everywhere(self, context: CallContext) -> Applied:
        """End every session of the calling administrator. Raises as `logout`."""
        return await self._proposer.change(context, CloseSession(everywhere=True))

    async def who_am_i(
        self, context: CallContext, *, stale_ok: bool = False
    ) -> SessionView:
        """
        Return the calling session, unless it has ended on any node (P2).

        *stale_ok*: by this node's state alone, for callers whose later use of the
        session checks it again. Raises `NotSignedInError`, `ProposeError`.
        """
        deadline = self._proposer.deadline(context)
        if not stale_ok:
            await self._proposer.barrier(deadline)
        session = await self._proposer.session(context, deadline)
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            pending_resets = await resets.pending(transaction)
            known = await passkeys.all_of(transaction, session.administrator)
            needed = await reauthentication.needed(
                transaction, session.session_id, self._proposer.now_ms()
            )
        return SessionView(
            administrator=session.administrator,
            role=session.role.value,
            ends_at_ms=session.ends_at_ms,
            idle_ms=session.idle_ms,
            confirmed=not needed,
            temporary=session.temporary,
            lacks_factor=session.lacks_factor,
            factor_rule=policy.administrators_second_factor,
            has_passkey=bool(known),
            pending_resets=pending_resets,
        )

    async def _known_device(
        self, cookie: str, name: AdministratorName
    ) -> DeviceCookie | None:
        """Return the device of a cookie; None if the cookie is void."""
        async with self._state.transaction() as transaction:
            return await self._device_cookies.known(transaction, cookie, name)

    async def _checked(
        self, answer: str, asking: Asking, name: AdministratorName
    ) -> PasskeyAnswer | None:
        """Return a passkey's answer for apply; None if there is none (P8)."""
        if not answer:
            return None
        async with self._state.transaction() as transaction:
            if await cluster.feature_level(transaction) < PASSKEYS:
                return None
            known = await passkeys.all_of(transaction, name)
            domain = (await policies.current(transaction)).passkey_domain
        return self._passkey_checks.check(answer, asking, known, domain)

    async def _prepare(
        self,
        context: CallContext,
        name: AdministratorName,
        password: str,
        session: SessionId,
        deadline: Deadline,
        device: DeviceCookie | None,
        *,
        share: Share,
    ) -> tuple[OpenSession, bytes]:
        """
        Return the command and the salt of the password. It hashes once for any name (A6).

        The salt is empty while the cluster's feature level knows no devices.
        An unknown name is replaced by its keyed hash: people type their password into
        the name field, and proposed commands are stored.
        Raises `Refused` (`NOT_INITIALIZED`).
        """
        async with self._state.transaction() as transaction:
            if not await policies.initialized(transaction):
                # Otherwise the founder is refused as unknown if the cluster begins next.
                raise Refused(Rejected(Reason.NOT_INITIALIZED))
            current = await administrators.password_parameters(transaction, name)
            level = await cluster.feature_level(transaction)
            key_id = current.key_id if current else self._sealing.active_key
        tag = self._sealing.name_tags(NameKey(name))[0]
        salt = (
            current.salt
            if current
            else self._sealing.unknown_name_salt(Secret.PASSWORD, tag)
        )
        (hashed,) = await self._kdf.derive(
            [
                KdfInput(
                    secret=Secret.PASSWORD, salt=salt, text=normal_password(password)
                )
            ],
            lane=Lane.AUTHENTICATING,
            share=share,
            timeout_s=deadline.left_s(),
        )
        candidate = self._sealing.password_verifier(hashed, name, key_id)
        command = OpenSession(
            administrator=(
                name if current else AdministratorName(f"unknown {tag.hex()}")
            ),
            candidate=candidate,
            administrator_version=current.version if current else 0,
            key_id=key_id,
            session_id=session,
            device=device.device
            if device
            and current
            and is_for_password(device, salt)
            and level >= CLIENT_WAITS
            else "",
            address=context.peer if level >= SESSION_LIMITS else "",
            door=context.door if level >= SESSION_LIMITS else "",
        )
        return command, salt if level >= CLIENT_WAITS else b""


def opened(result: Result) -> SessionOpened:
    """Return the result of `OpenSession`."""
    if not isinstance(result, SessionOpened):
        raise TypeError(f"unexpected result: {type(result).__name__}")
    return result
