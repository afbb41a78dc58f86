# SPDX-License-Identifier: Apache-2.0
"""
The page of a link to sealed codes (I13).

Its address is the same for everyone: the secret is after the `#`, which browsers send to
no server. So reading the page, as gateways for mail do with links, changes and shows
nothing. Its button sends what opens the codes, and the script decrypts the answer.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sparecode_node.console.kit import languages
from sparecode_node.console.kit.rendering import plain_time
from sparecode_node.console.kit.security import (
    Origin,
    TooLargeError,
    body_of,
    origin_of,
)
from sparecode_node.console.kit.sheet import Issue, sheet_of
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED
from sparecode_node.services.emergency import sealed_messages
from sparecode_node.services.emergency.sealed_messages import (
    MANAGER,
    READER,
    OpenedCodes,
)

PAGE: Final = sealed_messages.PAGE
OPEN: Final = f"{PAGE}/open"
METHOD = "SecurityConsole/OpenSealedCodes"
NOT_NOW, CLOSED, NO_REQUEST = 503, 410, 400
_SENT = re.compile(r"[A-Za-z0-9_-]{22,64}", re.ASCII)

MALFORMED: Final = (ValueError, TypeError, KeyError, RecursionError)

Endpoint = Callable[[Request], Awaitable[Response]]


def show(site: Site) -> Endpoint:
    """Return the endpoint of the page, in the language that the link names."""

    async def endpoint(request: Request) -> Response:
        visit = Visit(site, request)
        wanted = request.query_params.get("language", "")
        tag = languages.best([wanted]) if wanted else languages.current()
        with languages.using(tag):
            return visit.page(
                "sealed_codes.html",
                open_path=OPEN,
                # Only words depend on it: the page is the same for everyone.
                for_manager=request.query_params.get(READER) == MANAGER,
            )

    return endpoint


def open_codes(site: Site) -> Endpoint:
    """Return the endpoint that hands the encrypted codes out, once."""

    async def endpoint(request: Request) -> Response:
        visit = Visit(site, request)
        try:
            sent = json.loads(await body_of(request))
            opener, page = sent["opener"], sent["page"]
            is_formed = bool(_SENT.fullmatch(opener) and _SENT.fullmatch(page))
        except (TooLargeError, ClientDisconnect, *MALFORMED):
            return _malformed(visit)
        origin = origin_of(request, site.others().values())
        if not is_formed or origin not in (Origin.HERE, Origin.UNKNOWN):
            return _malformed(visit)
        if site.is_removed():
            return Response(status_code=NOT_NOW)
        try:
            opened = await site.services.sealed_messages.open(
                visit.call(METHOD), opener=opener, page=page
            )
        except EXPLAINED:
            # For a minute the same page gets them, should they have been opened.
            return Response(status_code=NOT_NOW)
        if opened is None:
            return Response(status_code=CLOSED)
        return JSONResponse(_content(opened))

    return endpoint


def _malformed(visit: Visit) -> Response:
    """Refuse a call that is none of the page's; the rate of its address counts it."""
    try:
        visit.site.services.sealed_messages.count(visit.call(METHOD))
    except EXPLAINED:
        return Response(status_code=NOT_NOW)
    return Response(status_code=NO_REQUEST)


def _content(opened: OpenedCodes) -> dict[str, object]:
    """Return what the script shows: the codes encrypted, all else in words."""
    sheet = sheet_of(
        opened.token,
        (),
        Issue(
            ends_at_ms=opened.ends_at_ms,
            issued_at_ms=opened.issued_at_ms,
            issuer=opened.issuer,
            is_fixed=False,
        ),
        plain_time,
    )
    return {
        "ciphertext": base64.b64encode(opened.ciphertext).decode(),
        "associated": opened.associated.decode(),
        "language": sheet.language,
        "direction": sheet.direction,
        "title": sheet.title,
        "facts": sheet.facts,
        "rules": sheet.rules,
        "keeping": sheet.keeping,
        "issued": sheet.issued,
    }
