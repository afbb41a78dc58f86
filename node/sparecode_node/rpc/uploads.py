# SPDX-License-Identifier: Apache-2.0
"""Files that are uploaded: how many at once, and what of them is on the wire."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from sparecode.v1 import tokens_pb2 as pb
from sparecode.v1 import types_pb2
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.rpc import conversion
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.file_bounds import CONTENT_BYTES_MAX
from sparecode_node.services.files.token_files import TokenFile
from sparecode_node.services.tokens.token_import import ImportedRow

UPLOADS_MAX = 8
"""At once: each holds a file in memory before anybody has looked at the session."""


class Uploads:
    """Counts the files that are being taken in."""

    def __init__(self) -> None:
        self._running = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take one in. Raises `OverloadedError` while there are too many."""
        if self._running >= UPLOADS_MAX:
            raise OverloadedError
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


async def received(
    requests: AsyncIterator[pb.ImportTokensRequest],
) -> tuple[pb.ImportTokensHeader, bytes]:
    """Put the pieces of a file together."""
    header: pb.ImportTokensHeader | None = None
    content = bytearray()
    async for request in requests:
        part = request.WhichOneof("part")
        if header is None and part == "header":
            header = request.header
        elif header is not None and part == "content" and request.content:
            content += request.content
            if len(content) > CONTENT_BYTES_MAX:
                raise InvalidFieldError(
                    "content", f"more than {CONTENT_BYTES_MAX} bytes in all"
                )
        else:
            raise InvalidFieldError(
                "part", "first comes one header, then pieces of content, none empty"
            )
    if header is None:
        raise InvalidFieldError("header", "missing")
    return header, bytes(content)


def token_file(
    said: pb.ImportTokensHeader | pb.ImportTokenFileRequest,
    content: bytes,
    *,
    from_row: int = 0,
) -> TokenFile:
    """Return a token file with what is said of it."""
    pin_rule = None
    if said.default_pin_rule != types_pb2.PIN_RULE_UNSPECIFIED:
        pin_rule = conversion.enum_value(
            "default_pin_rule", said.default_pin_rule, conversion.PIN_RULES
        )
    return TokenFile(
        format=conversion.enum_value(
            "format", said.format, conversion.TOKEN_FILE_FORMATS
        ),
        content=content,
        password=said.password,
        key=said.key,
        default_pin_rule=pin_rule,
        from_row=from_row,
    )


def imported_token(row: ImportedRow) -> pb.ImportedToken:
    """Return what became of a row."""
    return pb.ImportedToken(
        row=row.row,
        serial=row.serial,
        imported=row.imported,
        problem=row.problem,
        reason=row.reason.upper(),
    )
