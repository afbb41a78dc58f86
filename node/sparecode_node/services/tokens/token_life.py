# SPDX-License-Identifier: Apache-2.0
"""Use cases: what happens to a token between assignment and end (K, R3)."""

from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.queries import tokens
from sparecode_node.queries.state import LocalState
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.secrets.pin_folding import carried
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.tokens import (
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    ReplaceToken,
    ResynchronizeToken,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.results import Applied


class TokenLife:
    """
    Changes tokens that are there.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`TOKEN_UNKNOWN` and the like) and
    `ProposeError`.
    """

    def __init__(
        self, *, proposer: Proposer, state: LocalState, sealing: Sealing
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._sealing = sealing

    @idempotent
    async def unassign(self, context: CallContext, *, serial: str) -> Applied:
        """Take a token from its user; its PIN is gone and its codes are void (R3)."""
        command = UnassignToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def enable(self, context: CallContext, *, serial: str) -> Applied:
        """Let a token be used."""
        command = EnableToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    @idempotent
    async def disable(self, context: CallContext, *, serial: str) -> Applied:
        """Refuse a token from now on; its codes are void (R3)."""
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
        """Change when a token expires: one of the two is given."""
        if (expires_at_ms is None) is not never_expires:
            raise InvalidFieldError(
                "expire_time", "give a time, or say never_expires: one of the two"
            )
        command = UpdateToken(
            serial=fields.serial(serial),
            expires_at_ms=fields.time_ms("expire_time", expires_at_ms),
            never_expires=never_expires,
        )
        return await self._proposer.change(context, command)

    @idempotent
    async def delete(self, context: CallContext, *, serial: str) -> Applied:
        """Delete a token; its codes are void (R3)."""
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
        """Put a token in the place of a user's, which is out of use then (R3)."""
        old = fields.serial(serial)
        new = fields.serial(replacement_serial, "replacement_serial")
        if new == old:
            raise InvalidFieldError("replacement_serial", "must be of another token")
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
        """Learn from two consecutive tokencodes where a token is; spend both (K1)."""
        command = ResynchronizeToken(serial=fields.serial(serial))
        digits = (
            fields.tokencode("first_tokencode", first_tokencode),
            fields.tokencode("second_tokencode", second_tokencode),
        )
        return await self._proposer.change(context, command, tokencodes=digits)

    @idempotent
    async def clear_pin(self, context: CallContext, *, serial: str) -> Applied:
        """Clear the PIN of a token: no passcode is accepted until there is another (A2)."""
        command = ClearPin(serial=fields.serial(serial))
        return await self._proposer.change(context, command)

    async def _replacement(
        self, old: TokenSerial, new: TokenSerial, *, keep_pin: bool
    ) -> ReplaceToken:
        """Return the command, with the PIN's verifier for the new serial (T3)."""
        async with self._state.transaction() as transaction:
            found = await tokens.find_with_user(transaction, old)
            found_new = await tokens.find_with_user(transaction, new)
        token, user = found or (None, None)
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
            if found_new:
                sealed_pin = carried(
                    self._sealing, token, found_new[0], user.user_id, key_id
                )
        # Without a user or a PIN apply says why, or gives the answer of the first try.
        return ReplaceToken(
            serial=old,
            replacement=new,
            keep_pin=keep_pin,
            user_id=user.user_id if user else UserId(""),
            auth_version=user.auth_version if user else 0,
            key_id=key_id,
            pin_verifier=verifier,
            sealed_pin=sealed_pin,
        )
