# SPDX-License-Identifier: Apache-2.0
"""
The page of a link in a notice: "this was not me" (N9).

Reading the page changes nothing, as gateways for mail read links. Its button raises the
alarm. Anyone who has the link can do that, and nothing else, so the page needs no session.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sparecode_node.console.kit import languages
from sparecode_node.console.kit.forms import Form, Query
from sparecode_node.console.kit.security import (
    Origin,
    TooLargeError,
    body_of,
    origin_of,
)
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.notices import alarms

PAGE: Final = alarms.PAGE
METHOD = "SecurityConsole/RaiseAlarm"
DONE, NO_REQUEST, CLOSED, NOT_NOW = 200, 400, 410, 503

Endpoint = Callable[[Request], Awaitable[Response]]


def page(site: Site) -> Endpoint:
    """Return the endpoint of the page and of its button."""

    async def endpoint(request: Request) -> Response:
        if request.method != "POST":
            # The token alone shows that the link is ours, and its button does one thing.
            link = Query(request.query_params.multi_items())
            return _shown(site, request, link.word("token"), link.word("language"))
        try:
            form = Form.parse(await body_of(request))
        except (TooLargeError, ClientDisconnect, InvalidFieldError):
            return Response(status_code=NO_REQUEST)
        token, wanted = form.secret("token"), form.text("language")
        origin = origin_of(request, site.others().values())
        if origin not in (Origin.HERE, Origin.UNKNOWN):
            return Response(status_code=NO_REQUEST)
        if site.is_removed():
            return _shown(site, request, token, wanted, say="again", status=NOT_NOW)
        visit = Visit(site, request)
        try:
            is_told = await site.services.alarms.raise_alarm(visit.call(METHOD), token)
        except EXPLAINED:
            return _shown(site, request, token, wanted, say="again", status=NOT_NOW)
        if not is_told:
            return _shown(site, request, token, wanted, say="closed", status=CLOSED)
        return _shown(site, request, token, wanted, say="told", status=DONE)

    return endpoint


def _shown(
    site: Site,
    request: Request,
    token: str,
    wanted: str,
    *,
    say: str = "",
    status: int = DONE,
) -> Response:
    """Return the page, in the language that the link names."""
    visit = Visit(site, request)
    tag = languages.best([wanted]) if wanted else languages.current()
    with languages.using(tag):
        return visit.page(
            "not_me.html",
            status=status,
            page_path=PAGE,
            token=token,
            wanted=tag,
            say=say,
        )
