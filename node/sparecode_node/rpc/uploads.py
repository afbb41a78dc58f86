# SPDX-License-Identifier: Apache-2.0
"""Uploaded files: their limit, and their conversion from and to messages."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from sparecode.v1 import tokens_pb2 as pb
from sparecode.v1 import types_pb2
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.rpc import conversion
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.bounds import FILE_BYTES_MAX
from sparecode_node.services.files.token_files import TokenFile
from sparecode_node.services.tokens.token_import import ImportedRow

UPLOADS_MAX = 8
"""Concurrent uploads. Each holds a file in memory before its session is checked."""


class Uploads:
    """Counts the uploads in progress."""

    def __init__(self) -> None:
        self._running = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one upload. Raises `OverloadedError` if there are too many."""
        if self._running >= UPLOADS_MAX:
            raise OverloadedError
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


async def header_and_content(
    requests: AsyncIterator[pb.ImportTokensRequest],
) -> tuple[pb.ImportTokensHeader, bytes]:
    """Return the header of an upload and the joined parts of its file."""
    header: pb.ImportTokensHeader | None = None
    content = bytearray()
    async for request in requests:
        part = request.WhichOneof("part")
        if header is None and part == "header":
            header = request.header
        elif header is not None and part == "content" and request.content:
            content += request.content
            if len(content) > FILE_BYTES_MAX:
                raise InvalidFieldError(
                    "content", f"more than {FILE_BYTES_MAX} bytes in total"
                )
        else:
            raise InvalidFieldError(
                "part",
                "send one header first, then parts of the content, none of them empty",
            )
    if header is None:
        raise InvalidFieldError("header", "missing")
    return header, bytes(content)


def token_file(
    description: pb.ImportTokensHeader | pb.ImportTokenFileRequest,
    content: bytes,
    *,
    from_row: int = 0,
) -> TokenFile:
    """Return a token file with its description."""
    pin_rule = None
    if description.default_pin_rule != types_pb2.PIN_RULE_UNSPECIFIED:
        pin_rule = conversion.enum_value(
            "default_pin_rule", description.default_pin_rule, conversion.PIN_RULES
        )
    return TokenFile(
        format=conversion.enum_value(
            "format", description.format, conversion.TOKEN_FILE_FORMATS
        ),
        content=content,
        password=description.password,
        key=description.key,
        default_pin_rule=pin_rule,
        from_row=from_row,
    )


def imported_token(row: ImportedRow) -> pb.ImportedToken:
    """Return the result for a row."""
    return pb.ImportedToken(
        row=row.row,
        serial=row.serial,
        imported=row.imported,
        problem=row.problem,
        reason=row.reason.upper(),
    )
