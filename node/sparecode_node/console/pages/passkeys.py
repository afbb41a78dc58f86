# SPDX-License-Identifier: Apache-2.0
"""
The own passkeys, and what the script needs to use one (P8).

Passkeys need a script: `static/passkeys.js` asks the browser and fills in the form's
field. Every other page works without it.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.security import VISIT_COOKIE
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.visits import Visit
from sparecode_node.services.access.authorization import (
    REGISTER_PASSKEY,
    REMOVE_PASSKEY,
)
from sparecode_node.services.errors import InvalidFieldError

PAGE = "/account/passkeys"
OPTIONS = "/sign-in/passkey"
"""Where the script gets a challenge before the sign-in."""
JSON = "application/json"
NOT_MADE = N_("The browser made no passkey. Try again with a script-enabled browser.")


async def manage(visit: Visit) -> Response:
    """Show the own passkeys; register and remove one."""
    if visit.is_form:
        answer = await (
            _remove(visit)
            if visit.form.text("action") == "remove"
            else _register(visit)
        )
        if answer is not None:
            return answer
    own = await visit.read(
        REGISTER_PASSKEY,
        lambda call, stale_ok: visit.site.services.passkeys.own(
            call, stale_ok=stale_ok
        ),
    )
    return visit.page("passkeys.html", own=own)


async def registration_options(visit: Visit) -> Response:
    """Return what the browser needs to make a passkey."""
    options = await visit.site.services.passkeys.registration_options(
        visit.call(REGISTER_PASSKEY)
    )
    return Response(options, media_type=JSON)


async def confirmation_options(visit: Visit) -> Response:
    """Return what the browser needs to confirm a change with a passkey."""
    options = await visit.site.services.passkeys.confirmation_options(
        visit.call("SessionService/Reauthenticate")
    )
    return Response(options or "{}", media_type=JSON)


def sign_in_options(site: Site) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that gives a browser a challenge before the sign-in."""

    async def endpoint(request: Request) -> Response:
        options = await site.services.passkeys.sign_in_options(
            request.cookies.get(VISIT_COOKIE, "")
        )
        return Response(options or "{}", media_type=JSON)

    return endpoint


async def _register(visit: Visit) -> Response | None:
    answer = visit.form.secret("passkey")
    if not answer:
        raise InvalidFieldError("", _(NOT_MADE))
    return await change(
        visit,
        REGISTER_PASSKEY,
        lambda call: visit.site.services.passkeys.register(
            call, label=visit.form.text("label"), answer=answer
        ),
        to=PAGE,
        words=_(
            "The passkey is registered: sign-in now also asks for it. All your other "
            "sessions have ended."
        ),
    )


async def _remove(visit: Visit) -> Response | None:
    try:
        credential_id = base64.urlsafe_b64decode(visit.form.text("credential_id"))
    except (binascii.Error, ValueError):
        credential_id = b""
    return await change(
        visit,
        REMOVE_PASSKEY,
        lambda call: visit.site.services.passkeys.remove(
            call, credential_id=credential_id
        ),
        to=PAGE,
        words=_("The passkey is removed. All your other sessions have ended."),
        fields={"credential_id": ""},
    )
