# SPDX-License-Identifier: Apache-2.0
"""
The language of a browser: chosen at the console, or else as `Accept-Language` says.

The choice is in a cookie. Only names of catalogues are compared with what the browser
sends: nothing of it reaches a path or a page.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sparecode_node.console.kit import languages
from sparecode_node.console.kit.security import (
    LANGUAGE_COOKIE,
    forget_cookie,
    set_cookie,
)

_COOKIE_S: Final = 365 * 24 * 3600


class Languages:
    """Answers each request in the language of its browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with languages.using(language_of(Request(scope))):
            await self._app(scope, receive, send)


def language_of(request: Request) -> str:
    """Return the language to answer in."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in languages.languages():
        return chosen
    header = request.headers.get("accept-language", "")
    return languages.best(languages.accepted(header))


def keep(response: Response, language: str) -> None:
    """Let the browser keep a choice; any other value goes back to its own languages."""
    if language in languages.languages():
        set_cookie(response, LANGUAGE_COOKIE, language, max_age_s=_COOKIE_S)
    else:
        forget_cookie(response, LANGUAGE_COOKIE)
