# SPDX-License-Identifier: Apache-2.0
"""The tokens of a file."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import tokens_pb2, types_pb2
from sparecode_client.admin.imports import check_size, import_rows
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import enum_out
from sparecode_client.values.imports import (
    ImportedToken,
    TokenFileFormat,
    token_file_format,
)
from sparecode_client.values.tokens import PinRule


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
        check_size(content)
        request_id = request_id or new_request_id()
        wire_format = enum_out(
            tokens_pb2.TokenFileFormat, form or token_file_format(content)
        )
        return await import_rows(
            self._client,
            lambda node: node.tokens.ImportTokenFile,
            lambda row: tokens_pb2.ImportTokenFileRequest(
                request_id=request_id,
                format=wire_format,
                password=password,
                key=key,
                default_pin_rule=enum_out(types_pb2.PinRule, default_pin_rule),
                content=content,
                from_row=row,
            ),
            lambda answer: (imported_in(answer.token), answer.rows),
            progress=progress,
            request_id=request_id,
            within=within,
        )


def imported_in(token: tokens_pb2.ImportedToken) -> ImportedToken:
    """Return what became of one key of a token file."""
    return ImportedToken(
        row=token.row,
        serial=token.serial,
        imported=token.imported,
        problem=token.problem,
        reason=token.reason,
    )
