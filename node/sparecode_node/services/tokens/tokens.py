# SPDX-License-Identifier: Apache-2.0
"""Use cases: the authenticators (K). A seed goes in and never comes out."""

from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passcodes import is_lettered, normalized
from sparecode_node.domain.pins import PinRule, pin_problem
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.domain.users import fold
from sparecode_node.queries import policies, tokens
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.tokens import TokenFilter
from sparecode_node.queries.views import Page, TokenView
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.files.token_files import FileToken
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.pin_folding import new_pin_problem, sealed_for
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.tokens.enrollment import enrollment
from sparecode_node.services.tokens.token_life import TokenLife
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ReinstateToken,
    SetPin,
)
from sparecode_node.statemachine.results import Applied


class Tokens(TokenLife):
    """
    Manages tokens.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`TOKEN_UNKNOWN` and the like) and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
    ) -> None:
        super().__init__(proposer=proposer, state=state, sealing=sealing)
        self._reader = reader
        self._kdf = kdf

    @idempotent
    async def enroll(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        serial: str,
        algorithm: Algorithm,
        hash_name: HashName,
        digits: int,
        period_s: int,
        counter: int,
        seed: bytes,
        pin_rule: PinRule,
        expires_at_ms: int | None,
    ) -> Applied:
        """Add a token."""
        token = FileToken(
            serial=serial,
            algorithm=algorithm,
            hash_name=hash_name,
            digits=digits,
            period_s=period_s,
            counter=counter,
            seed=seed,
            pin_rule=pin_rule,
            expires_at_ms=expires_at_ms,
        )
        command = enrollment(token, self._sealing)
        return await self._proposer.change(context, command)

    async def get(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[TokenView]:
        """Return one token."""
        key = fields.serial(serial)

        async def query(transaction: ReadTransaction, now_ms: int) -> TokenView:
            found = await tokens.get(transaction, key, now_ms=now_ms)
            if found is None:
                raise Refused(
                    Rejected(
                        Reason.TOKEN_UNKNOWN, f"there is no token {serial}", "serial"
                    )
                )
            return found

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def list(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        serial_prefix: str = "",
        username: str = "",
        algorithm: Algorithm | None = None,
        enabled: bool | None = None,
        in_emergency_access: bool | None = None,
        search: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[TokenView]]:
        """
        Return a page of tokens in the order of serials; all filters must hold.

        *search* is found anywhere in the serial, or in the user's names or e-mail.
        """
        size = fields.page_size(page_size)
        fields.text("search", search, at_most=fields.EMAIL_MAX)
        fields.text("serial_prefix", serial_prefix, at_most=fields.SERIAL_MAX)
        chosen = TokenFilter(
            serial_prefix=serial_prefix,
            name_key=fold(fields.username(username)) if username else None,
            algorithm=algorithm,
            enabled=enabled,
            in_emergency_access=in_emergency_access,
            search=fold(search),
        )

        async def query(transaction: ReadTransaction, now_ms: int) -> Page[TokenView]:
            return await tokens.page(
                transaction, chosen, size=size, page_token=page_token, now_ms=now_ms
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def assign(
        self, context: CallContext, *, serial: str, username: str
    ) -> Applied:
        """Give a token to a user, who may have up to three."""
        command = AssignToken(
            serial=fields.serial(serial), name_key=fold(fields.username(username))
        )
        return await self._proposer.change(context, command)

    @idempotent
    async def set_pin(self, context: CallContext, *, serial: str, pin: str) -> Applied:
        """Set the PIN of an assigned token (K2)."""
        key = fields.serial(serial)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)

        async def prepare() -> SetPin:
            return await self._pin_setting(key, normalized(pin), deadline)

        return applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )

    @idempotent
    async def reinstate(self, context: CallContext, *, serial: str) -> Applied:
        """Say that a lost token is its owner's again; its codes are void (R)."""
        command = ReinstateToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    async def _pin_setting(
        self, serial: TokenSerial, pin: str, deadline: Deadline
    ) -> SetPin:
        """Return the command, with the verifier for the token's user (T3)."""
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            found = await tokens.find_with_user(transaction, serial)
        token, user = found or (None, None)
        wrong = pin_problem(pin, policy) or new_pin_problem(pin, token)
        if wrong:
            raise InvalidFieldError("pin", wrong)
        # Nobody's PIN: apply says why, or gives the answer of the first try.
        user_id, verifier, sealed_pin = UserId(""), b"", b""
        key_id = self._sealing.active_key
        if token is not None and user is not None:
            (hashed,) = await self._kdf.derive(
                [KdfInput(secret=Secret.PIN, salt=user.pin_salt, text=pin)],
                lane=Lane.ISSUING,
                timeout_s=deadline.left_s(),
            )
            user_id = user.user_id
            verifier = self._sealing.pin_verifier(hashed, user_id, serial, key_id)
            sealed_pin = sealed_for(self._sealing, token, user_id, pin, key_id)
        return SetPin(
            serial=serial,
            user_id=user_id,
            verifier=verifier,
            key_id=key_id,
            policy_version=policy.version,
            sealed_pin=sealed_pin,
            lettered=is_lettered(pin),
        )
