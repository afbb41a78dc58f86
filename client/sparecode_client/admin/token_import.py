# SPDX-License-Identifier: Apache-2.0
"""The tokens of a file."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import tokens_pb2, types_pb2
from sparecode_client.client import Caller, new_request_id
from sparecode_client.errors import Unavailable
from sparecode_client.token_files import TokenFileFormat, token_file_format
from sparecode_client.values import ImportedToken, PinRule
from sparecode_client.wire import enum_out, imported_in


class TokenImport(Caller):
    """Imports of `TokenService`."""

    async def import_tokens(
        self,
        content: bytes,
        *,
        form: TokenFileFormat | None = None,
        password: str = "",
        key: bytes = b"",
        default_pin_rule: PinRule = PinRule.PREPENDED,
        progress: Callable[[ImportedToken, int], object] = lambda _token, _rows: None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> tuple[ImportedToken, ...]:
        """
        Add the tokens of a file, and return what became of each.

        A bad row never stops or half-applies the rest. *form*: PSKC (RFC 6030),
        sdtid (SecurID) or CSV; what it looks like, if not given. An encrypted file
        needs its *password* or (PSKC) its pre-shared *key*; *default_pin_rule* is for
        tokens whose file does not say. *progress* is handed every result as soon as
        it is known, and the number of all rows. *within* is for how long nothing may
        come.

        Raises:
            InvalidArgument: The file as a whole cannot be read; nothing was changed.
            OutcomeUnknown, Unavailable, Overloaded: It went no further. Call again
                with the same request id: rows that were decided stay so.
        """
        request = tokens_pb2.ImportTokenFileRequest(
            request_id=request_id or new_request_id(),
            format=enum_out(
                tokens_pb2.TokenFileFormat, form or token_file_format(content)
            ),
            password=password,
            key=key,
            default_pin_rule=enum_out(types_pb2.PinRule, default_pin_rule),
            content=content,
        )
        results: dict[int, ImportedToken] = {}
        expected = 0

        def take(answer: tokens_pb2.ImportTokenFileResponse) -> bool:
            nonlocal expected
            expected = answer.rows
            if answer.token.row in results:
                return False
            result = results[answer.token.row] = imported_in(answer.token)
            progress(result, expected)
            return True

        await self._client.stream_out(
            lambda node: node.tokens.ImportTokenFile,
            lambda: request,
            take,
            request_id=request.request_id,
            within=within,
        )
        if len(results) < expected or not results:
            raise Unavailable("NO_ANSWER", "a node has not answered for every row")
        return tuple(results[row] for row in sorted(results))
