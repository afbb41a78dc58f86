# SPDX-License-Identifier: Apache-2.0
"""The choice of the console's language, on every page and before sign-in too."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from sparecode_node.console.kit import language_choice
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.security import (
    SESSION_COOKIE,
    VISIT_COOKIE,
    TooLargeError,
    body_of,
    is_ours,
    origin_of,
)
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.visits import SIGN_IN, local_path
from sparecode_node.services.errors import InvalidFieldError

PATH: Final = "/language"


def choose(site: Site) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that keeps the choice in the browser."""

    async def endpoint(request: Request) -> Response:
        try:
            form = Form.parse(await body_of(request))
        except (TooLargeError, InvalidFieldError, ClientDisconnect):
            return RedirectResponse("/", status_code=303)
        here = form.text("next")
        to = SIGN_IN if here == SIGN_IN else local_path(request, here)
        response = RedirectResponse(to, status_code=303)
        cookies = request.cookies
        secret = cookies.get(SESSION_COOKIE) or cookies.get(VISIT_COOKIE, "")
        origin = origin_of(request, site.others().values())
        if is_ours(origin, secret, form.text("form_token")):
            language_choice.keep(response, form.text("language"))
        return response

    return endpoint
