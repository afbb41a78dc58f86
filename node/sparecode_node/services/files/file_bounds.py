# SPDX-License-Identifier: Apache-2.0
"""How large a file may be that an administrator uploads, and how many rows it has."""

from sparecode_node.services.errors import InvalidFieldError

CONTENT_BYTES_MAX = 1024 * 1024


def check_size(content: bytes) -> None:
    """Refuse a file that is too large to be looked at."""
    if len(content) > CONTENT_BYTES_MAX:
        raise InvalidFieldError(
            "content", f"has {len(content)} bytes; at most {CONTENT_BYTES_MAX}"
        )


def check_rows(count: int, what: str, none: str, *, at_most: int) -> None:
    """Refuse a file that holds nothing, or too much."""
    if not count:
        raise InvalidFieldError("content", none)
    if count > at_most:
        raise InvalidFieldError(
            "content", f"the file holds {count} {what}; at most {at_most}"
        )
