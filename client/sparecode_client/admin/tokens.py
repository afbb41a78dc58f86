# SPDX-License-Identifier: Apache-2.0
"""Calls on tokens. A seed can be written, but never read."""

from datetime import datetime, timedelta

from sparecode.v1 import (
    tokens_pb2,
    types_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import (
    commit_in,
    enum_in,
    enum_out,
    position_in,
    time_in,
    time_out,
)
from sparecode_client.values.results import Commit, Page, ReadPosition
from sparecode_client.values.tokens import (
    NewToken,
    PinRule,
    Token,
    TokenAlgorithm,
    TokenFilter,
    TokenHash,
)


class Tokens(Caller):
    """The calls of `TokenService`."""

    async def enroll_token(
        self,
        token: NewToken,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Enroll a token.

        Raises:
            AlreadyExists: The serial is taken.
        """
        request = enroll_out(token, request_id or new_request_id())
        answer = await self._client.unary(
            lambda node: node.tokens.EnrollToken, request, within=within
        )
        return commit_in(answer.commit)

    async def get_token(
        self,
        serial: str,
        *,
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Token:
        """
        Return a token.

        Raises:
            NotFound: No token has this serial.
        """
        request = tokens_pb2.GetTokenRequest(serial=serial, stale_ok=stale_ok)
        answer = await self._client.unary(
            lambda node: node.tokens.GetToken, request, within=within
        )
        return token_in(answer.token, position_in(answer.position))

    async def list_tokens(
        self,
        token_filter: TokenFilter | None = None,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[Token]:
        """Return a page of the tokens that match *token_filter*, by serial."""
        token_filter = TokenFilter() if token_filter is None else token_filter
        request = tokens_pb2.ListTokensRequest(
            page_size=page_size,
            page_token=page_token,
            serial_prefix=token_filter.serial_prefix,
            search=token_filter.search,
            username=token_filter.username,
            enabled=token_filter.enabled,
            in_emergency_access=token_filter.in_emergency_access,
            stale_ok=stale_ok,
        )
        if token_filter.algorithm is not None:
            request.algorithm = enum_out(
                types_pb2.TokenAlgorithm, token_filter.algorithm
            )
        answer = await self._client.unary(
            lambda node: node.tokens.ListTokens, request, within=within
        )
        return Page(
            items=tuple(token_in(token) for token in answer.tokens),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def assign_token(
        self,
        serial: str,
        username: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Assign a token to a user. The policy limits tokens per user (default 3)."""
        request = tokens_pb2.AssignTokenRequest(
            request_id=request_id or new_request_id(), serial=serial, username=username
        )
        answer = await self._client.unary(
            lambda node: node.tokens.AssignToken, request, within=within
        )
        return commit_in(answer.commit)

    async def unassign_token(
        self,
        serial: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Unassign a token: its PIN is cleared and its codes become void."""
        request = tokens_pb2.UnassignTokenRequest(
            request_id=request_id or new_request_id(), serial=serial
        )
        answer = await self._client.unary(
            lambda node: node.tokens.UnassignToken, request, within=within
        )
        return commit_in(answer.commit)

    async def enable_token(
        self,
        serial: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Enable a token again."""
        request = tokens_pb2.EnableTokenRequest(
            request_id=request_id or new_request_id(), serial=serial
        )
        answer = await self._client.unary(
            lambda node: node.tokens.EnableToken, request, within=within
        )
        return commit_in(answer.commit)

    async def disable_token(
        self,
        serial: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Disable a token: it is refused from now on, and its codes become void."""
        request = tokens_pb2.DisableTokenRequest(
            request_id=request_id or new_request_id(), serial=serial
        )
        answer = await self._client.unary(
            lambda node: node.tokens.DisableToken, request, within=within
        )
        return commit_in(answer.commit)

    async def update_token(
        self,
        serial: str,
        *,
        expire_time: datetime | None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Change when a token expires; None: never.

        Its emergency codes expire with it at the latest (I7). With a time in the past,
        the token expires at once.
        """
        request = tokens_pb2.UpdateTokenRequest(
            request_id=request_id or new_request_id(),
            serial=serial,
            expire_time=time_out(expire_time),
        )
        if expire_time is None:
            request.never_expires = True
        answer = await self._client.unary(
            lambda node: node.tokens.UpdateToken, request, within=within
        )
        return commit_in(answer.commit)

    async def delete_token(
        self,
        serial: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Delete a token. Its codes become void."""
        request = tokens_pb2.DeleteTokenRequest(
            request_id=request_id or new_request_id(), serial=serial
        )
        answer = await self._client.unary(
            lambda node: node.tokens.DeleteToken, request, within=within
        )
        return commit_in(answer.commit)

    async def replace_token(
        self,
        serial: str,
        replacement_serial: str,
        *,
        keep_pin: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Replace a user's token by an unassigned one.

        The old token is unassigned and disabled, and its codes become void. *keep_pin*
        moves its PIN to the new token.
        """
        request = tokens_pb2.ReplaceTokenRequest(
            request_id=request_id or new_request_id(),
            serial=serial,
            replacement_serial=replacement_serial,
            keep_pin=keep_pin,
        )
        answer = await self._client.unary(
            lambda node: node.tokens.ReplaceToken, request, within=within
        )
        return commit_in(answer.commit)

    async def resynchronize_token(
        self,
        serial: str,
        first_tokencode: str,
        second_tokencode: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Learn a token's position from two consecutive tokencodes.

        Both are spent: they are not accepted any more.

        Raises:
            Refused: The tokencodes are not consecutive (`TOKENCODES_NOT_CONSECUTIVE`),
                or one of them was used before (`TOKENCODE_SPENT`), or perhaps was,
                before a restore (`TOKENCODE_MAYBE_SPENT`).
        """
        request = tokens_pb2.ResynchronizeTokenRequest(
            request_id=request_id or new_request_id(),
            serial=serial,
            first_tokencode=first_tokencode,
            second_tokencode=second_tokencode,
        )
        answer = await self._client.unary(
            lambda node: node.tokens.ResynchronizeToken, request, within=within
        )
        return commit_in(answer.commit)

    async def clear_pin(
        self,
        serial: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Clear the PIN of a token. The user chooses a new one, or you set one."""
        request = tokens_pb2.ClearPinRequest(
            request_id=request_id or new_request_id(), serial=serial
        )
        answer = await self._client.unary(
            lambda node: node.tokens.ClearPin, request, within=within
        )
        return commit_in(answer.commit)

    async def set_pin(
        self,
        serial: str,
        pin: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Set the PIN of an assigned token: 4 to 8 digits unless policy differs."""
        request = tokens_pb2.SetPinRequest(
            request_id=request_id or new_request_id(), serial=serial, pin=pin
        )
        answer = await self._client.unary(
            lambda node: node.tokens.SetPin, request, within=within
        )
        return commit_in(answer.commit)

    async def reinstate_token(
        self,
        serial: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Reinstate a lost token: it is accepted again, and its codes become void."""
        request = tokens_pb2.ReinstateTokenRequest(
            request_id=request_id or new_request_id(), serial=serial
        )
        answer = await self._client.unary(
            lambda node: node.tokens.ReinstateToken, request, within=within
        )
        return commit_in(answer.commit)


DEFAULT_PERIODS = {
    TokenAlgorithm.TOTP: timedelta(seconds=30),
    TokenAlgorithm.SECURID: timedelta(seconds=60),
}


def enroll_out(token: NewToken, request_id: str) -> tokens_pb2.EnrollTokenRequest:
    """Convert a new token into the request that enrolls it."""
    period = token.period
    if period is None:
        period = DEFAULT_PERIODS.get(token.algorithm)
    return tokens_pb2.EnrollTokenRequest(
        request_id=request_id,
        serial=token.serial,
        algorithm=enum_out(types_pb2.TokenAlgorithm, token.algorithm),
        hash=enum_out(types_pb2.TokenHash, token.hash),
        digits=token.digits,
        period_seconds=0 if period is None else int(period.total_seconds()),
        counter=token.counter,
        seed=token.seed,
        pin_rule=enum_out(types_pb2.PinRule, token.pin_rule),
        expire_time=time_out(token.expire_time),
    )


def token_in(token: tokens_pb2.Token, position: ReadPosition | None = None) -> Token:
    """Convert a token."""
    period = timedelta(seconds=token.period_seconds) if token.period_seconds else None
    hash_in = enum_in(TokenHash, types_pb2.TokenHash, token.hash)
    if token.hash == types_pb2.TOKEN_HASH_UNSPECIFIED:
        hash_in = TokenHash.SHA1
    return Token(
        serial=token.serial,
        algorithm=enum_in(TokenAlgorithm, types_pb2.TokenAlgorithm, token.algorithm),
        hash=hash_in,
        digits=token.digits,
        period=period,
        pin_rule=enum_in(PinRule, types_pb2.PinRule, token.pin_rule),
        pin_set=token.pin_set,
        username=token.username,
        enabled=token.enabled,
        expire_time=time_in(token, "expire_time"),
        lost=token.lost,
        live_codes=token.live_codes,
        position=position,
    )
