# SPDX-License-Identifier: Apache-2.0
"""A visit: one request of a browser, with its session and permissions."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, unquote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match

from sparecode_node.console.kit import languages, rendering, sheet
from sparecode_node.console.kit.forms import Form, Query
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.security import (
    NOTICE_COOKIE,
    Origin,
    forget_cookie,
    form_token,
)
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.words import UNAVAILABLE, Problem, advised
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.caller_addresses import canonical
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
"""How long a page waits for a quorum before it shows what this node knows."""
CHANGE_S: Final = 15.0
SIGN_IN: Final = "/sign-in"
PAGE_ROUTE: Final = "page"
"""The name of the routes of pages that need a session."""
CARRY: Final = "carry"
"""The action of a form filled in at another console: show it here."""

WATCHING: Final = "watching"
"""Marks the address of a refresh that a page makes by itself."""

_LOCAL = re.compile(r"/[A-Za-z0-9._~%/-]*", re.ASCII)

T = TypeVar("T")


class UnknownHereError(NotSignedInError):
    """This node does not know the session and cannot reach a quorum."""


class Visit:
    """The input of a page, and its ways to answer."""

    def __init__(
        self,
        site: Site,
        request: Request,
        *,
        form: Form | None = None,
        secret: str = "",
        bearer: str = "",
        route: str = "",
    ) -> None:
        self.site = site
        self.request = request
        self.form = form or Form()
        """The submitted fields; empty if no form was sent."""
        self.query = Query(
            request.query_params.multi_items() if not self.is_form else ()
        )
        """The query of the address; empty if a form was sent."""
        self.route = route
        """The route of a page that needs a session, such as `/users/{username:path}`."""
        self._secret = secret
        self._bearer = bearer
        self.session: SessionView | None = None
        self.origin = Origin.HERE
        """The origin of the form."""
        self.stale_index: int | None = None
        """If set, the page may lack changes committed after this index."""
        self.problems: dict[str, Problem] = {}
        """By field; "" for problems that concern no single field."""
        self.is_outdated = False
        """Whether a change was refused because another one came in between (P10)."""
        self._present: dict[str, str] = {}
        """The present values of the fields that the page has shown so far."""
        self._request_id = ""
        self.is_renewed = False
        """Whether the answer gives the browser another session."""

    # --- Use cases -----------------------------------------------------------

    def call(
        self, method: str, *, request_id: str = "", within_s: float | None = None
    ) -> CallContext:
        """
        Return the context for calling a use case in the name of this session.

        The deadline is short while this node has no quorum.
        """
        if within_s is None:
            within_s = CHANGE_S if self.site.is_ready() else READ_S
        return CallContext(
            caller=SessionCaller(bearer=self._bearer) if self._bearer else Anonymous(),
            request_id=request_id,
            method=method,
            etag=self.form.text("etag"),
            deadline_s=within_s,
            peer=canonical(self.request.client.host) if self.request.client else "",
            door="console",
            visit="" if self._bearer else self._secret,
        )

    async def find_session(self) -> SessionView:
        """Find the session. Raises `NotSignedInError`, `UnknownHereError`."""
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
        """Draw a request id for a form, so that sending it twice applies it once (Q1)."""
        return self.site.entropy.uuid()

    def submitted_request_id(self) -> str:
        """Return the request id of the submitted form, or a new one."""
        typed = self.form.text("request_id")
        return typed if UUID.fullmatch(typed) else self.new_id()

    def keep_request_id(self) -> None:
        """Keep the form's request id, because its outcome is unknown."""
        self._request_id = self.submitted_request_id()

    @property
    def must_send_again(self) -> bool:
        """Whether the same form, unchanged, has to be sent again to learn the outcome."""
        return any(problem.retry for problem in self.problems.values())

    async def read(
        self, method: str, ask: Callable[[CallContext, bool], Awaitable[Read[T]]]
    ) -> T:
        """
        Return the result of a read; without a quorum, what this node knows.

        *ask* gets the context and `stale_ok`. The page states when a result is stale.
        """
        call = self.call(method, within_s=READ_S)
        if self.stale_index is None and self.site.is_ready():
            try:
                return (await ask(call, False)).value  # noqa: FBT003
            except UNAVAILABLE:
                pass  # Fall back to what this node knows.
        result = await ask(call, True)  # noqa: FBT003
        self.stale_index = result.applied_index
        return result.value

    def require(self, method: str) -> None:
        """Raise `NotPermittedError` if the role may not call the page's method."""
        if not self.may(method):
            raise NotPermittedError(f"the role may not call {method}")

    def may(self, method: str) -> bool:
        """Return whether the role may call a method; pages offer only those."""
        return self.session is not None and permitted(Role(self.session.role), method)

    @property
    def path(self) -> str:
        """The page's address at this console, without its query."""
        return quote(self.request.scope["path"], safe="/~")

    @property
    def is_form(self) -> bool:
        """Whether a form was submitted; the page then shows its input again."""
        return self.request.method == "POST"

    def value(
        self, name: str, otherwise: object = "", words: Mapping[str, str] | None = None
    ) -> str:
        """
        Return a field's value to show: the input, or else the present value.

        If a colleague was faster, only what the person has changed is shown again, and
        if both have changed the field, what it is now. *words*: of each value.
        """
        present = "" if otherwise is None else str(otherwise)
        self._present[name] = present
        if not self.is_form or name not in self.form.values:
            return present
        if self.is_outdated and name in self.form.shown:
            if not self.form.has_changed(name):
                return present
            if present not in (self.form.secret(name), self.form.shown.get(name)):
                said = _(
                    "Another administrator has changed this in the meantime. The value is now: %(value)s",
                    value=_((words or {}).get(present, present) or N_("empty")),
                )
                self.add(Problem(words=said, field=name, status=200))
        return self.form.secret(name)

    def ticked(self, name: str, *, otherwise: bool = False, value: str = "on") -> bool:
        """
        Return whether a checkbox is ticked.

        Browsers do not send an unticked checkbox, so each form names its checkboxes: a
        submission of another form on the page says nothing about this one.
        """
        self._present[name if value == "on" else f"{name} {value}"] = otherwise * "on"
        sent = self.is_form and name in self.form.text("boxes").split()
        if sent and (not self.is_outdated or self.form.has_changed(name, value)):
            return value in self.form.all(name)
        return otherwise

    def carried(self, etag: object) -> dict[str, str]:
        """Return what a form says of its page: the etag, and the values shown so far."""
        present = {"etag": str(etag), "shown": urlencode(self._present)}
        kept = {} if self.is_outdated else self.form.values
        return {name: kept.get(name, value) for name, value in present.items()}

    # --- Answers -------------------------------------------------------------

    def add(self, problem: Problem) -> None:
        """Add a problem, to be shown beside its field."""
        self.problems.setdefault(problem.field, advised(problem, self.may))

    def page(self, template: str, *, status: int = 0, **values: object) -> Response:
        """Return a page with the problems of this visit."""
        worst = max((each.status for each in self.problems.values()), default=200)
        cookie = self.request.cookies.get(NOTICE_COOKIE, "")
        context = {
            "visit": self,
            "notice": Notice.from_cookie(cookie) if cookie else None,
            "site": self.site,
            "session": self.session,
            "may": self.may,
            "problems": self.problems,
            "form_token": form_token(self._secret),
            "path": self.path,
            "request_id": self._request_id or self.new_id(),
            "now_ms": self.site.clock.now_ms(),
            "language": languages.current(),
            "direction": languages.direction(),
            "printed": sheet.printed,
            **values,
        }
        response = HTMLResponse(
            rendering.render(template, context), status_code=status or worst
        )
        if cookie:
            forget_cookie(response, NOTICE_COOKIE)
        return response

    def redirect(self, path: str) -> Response:
        """Redirect the browser to a page, by GET."""
        return RedirectResponse(path, status_code=303)


def local_path(request: Request, path: str) -> str:
    """Return the path if it is the address of a page of this console, else `/`."""
    if not _LOCAL.fullmatch(path) or path.startswith("//"):
        return "/"
    asked = {"type": "http", "method": "GET", "path": unquote(path)}
    pages = (each for each in request.app.routes if each.name == PAGE_ROUTE)
    return path if any(each.matches(asked)[0] is Match.FULL for each in pages) else "/"
