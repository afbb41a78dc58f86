# SPDX-License-Identifier: Apache-2.0
"""The bounds of every file that an administrator uploads."""

from sparecode_node.services.errors import InvalidFieldError

FILE_BYTES_MAX = 1024 * 1024


def file_size(content: bytes) -> None:
    """Refuse a file that is too large to read."""
    if len(content) > FILE_BYTES_MAX:
        raise InvalidFieldError(
            "content", f"has {len(content)} bytes; at most {FILE_BYTES_MAX}"
        )


def file_rows(count: int, what: str, none: str, *, at_most: int) -> None:
    """Refuse a file with no rows or too many. *none* is the message for no rows."""
    if not count:
        raise InvalidFieldError("content", none)
    if count > at_most:
        raise InvalidFieldError(
            "content", f"the file holds {count} {what}; at most {at_most}"
        )
