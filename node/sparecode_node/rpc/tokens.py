# SPDX-License-Identifier: Apache-2.0
"""`TokenService`: tokens. Seeds can be written but never read."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from sparecode.v1 import tokens_pb2 as pb
from sparecode.v1 import tokens_pb2_grpc as pb_grpc
from sparecode.v1 import types_pb2
from sparecode_node.domain.tokencodes import HashName
from sparecode_node.queries.views import TokenView
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.rpc.uploads import (
    Uploads,
    header_and_content,
    imported_token,
    token_file,
)
from sparecode_node.services.tokens.token_import import TokenImport
from sparecode_node.services.tokens.tokens import Tokens


class TokenServicer(pb_grpc.TokenServiceServicer):
    """Translates between the wire and `Tokens` and `TokenImport`."""

    def __init__(self, node_id: str, tokens: Tokens, token_import: TokenImport) -> None:
        self._node_id = node_id
        self._tokens = tokens
        self._token_import = token_import
        self._imports = Uploads()

    async def EnrollToken(
        self, request: pb.EnrollTokenRequest, context: Context
    ) -> pb.EnrollTokenResponse:
        """Add one token."""
        hash_name = HashName.SHA1
        if request.hash != types_pb2.TOKEN_HASH_UNSPECIFIED:
            hash_name = conversion.enum_value("hash", request.hash, conversion.HASHES)
        expires_at_ms = None
        if request.HasField("expire_time"):
            expires_at_ms = conversion.milliseconds("expire_time", request.expire_time)
        applied = await self._tokens.enroll(
            calls.session_call(context, "TokenService/EnrollToken", request.request_id),
            serial=request.serial,
            algorithm=conversion.enum_value(
                "algorithm", request.algorithm, conversion.ALGORITHMS
            ),
            hash_name=hash_name,
            digits=request.digits,
            period_s=request.period_seconds,
            counter=request.counter,
            seed=request.seed,
            pin_rule=conversion.enum_value(
                "pin_rule", request.pin_rule, conversion.PIN_RULES
            ),
            expires_at_ms=expires_at_ms,
        )
        return pb.EnrollTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def ImportTokens(
        self,
        request_iterator: AsyncIterator[pb.ImportTokensRequest],
        context: Context,
    ) -> pb.ImportTokensResponse:
        """Add the tokens of a file."""
        method = "TokenService/ImportTokens"
        with self._imports.one():
            header, content = await header_and_content(request_iterator)
            token_import = await self._token_import.begin(
                calls.session_call(context, method, header.request_id),
                token_file(header, content),
            )
            async with aclosing(token_import.results) as results:
                tokens = [imported_token(row) async for row in results]
        return pb.ImportTokensResponse(tokens=tokens)

    async def ImportTokenFile(
        self, request: pb.ImportTokenFileRequest, context: Context
    ) -> AsyncIterator[pb.ImportTokenFileResponse]:
        """Add the tokens of a file, and stream a result per row."""
        method = "TokenService/ImportTokenFile"
        with self._imports.one():
            token_import = await self._token_import.begin(
                calls.session_call(context, method, request.request_id),
                token_file(request, request.content, from_row=request.from_row),
            )
            async with aclosing(token_import.results) as results:
                async for row in results:
                    yield pb.ImportTokenFileResponse(
                        rows=token_import.rows, token=imported_token(row)
                    )

    async def GetToken(
        self, request: pb.GetTokenRequest, context: Context
    ) -> pb.GetTokenResponse:
        """Return one token."""
        read = await self._tokens.get(
            calls.session_call(context, "TokenService/GetToken"),
            request.serial,
            stale_ok=request.stale_ok,
        )
        return pb.GetTokenResponse(
            token=_token(read.value), position=conversion.position(read)
        )

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        """Return a page of tokens."""
        algorithm = None
        if request.algorithm != types_pb2.TOKEN_ALGORITHM_UNSPECIFIED:
            algorithm = conversion.enum_value(
                "algorithm", request.algorithm, conversion.ALGORITHMS
            )
        read = await self._tokens.list(
            calls.session_call(context, "TokenService/ListTokens"),
            page_size=request.page_size,
            page_token=request.page_token,
            serial_prefix=request.serial_prefix,
            search=request.search,
            username=request.username,
            algorithm=algorithm,
            enabled=request.enabled if request.HasField("enabled") else None,
            in_emergency_access=(
                request.in_emergency_access
                if request.HasField("in_emergency_access")
                else None
            ),
            stale_ok=request.stale_ok,
        )
        return pb.ListTokensResponse(
            tokens=[_token(token) for token in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def AssignToken(
        self, request: pb.AssignTokenRequest, context: Context
    ) -> pb.AssignTokenResponse:
        """Assign a token to a user."""
        applied = await self._tokens.assign(
            calls.session_call(context, "TokenService/AssignToken", request.request_id),
            serial=request.serial,
            username=request.username,
        )
        return pb.AssignTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def UnassignToken(
        self, request: pb.UnassignTokenRequest, context: Context
    ) -> pb.UnassignTokenResponse:
        """Unassign a token."""
        applied = await self._tokens.unassign(
            calls.session_call(
                context, "TokenService/UnassignToken", request.request_id
            ),
            serial=request.serial,
        )
        return pb.UnassignTokenResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def EnableToken(
        self, request: pb.EnableTokenRequest, context: Context
    ) -> pb.EnableTokenResponse:
        """Enable a token."""
        applied = await self._tokens.enable(
            calls.session_call(context, "TokenService/EnableToken", request.request_id),
            serial=request.serial,
        )
        return pb.EnableTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def DisableToken(
        self, request: pb.DisableTokenRequest, context: Context
    ) -> pb.DisableTokenResponse:
        """Disable a token."""
        applied = await self._tokens.disable(
            calls.session_call(
                context, "TokenService/DisableToken", request.request_id
            ),
            serial=request.serial,
        )
        return pb.DisableTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def UpdateToken(
        self, request: pb.UpdateTokenRequest, context: Context
    ) -> pb.UpdateTokenResponse:
        """Change when a token expires."""
        expires_at_ms = None
        if request.HasField("expire_time"):
            expires_at_ms = conversion.milliseconds("expire_time", request.expire_time)
        applied = await self._tokens.update(
            calls.session_call(
                context, "TokenService/UpdateToken", request.request_id, request.etag
            ),
            serial=request.serial,
            expires_at_ms=expires_at_ms,
            never_expires=request.never_expires,
        )
        return pb.UpdateTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def DeleteToken(
        self, request: pb.DeleteTokenRequest, context: Context
    ) -> pb.DeleteTokenResponse:
        """Delete a token."""
        applied = await self._tokens.delete(
            calls.session_call(context, "TokenService/DeleteToken", request.request_id),
            serial=request.serial,
        )
        return pb.DeleteTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def ReplaceToken(
        self, request: pb.ReplaceTokenRequest, context: Context
    ) -> pb.ReplaceTokenResponse:
        """Replace a token with another."""
        applied = await self._tokens.replace(
            calls.session_call(
                context, "TokenService/ReplaceToken", request.request_id
            ),
            serial=request.serial,
            replacement_serial=request.replacement_serial,
            keep_pin=request.keep_pin,
        )
        return pb.ReplaceTokenResponse(commit=conversion.commit(self._node_id, applied))

    async def ResynchronizeToken(
        self, request: pb.ResynchronizeTokenRequest, context: Context
    ) -> pb.ResynchronizeTokenResponse:
        """Learn a token's position from two tokencodes."""
        applied = await self._tokens.resynchronize(
            calls.session_call(
                context, "TokenService/ResynchronizeToken", request.request_id
            ),
            serial=request.serial,
            first_tokencode=request.first_tokencode,
            second_tokencode=request.second_tokencode,
        )
        return pb.ResynchronizeTokenResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ClearPin(
        self, request: pb.ClearPinRequest, context: Context
    ) -> pb.ClearPinResponse:
        """Clear a token's PIN."""
        applied = await self._tokens.clear_pin(
            calls.session_call(context, "TokenService/ClearPin", request.request_id),
            serial=request.serial,
        )
        return pb.ClearPinResponse(commit=conversion.commit(self._node_id, applied))

    async def SetPin(
        self, request: pb.SetPinRequest, context: Context
    ) -> pb.SetPinResponse:
        """Set a token's PIN."""
        applied = await self._tokens.set_pin(
            calls.session_call(context, "TokenService/SetPin", request.request_id),
            serial=request.serial,
            pin=request.pin,
        )
        return pb.SetPinResponse(commit=conversion.commit(self._node_id, applied))

    async def ReinstateToken(
        self, request: pb.ReinstateTokenRequest, context: Context
    ) -> pb.ReinstateTokenResponse:
        """Reinstate a lost token."""
        applied = await self._tokens.reinstate(
            calls.session_call(
                context, "TokenService/ReinstateToken", request.request_id
            ),
            serial=request.serial,
        )
        return pb.ReinstateTokenResponse(
            commit=conversion.commit(self._node_id, applied)
        )


def _token(token: TokenView) -> pb.Token:
    return pb.Token(
        serial=token.serial,
        algorithm=conversion.enum_number(token.algorithm, conversion.ALGORITHMS),
        hash=conversion.enum_number(token.hash_name, conversion.HASHES),
        digits=token.digits,
        period_seconds=token.period_s,
        pin_rule=conversion.enum_number(token.pin_rule, conversion.PIN_RULES),
        pin_set=token.pin_set,
        username=token.username,
        enabled=token.enabled,
        expire_time=conversion.timestamp(token.expires_at_ms),
        lost=token.lost,
        live_codes=token.live_codes,
        etag=token.etag,
    )
