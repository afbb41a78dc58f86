# SPDX-License-Identifier: Apache-2.0
"""
What protects a browser: headers, cookies, and the proof that a form is ours.

* Nothing inline runs and nothing is loaded from elsewhere (CSP), nobody frames us.
* No answer is kept: not by a cache, not by the browser's history (`no-store`).
* The session is in a `__Host-` cookie that no script and no other site gets.
* A form carries a token that only who knows the session could have made. It is a
  function of the session alone, so any node checks what any node has served.
"""

import enum
import hashlib
import hmac
from collections.abc import Container, Iterable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_COOKIE = "__Host-sparecode"
VISIT_COOKIE = "__Host-sparecode-visit"
"""Stands in for a session until there is one: signing in is a form too."""

SEEN_COOKIE = "__Host-sparecode-seen"
"""When the session was used last at this console."""
NOTICE_COOKIE = "__Host-sparecode-notice"
"""What the next page says of the change before it, once."""

BODY_BYTES_MAX = 64 * 1024

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action {forms}; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Not less: a form must say where it comes from, to another console too.
    "referrer-policy": "strict-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_PURPOSE = b"sparecode console form"


class TooLargeError(Exception):
    """The body of a request is longer than any form of ours."""


class SecurityHeaders:
    """Sets the headers of every answer, whoever gives it."""

    def __init__(self, app: ASGIApp, consoles: Iterable[str]) -> None:
        self._app = app
        # A form may go on at another node's console, if this one is going down.
        forms = " ".join(("'self'", *consoles))
        self._headers = {
            name: value.format(forms=forms) for name, value in HEADERS.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                if scope["path"].startswith("/static/"):
                    # Comes with the program: asked for again, and mostly unchanged.
                    headers["cache-control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def form_token(secret: str) -> str:
    """Return what the forms of a session (or of a visit before it) carry."""
    return hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).hexdigest()


class Origin(enum.Enum):
    """Where a form was filled in, as the browser says."""

    HERE = enum.auto()
    CONSOLE = enum.auto()
    """At the console of another node of this cluster."""
    UNSAID = enum.auto()
    ELSEWHERE = enum.auto()


def origin_of(request: Request, consoles: Container[str]) -> Origin:
    """Return where a form was filled in; *consoles*: the addresses of all of them."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return Origin.HERE
    if origin == f"https://{request.headers.get('host', '')}" and site is None:
        return Origin.HERE
    if origin is None and site is None:
        return Origin.UNSAID
    return Origin.CONSOLE if origin in consoles else Origin.ELSEWHERE


def is_ours(origin: Origin, secret: str, token: str) -> bool:
    """Say whether a form was filled in on a page of ours, by who holds *secret*."""
    if origin not in (Origin.HERE, Origin.UNSAID):
        return False
    return bool(secret) and hmac.compare_digest(
        token.encode("utf-8", "replace"), form_token(secret).encode()
    )


async def body_of(request: Request) -> bytes:
    """Return the body. Raises `TooLargeError`."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise TooLargeError
        parts.append(part)
    return b"".join(parts)


def set_cookie(response: Response, name: str, value: str) -> None:
    """Set a cookie that ends with the browser."""
    response.set_cookie(
        name, value, path="/", secure=True, httponly=True, samesite="strict"
    )


def forget_cookie(response: Response, name: str) -> None:
    """Delete a cookie."""
    response.delete_cookie(
        name, path="/", secure=True, httponly=True, samesite="strict"
    )
