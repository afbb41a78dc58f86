# SPDX-License-Identifier: Apache-2.0
"""Use cases: the tokens (K). A seed goes in and never comes out."""

from sparecode_node.domain.ids import NO_USER, AdministratorName, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passcodes import is_lettered, normalized
from sparecode_node.domain.pins import PinRule, pin_problem
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.domain.users import fold
from sparecode_node.queries import policy as policies
from sparecode_node.queries import tokens
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.tokens import TokenFilter, TokenOrder
from sparecode_node.queries.views import Found, Page, TokenView
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.files.token_files import FileToken
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.fair_queue import administrators_share
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.pin_folding import (
    carried,
    new_pin_problem,
    sealed_for,
)
from sparecode_node.services.secrets.pin_strength import blocked_pin_problem
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.tokens.enrollment import Enrollment
from sparecode_node.statemachine.commands.emergency_access import ReinstateToken
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.results import Applied


class Tokens:
    """
    Manages tokens.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`TOKEN_UNKNOWN` and others) and
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
        enrollment: Enrollment,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._enrollment = enrollment

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
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        return applied(
            await self._proposer.propose_fresh(
                context, session, deadline, lambda: self._enrollment.command(token)
            )
        )

    async def get(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[TokenView]:
        """Return one token."""
        key = fields.serial(serial)

        async def query(transaction: ReadTransaction, now_ms: int) -> TokenView:
            view = await tokens.get(transaction, key, now_ms=now_ms)
            if view is None:
                raise Refused(
                    Rejected(
                        Reason.TOKEN_UNKNOWN, f"there is no token {serial}", "serial"
                    )
                )
            return view

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
        Return a page of tokens, ordered by serial. All filters must match.

        *search*: words that are in the serial, or in the user's names or e-mail, in
        any spelling.
        """
        size = fields.page_size(page_size)
        fields.text("search", search, at_most=fields.EMAIL_MAX)
        fields.text("serial_prefix", serial_prefix, at_most=fields.SERIAL_MAX)
        token_filter = TokenFilter(
            serial_prefix=serial_prefix,
            name_key=fold(fields.username(username)) if username else None,
            algorithm=algorithm,
            enabled=enabled,
            in_emergency_access=in_emergency_access,
            search=search,
        )

        async def query(transaction: ReadTransaction, now_ms: int) -> Page[TokenView]:
            return await tokens.page(
                transaction,
                token_filter,
                size=size,
                page_token=page_token,
                now_ms=now_ms,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def find(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        number: int = 1,
        search: str = "",
        algorithm: Algorithm | None = None,
        enabled: bool | None = None,
        in_emergency_access: bool | None = None,
        order: TokenOrder = TokenOrder.SERIAL,
        stale_ok: bool = False,
    ) -> Read[Found[TokenView]]:
        """
        Return a page of tokens for a person, with the number of all matches.

        Other than `list`, it goes no further than `pages.COUNTED_MAX` tokens.
        """
        size = fields.page_size(page_size)
        fields.text("search", search, at_most=fields.EMAIL_MAX)
        page_number = fields.page_number(number)
        token_filter = TokenFilter(
            algorithm=algorithm,
            enabled=enabled,
            in_emergency_access=in_emergency_access,
            search=search,
        )

        async def query(transaction: ReadTransaction, now_ms: int) -> Found[TokenView]:
            return await tokens.find(
                transaction,
                token_filter,
                order=order,
                number=page_number,
                size=size,
                now_ms=now_ms,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def assign(
        self, context: CallContext, *, serial: str, username: str
    ) -> Applied:
        """Assign a token to a user, who may have up to three."""
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
            return await self._pin_setting(
                key, normalized(pin), deadline, session.administrator
            )

        return applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )

    @idempotent
    async def reinstate(self, context: CallContext, *, serial: str) -> Applied:
        """Accept a recovered token again; its codes become void (R)."""
        command = ReinstateToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def unassign(self, context: CallContext, *, serial: str) -> Applied:
        """Unassign a token; its PIN is deleted and its codes become void (R3)."""
        command = UnassignToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def enable(self, context: CallContext, *, serial: str) -> Applied:
        """Accept the tokencodes of a token."""
        command = EnableToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def disable(self, context: CallContext, *, serial: str) -> Applied:
        """Refuse the tokencodes of a token; its codes become void (R3)."""
        command = DisableToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def update(
        self,
        context: CallContext,
        *,
        serial: str,
        expires_at_ms: int | None,
        never_expires: bool,
    ) -> Applied:
        """Change when a token expires. Exactly one of the two arguments is set."""
        if (expires_at_ms is None) is not never_expires:
            raise InvalidFieldError(
                "expire_time", "set either expire_time or never_expires"
            )
        command = UpdateToken(
            serial=fields.serial(serial),
            expires_at_ms=fields.time_ms("expire_time", expires_at_ms),
            never_expires=never_expires,
        )
        return await self._proposer.change(context, command)

    @idempotent
    async def delete(self, context: CallContext, *, serial: str) -> Applied:
        """Delete a token; its codes become void (R3)."""
        command = DeleteToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def replace(
        self,
        context: CallContext,
        *,
        serial: str,
        replacement_serial: str,
        keep_pin: bool,
    ) -> Applied:
        """Replace a user's token by another; the old one is no longer used (R3)."""
        old = fields.serial(serial)
        new = fields.serial(replacement_serial, "replacement_serial")
        if new == old:
            raise InvalidFieldError(
                "replacement_serial", "must be the serial of another token"
            )
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)

        async def prepare() -> ReplaceToken:
            return await self._replacement(old, new, keep_pin=keep_pin)

        return applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )

    @idempotent
    async def resynchronize(
        self,
        context: CallContext,
        *,
        serial: str,
        first_tokencode: str,
        second_tokencode: str,
    ) -> Applied:
        """Learn a token's position from two consecutive tokencodes; spend both (K1)."""
        command = ResynchronizeToken(serial=fields.serial(serial))
        digits = (
            fields.tokencode("first_tokencode", first_tokencode),
            fields.tokencode("second_tokencode", second_tokencode),
        )
        return await self._proposer.change(context, command, tokencodes=digits)

    @idempotent
    async def clear_pin(self, context: CallContext, *, serial: str) -> Applied:
        """Clear the PIN of a token: no passcode is accepted until it has a new PIN (A2)."""
        command = ClearPin(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    async def _pin_setting(
        self,
        serial: TokenSerial,
        pin: str,
        deadline: Deadline,
        administrator: AdministratorName,
    ) -> SetPin:
        """Return the command, with the verifier for the token's user (T3)."""
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            token_and_user = await tokens.find_with_user(transaction, serial)
        token, user = token_and_user or (None, None)
        problem = (
            pin_problem(pin, policy)
            or new_pin_problem(pin, token)
            or blocked_pin_problem(pin, policy, user)
        )
        if problem:
            raise InvalidFieldError("pin", problem)
        # Without a user there is no verifier: apply refuses, or repeats the first answer.
        user_id, verifier, sealed_pin = NO_USER, b"", b""
        key_id = self._sealing.active_key
        if token is not None and user is not None:
            (hashed,) = await self._kdf.derive(
                [KdfInput(secret=Secret.PIN, salt=user.pin_salt, text=pin)],
                lane=Lane.ISSUING,
                share=administrators_share(administrator),
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

    async def _replacement(
        self, old: TokenSerial, new: TokenSerial, *, keep_pin: bool
    ) -> ReplaceToken:
        """Return the command, with the PIN's verifier for the new serial (T3)."""
        async with self._state.transaction() as transaction:
            token_and_user = await tokens.find_with_user(transaction, old)
            replacement = await tokens.find_with_user(transaction, new)
        token, user = token_and_user or (None, None)
        verifier, sealed_pin, key_id = b"", b"", self._sealing.active_key
        if keep_pin and token is not None and user is not None and token.pin_set:
            verifier = self._sealing.rebound_pin_verifier(
                token.pin_verifier,
                token.pin_key_id,
                user.user_id,
                old=old,
                new=new,
                new_key=key_id,
            )
            if replacement:
                sealed_pin = carried(
                    self._sealing, token, replacement[0], user.user_id, key_id
                )
        # Without a user or a PIN, apply refuses, or repeats the first answer.
        return ReplaceToken(
            serial=old,
            replacement=new,
            keep_pin=keep_pin,
            user_id=user.user_id if user else NO_USER,
            auth_version=user.auth_version if user else 0,
            key_id=key_id,
            pin_verifier=verifier,
            sealed_pin=sealed_pin,
        )
