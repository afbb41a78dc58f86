# SPDX-License-Identifier: Apache-2.0
"""Bodies, bounded before they are read, and the fields of JSON."""

import base64
import binascii
import json
from collections.abc import Mapping

from starlette.requests import Request

from sparecode_node.http.problems import RequestError
from sparecode_node.services.errors import InvalidFieldError

BODY_BYTES_MAX = 16 * 1024
DISCARDED_BYTES_MAX = 1024 * 1024
"""A longer body is read and dropped up to here: a client that sends hears no answer."""
JSON = "application/json"


def media_type(request: Request) -> str:
    """Return the media type of the body, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def body_of(request: Request) -> bytes:
    """
    Return the body. Raises `RequestError` (413) if it is too long.

    Raises `ClientDisconnect` if it does not arrive in time: the listener then closes
    the connection.
    """
    body, length = bytearray(), 0
    async for part in request.stream():
        length += len(part)
        if length <= BODY_BYTES_MAX:
            body += part
        elif length > DISCARDED_BYTES_MAX:
            break
    if length > BODY_BYTES_MAX:
        raise RequestError(
            413,
            "TOO_LARGE",
            f"the body is longer than {BODY_BYTES_MAX} bytes",
            # The rest was not read, so the connection cannot be used again.
            {"connection": "close"} if length > DISCARDED_BYTES_MAX else None,
        )
    return bytes(body)


class Fields:
    """The fields of a JSON object. Errors never quote a value."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    @classmethod
    def any(cls, body: bytes) -> "Fields":
        """Return the fields of a JSON object. Raises `RequestError`."""
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise RequestError(400, "MALFORMED", "the body is not a JSON object")
        return cls(values)

    @classmethod
    def parse(cls, body: bytes, known: frozenset[str]) -> "Fields":
        """Return the fields of an object that has *known* ones alone, as `any`."""
        fields = cls.any(body)
        if not fields.names <= known:
            raise RequestError(
                400,
                "MALFORMED",
                f"the body has an unknown field; known are {', '.join(sorted(known))}",
            )
        return fields

    @property
    def names(self) -> frozenset[str]:
        """The names of all fields."""
        return frozenset(self._values)

    def text(self, name: str, *, required: bool = False) -> str:
        """Return a text; empty: it is missing. Raises `InvalidFieldError`."""
        value = self._values.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            raise InvalidFieldError(name, "must be text")
        try:
            value.encode()
        except UnicodeEncodeError:  # Half of a surrogate pair.
            raise InvalidFieldError(name, "must be Unicode text") from None
        return value

    def octets(self, name: str) -> bytes:
        """Return the octets that a text has in base64url. Raises `InvalidFieldError`."""
        text = self.text(name, required=True)
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            return base64.b64decode(padded, altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise InvalidFieldError(
                name, "must be the one of an earlier answer"
            ) from None


def as_text(octets: bytes) -> str:
    """Return octets in base64url, without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
