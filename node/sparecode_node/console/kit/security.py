# SPDX-License-Identifier: Apache-2.0
"""
Protection of browsers: headers, cookies, and the proof that a form is ours.

* No inline script runs, nothing is loaded from other hosts (CSP), no site frames us.
* A browser that was here once connects over TLS only, for a year (HSTS).
* No answer is stored by a cache or by the browser's history (`no-store`).
* The session is in a `__Host-` cookie that scripts and other sites cannot read.
* A form carries a token that only the holder of the session can make. It depends on
  the session alone, so every node can check a form that another node served.
"""

import enum
import hashlib
import hmac
from collections.abc import Container, Iterable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparecode_node.domain.policy import SECOND_MS
from sparecode_node.domain.sign_in_waits import DEVICE_COOKIE_MS
from sparecode_node.domain.users import fold

SECRET_FIELDS = frozenset(
    {
        "confirm_code",
        "confirm_password",
        "enrolled_draft",
        "enrolled_secret",
        "file_key",
        "file_password",
        "form_token",
        "mail_password",
        "new_password",
        "new_password_again",
        "old_password",
        "passkey",
        "password",
        "password_again",
        "pdf_password",
        "pin",
        "pin_again",
        "second_factor",
        "webhook_secret",
        "token_file",
    }
)
"""Fields with secrets: the user types them again after a sign-in or a confirmation."""
SESSION_COOKIE = "__Host-sparecode"
VISIT_COOKIE = "__Host-sparecode-visit"
"""Replaces the session cookie before sign-in, because signing in is a form too."""

KEPT_COOKIE = "__Host-sparecode-kept"
"""A secret of this browser, for which a form is sealed while its administrator signs in."""

LAST_USE_COOKIE = "__Host-sparecode-seen"
"""The last use of the session at this console."""
NOTICE_COOKIE = "__Host-sparecode-notice"
"""The notice of a change, which the next page shows once."""
DEVICE_COOKIE = "__Host-sparecode-device"
"""The beginning of the name of a device cookie: one for each administrator (L7)."""
UNSAVED_COOKIE = "__Host-sparecode-unsaved"
"""A token for which codes were generated, and when: the page may be reloaded."""

LANGUAGE_COOKIE = "__Host-sparecode-language"
"""The language chosen in this browser."""

BODY_BYTES_MAX = 64 * 1024
DISCARDED_BYTES_MAX = 1024 * 1024
"""What is read of a longer body, and not kept: its browser then reads the answer."""

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
    # No stricter: a form must state its origin, to another console too.
    "referrer-policy": "strict-origin",
    # For this host alone: other hosts of the domain are not ours to decide on.
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

LETTER_PATH = "/notices/letter"
"""The HTML of a mail, which another page shows in a frame."""
LETTER_HEADERS = {
    "content-security-policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    ),
    "x-frame-options": "SAMEORIGIN",
}
"""
What differs for it. It can run, load and send nothing, in its frame or opened alone.

Styles in its text are allowed, since mail has no others.
"""
FRAMING_PATH = "/notices"

_PURPOSE = b"sparecode console form"


class TooLargeError(Exception):
    """The body of a request is larger than any form of the console."""


class SecurityHeaders:
    """Sets the headers of every answer."""

    def __init__(self, app: ASGIApp, consoles: Iterable[str]) -> None:
        self._app = app
        # A form may continue on another node's console if this node is going down.
        forms = " ".join(("'self'", *consoles))
        self._headers = {
            name: value.format(forms=forms) for name, value in HEADERS.items()
        }
        policy = "content-security-policy"
        self._of_path = {
            LETTER_PATH: LETTER_HEADERS,
            FRAMING_PATH: {policy: f"{self._headers[policy]}; frame-src 'self'"},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.update(self._of_path.get(scope["path"], {}))
                if scope["path"].startswith("/static/"):
                    # Part of the program: revalidated at each request, rarely changed.
                    headers["cache-control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def form_token(secret: str) -> str:
    """Return the token for the forms of a session, or of a visit before sign-in."""
    return hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).hexdigest()


class Origin(enum.Enum):
    """The origin of a form, as the browser states it."""

    HERE = enum.auto()
    CONSOLE = enum.auto()
    """The console of another node of this cluster."""
    UNKNOWN = enum.auto()
    """Not stated: no browser of today sends a form so."""
    ELSEWHERE = enum.auto()


def origin_of(request: Request, consoles: Container[str]) -> Origin:
    """Return the origin of a form; *consoles*: the addresses of all nodes' consoles."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if site == "same-origin":
        return Origin.HERE
    if origin == f"https://{request.headers.get('host', '')}" and site is None:
        return Origin.HERE
    if origin is None and site is None:
        return Origin.UNKNOWN
    return Origin.CONSOLE if origin in consoles else Origin.ELSEWHERE


def is_ours(origin: Origin, secret: str, token: str) -> bool:
    """Return whether a form comes from a page of ours, sent by the holder of *secret*."""
    return (
        origin is Origin.HERE
        and bool(secret)
        and hmac.compare_digest(
            token.encode("utf-8", "replace"), form_token(secret).encode()
        )
    )


async def body_of(request: Request) -> bytes:
    """Return the body. Raises `TooLargeError`."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= BODY_BYTES_MAX:
            parts.append(part)
        elif size > DISCARDED_BYTES_MAX:
            break
    if size > BODY_BYTES_MAX:
        raise TooLargeError
    return b"".join(parts)


def set_cookie(
    response: Response, name: str, value: str, *, max_age_s: int | None = None
) -> None:
    """Set a cookie. Without *max_age_s* it lasts until the browser closes."""
    response.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )


def device_cookie_name(administrator: str) -> str:
    """Return the name of an administrator's device cookie; it does not show their name."""
    digest = hashlib.sha256(fold(administrator).encode(errors="replace")).hexdigest()
    return f"{DEVICE_COOKIE}-{digest[:16]}"


def set_device_cookie(response: Response, administrator: str, value: str) -> None:
    """Let the browser show at later sign-ins that it is a known device (L7)."""
    if value:
        set_cookie(
            response,
            device_cookie_name(administrator),
            value,
            max_age_s=DEVICE_COOKIE_MS // SECOND_MS,
        )


def forget_cookie(response: Response, name: str) -> None:
    """Delete a cookie."""
    response.delete_cookie(
        name, path="/", secure=True, httponly=True, samesite="strict"
    )
