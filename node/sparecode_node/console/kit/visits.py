# SPDX-License-Identifier: Apache-2.0
"""A visit: one request of a browser, with who it is and what they may."""

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sparecode_node.console.kit import rendering
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.security import (
    NOTICE_COOKIE,
    Origin,
    forget_cookie,
    form_token,
)
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.words import UNAVAILABLE, Problem
from sparecode_node.domain.administrators import Role
from sparecode_node.services.access.authorization import permitted
from sparecode_node.services.context import (
    Anonymous,
    CallContext,
    Read,
    SessionCaller,
)
from sparecode_node.services.errors import NotPermittedError, NotSignedInError
from sparecode_node.services.fields import UUID
from sparecode_node.services.people.sessions import SessionView

READ_S: Final = 3.0
"""A page does not wait longer for a quorum: it shows what this node knows."""
CHANGE_S: Final = 15.0
SIGN_IN: Final = "/sign-in"
CARRY: Final = "carry"
"""What a form asks for that was filled in at another console: show it here."""

WATCHING: Final = "watching"
"""In the address of what a page loads by itself, to see what is new."""

_LOCAL = re.compile(r"/[A-Za-z0-9._~%/-]*", re.ASCII)

T = TypeVar("T")


class UnknownHereError(NotSignedInError):
    """This node does not know the session, and has nobody to ask."""


class Visit:
    """What a page is given, and how it answers."""

    def __init__(
        self, site: Site, request: Request, *, form: Form, secret: str, bearer: str
    ) -> None:
        self.site = site
        self.request = request
        self.form = form
        """What was typed, or the query of a page that is only read."""
        self._secret = secret
        self._bearer = bearer
        self.session: SessionView | None = None
        self.origin = Origin.HERE
        """Where the form was filled in."""
        self.stale_index: int | None = None
        """Set: what the page shows may miss what was committed after it."""
        self.problems: dict[str, Problem] = {}
        """By field; "" for what is not about one field."""
        self._request_id = ""

    # --- Use cases -----------------------------------------------------------

    def call(
        self, method: str, *, request_id: str = "", within_s: float | None = None
    ) -> CallContext:
        """
        Return the context of a use case, called by whoever is signed in.

        Nobody is kept waiting for what cannot be decided here now.
        """
        if within_s is None:
            within_s = CHANGE_S if self.site.is_ready() else READ_S
        return CallContext(
            caller=SessionCaller(bearer=self._bearer) if self._bearer else Anonymous(),
            request_id=request_id,
            method=method,
            deadline_s=within_s,
            peer=self.request.client.host if self.request.client else "",
        )

    async def find_session(self) -> SessionView:
        """Learn who is signed in. Raises `NotSignedInError`, `UnknownHereError`."""
        if not self._bearer:
            raise NotSignedInError
        try:
            self.session = await self.site.services.sessions.who_am_i(
                self.call("SessionService/WhoAmI", within_s=READ_S),
                stale_ok=True,
            )
        except UNAVAILABLE:
            raise UnknownHereError from None
        return self.session

    def new_id(self) -> str:
        """Draw a request id for a form: sent twice, it is done once (Q1)."""
        return self.site.entropy.uuid()

    def typed_request_id(self) -> str:
        """Return the id of the form that was sent; of one without, a new one."""
        typed = self.form.text("request_id")
        return typed if UUID.fullmatch(typed) else self.new_id()

    def keep_request_id(self) -> None:
        """Have the form sent again with its id: nobody knows what has come of it."""
        self._request_id = self.typed_request_id()

    async def read(
        self, method: str, ask: Callable[[CallContext, bool], Awaitable[Read[T]]]
    ) -> T:
        """
        Return what a use case reads: current, or without a quorum what is known here.

        *ask* gets the context and `stale_ok`. The page says so when it is stale.
        """
        call = self.call(method, within_s=READ_S)
        if self.stale_index is None and self.site.is_ready():
            try:
                return (await ask(call, False)).value  # noqa: FBT003
            except UNAVAILABLE:
                pass  # Then what this node knows, below.
        found = await ask(call, True)  # noqa: FBT003
        self.stale_index = found.applied_index
        return found.value

    def must(self, method: str) -> None:
        """Raise `NotPermittedError` for a page that only says how to call a method."""
        if not self.may(method):
            raise NotPermittedError(f"the role may not call {method}")

    def may(self, method: str) -> bool:
        """Say whether the role may call a method: what it may not is not offered."""
        return self.session is not None and permitted(Role(self.session.role), method)

    @property
    def path(self) -> str:
        """The page's address at this console, without its query."""
        return quote(self.request.scope["path"], safe="/~")

    @property
    def is_form(self) -> bool:
        """A form was sent, and what was typed into it stands on the page again."""
        return self.request.method == "POST"

    def typed(self, name: str, otherwise: object = "") -> str:
        """Return what a field is to show: what was typed, or else what is the case."""
        if self.is_form and name in self.form.values:
            return self.form.secret(name)
        return "" if otherwise is None else str(otherwise)

    def ticked(self, name: str, *, otherwise: bool = False, value: str = "on") -> bool:
        """
        Say whether a box is to be ticked.

        A box that is not ticked is not sent, so a form says which boxes it has: that
        another form of the page was sent says nothing of this one.
        """
        if self.is_form and name in self.form.text("boxes").split():
            return value in self.form.all(name)
        return otherwise

    # --- Answers -------------------------------------------------------------

    def add(self, problem: Problem) -> None:
        """Show a problem beside its field."""
        self.problems.setdefault(problem.field, problem)

    def page(self, template: str, *, status: int = 0, **values: object) -> Response:
        """Return a page, with the problems of this visit."""
        worst = max((each.status for each in self.problems.values()), default=200)
        said = self.request.cookies.get(NOTICE_COOKIE, "")
        context = {
            "visit": self,
            "notice": Notice.from_cookie(said) if said else None,
            "site": self.site,
            "session": self.session,
            "may": self.may,
            "problems": self.problems,
            "form_token": form_token(self._secret),
            "path": self.path,
            "request_id": self._request_id or self.new_id(),
            "now_ms": self.site.clock.now_ms(),
            **values,
        }
        response = HTMLResponse(
            rendering.render(template, context), status_code=status or worst
        )
        if said:
            forget_cookie(response, NOTICE_COOKIE)
        return response

    def go(self, path: str) -> Response:
        """Send the browser on, by GET."""
        return RedirectResponse(path, status_code=303)

    def local_next(self) -> str:
        """Return where to go after signing in."""
        return local_path(self.form.text("next", "/"))


def local_path(path: str) -> str:
    """Return a path of this console, whatever was asked for: never another site."""
    if not _LOCAL.fullmatch(path) or path.startswith((SIGN_IN, "//")):
        return "/"
    return path
