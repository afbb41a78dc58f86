# SPDX-License-Identifier: Apache-2.0
"""
A login page for a site behind nginx (`auth_request`), with Starlette.

    uvicorn --factory portal:from_environment --port 8000

Set SPARECODE_AGENT_NODES, SPARECODE_CA, SPARECODE_AGENT_CERTIFICATE and
SPARECODE_AGENT_KEY. `nginx/site.conf` asks /auth before every request. Sessions are in
this process: run one.
"""

import html
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sparecode_client import AsyncAgent, Authentication, Decision, SparecodeError

COOKIE = "session"
PAGE = """<!doctype html><title>Sign in</title><p>{words}</p>
<form method="post" action="/login">{fields}<button>Sign in</button></form>"""
FIELD = '<label>{label} <input name="{name}" type="{kind}" autocomplete="off"></label>'
FIRST = (("User name", "username", "text"), ("Passcode", "passcode", "password"))
TOKENCODE = ("The next tokencode", "tokencode", "text")
STEPS = {
    Decision.NEXT_TOKENCODE_REQUIRED: (TOKENCODE,),
    Decision.NEW_PIN_REQUIRED: (("A new PIN", "new_pin", "password"), TOKENCODE),
}
Fields = tuple[tuple[str, str, str], ...]


class Portal:
    """The pages, and the sessions of this process."""

    def __init__(self, connect: Callable[[], AsyncAgent]) -> None:
        self._connect = connect
        self._agent: AsyncAgent
        self._users: dict[str, str] = {}
        self._waiting: dict[str, tuple[str, Authentication]] = {}

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Keep one connection for all requests."""
        async with self._connect() as self._agent:
            yield

    async def auth(self, request: Request) -> Response:
        """Tell nginx whether the browser is signed in."""
        user = self._users.get(request.cookies.get(COOKIE, ""))
        if user is None:
            return Response(status_code=401)
        return Response(status_code=204, headers={"X-User": user})

    async def form(self, _: Request) -> Response:
        """Show the first form."""
        return _page("", FIRST)

    async def login(self, request: Request) -> Response:
        """Judge what the user has typed. Without a decision no one enters."""
        typed = parse_qs((await request.body()).decode(errors="replace"))
        first = {name: values[0] for name, values in typed.items()}
        key = request.cookies.get(COOKIE, "")
        username, before = self._waiting.pop(key, (first.get("username", ""), None))
        try:
            if before is None:
                answer = await self._agent.authenticate(
                    username,
                    first.get("passcode", ""),
                    client_address=request.headers.get("x-real-ip", ""),
                    resource="portal",
                )
            else:
                answer = await self._agent.continue_authentication(
                    before, first.get("tokencode", ""), new_pin=first.get("new_pin")
                )
        except SparecodeError:
            return _page("No decision. Try again.", FIRST, status_code=503)
        # A new key after every answer: one that was known before signs no one in.
        key = secrets.token_urlsafe(32)
        if answer.accepted:
            self._users[key] = username
            response: Response = RedirectResponse("/", status_code=303)
        elif answer.decision in STEPS:
            self._waiting[key] = (username, answer)
            response = _page("One more step.", STEPS[answer.decision])
        else:
            return _page("Wrong user name or passcode.", FIRST, status_code=403)
        response.set_cookie(COOKIE, key, secure=True, httponly=True, samesite="strict")
        return response


def _page(words: str, fields: Fields, status_code: int = 200) -> Response:
    inputs = "".join(
        FIELD.format(label=label, name=name, kind=kind) for label, name, kind in fields
    )
    text = PAGE.format(words=html.escape(words), fields=inputs)
    return HTMLResponse(text, status_code=status_code)


def app(connect: Callable[[], AsyncAgent]) -> Starlette:
    """Return the application; *connect* makes the client of the cluster."""
    portal = Portal(connect)
    return Starlette(
        routes=[
            Route("/auth", portal.auth),
            Route("/login", portal.form, methods=["GET"]),
            Route("/login", portal.login, methods=["POST"]),
        ],
        lifespan=portal.lifespan,
    )


def from_environment() -> Starlette:
    """Return the application for the cluster that the environment names."""
    environment = os.environ
    return app(
        lambda: AsyncAgent(
            environment["SPARECODE_AGENT_NODES"].split(","),
            ca=environment["SPARECODE_CA"],
            certificate=environment["SPARECODE_AGENT_CERTIFICATE"],
            key=environment["SPARECODE_AGENT_KEY"],
        )
    )
