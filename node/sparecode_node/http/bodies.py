# SPDX-License-Identifier: Apache-2.0
"""Bodies, bounded before they are read, and the fields of JSON."""

import base64
import binascii
import email.parser
import email.policy
import json
from collections.abc import Mapping
from email.message import Message
from urllib.parse import parse_qsl

from starlette.requests import Request

from sparecode_node.http.problems import RequestError
from sparecode_node.services.errors import InvalidFieldError

BODY_BYTES_MAX = 16 * 1024
DISCARDED_BYTES_MAX = 1024 * 1024
"""A longer body is read and dropped up to here: a client that sends hears no answer."""
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data"
"""The form that curl and PHP make of a list of fields (RFC 7578)."""
FIELDS_MAX = 32


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

    @classmethod
    def form(cls, body: bytes, content_type: str) -> "Fields":
        """Return the fields of a form, the last one of each name. Raises `RequestError`."""
        of_parts = content_type.partition(";")[0].strip().lower() == PARTS
        try:
            pairs = _parts(body, content_type) if of_parts else _pairs(body)
        except ValueError:
            raise RequestError(400, "MALFORMED", "the body is not a form") from None
        return cls(dict(pairs))

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


def _pairs(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode("ascii"),
        keep_blank_values=True,
        errors="strict",
        max_num_fields=FIELDS_MAX,
    )


def _parts(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """Return the fields of a form in parts. Raises `ValueError`."""
    try:
        return _parsed_parts(body, content_type)
    except ValueError:
        raise
    except Exception as error:
        # The parser of the standard library raises errors of its own bugs, such as
        # IndexError for the parameter `name*` without a value.
        raise ValueError("not in parts") from error


def _parsed_parts(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """Return the fields of a form in parts. May raise any error."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    parts = form.get_payload()
    if form.defects or not isinstance(parts, list) or len(parts) > FIELDS_MAX:
        raise ValueError("not in parts")
    pairs: list[tuple[str, str]] = []
    for part in parts:
        if not isinstance(part, Message) or part.get_filename() is not None:
            raise ValueError("a part is no field")
        name = part.get_param("name", header="content-disposition")
        value = part.get_payload(decode=True)  # None: it has parts of its own.
        if not isinstance(name, str) or not isinstance(value, bytes):
            raise ValueError("a part is no field")  # noqa: TRY004 - The form is wrong.
        pairs.append((name, value.decode()))
    return pairs


def as_text(octets: bytes) -> str:
    """Return octets in base64url, without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
