# SPDX-License-Identifier: Apache-2.0
"""Import of tokens."""

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
    """`TokenService.ImportTokenFile`."""

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
        Import the tokens in a file, and return the result of each row.

        A bad row never stops the others. *form* is PSKC (RFC 6030), sdtid (SecurID) or
        CSV; None: detect it. An encrypted file needs its *password*, or for PSKC its
        pre-shared *key*. *default_pin_rule* applies to tokens whose file does not set
        one. *progress* gets every result as soon as it is known, and the number of all
        rows. *within* limits the time without a result.

        Raises:
            InvalidArgument: The file cannot be read; nothing was changed.
            OutcomeUnknown, Unavailable, Overloaded: The import stopped. Call again with
                the same request id: rows with a result keep it.
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
    """Convert the result of a row."""
    return ImportedToken(
        row=token.row,
        serial=token.serial,
        imported=token.imported,
        problem=token.problem,
        reason=token.reason,
    )
