# SPDX-License-Identifier: Apache-2.0
"""Signing in and out."""

import re

from starlette.responses import Response

from sparecode_node.console.security import (
    SESSION_COOKIE,
    VISIT_COOKIE,
    forget_cookie,
    form_token,
    set_cookie,
)
from sparecode_node.console.visits import Visit
from sparecode_node.console.words import EXPLAINED, explain
from sparecode_node.services.fields import UUID

VISIT_BYTES = 18
VISIT = re.compile(r"[0-9a-f]{36}", re.ASCII)


async def enter(visit: Visit) -> Response:
    """Show the form; open a session."""
    if visit.request.method == "POST":
        typed_id = visit.form.text("request_id")
        request_id = typed_id if UUID.fullmatch(typed_id) else visit.new_id()
        try:
            signed_in = await visit.site.services.sessions.login(
                visit.call("SessionService/Login", request_id=request_id),
                administrator=visit.form.text("administrator"),
                password=visit.form.secret("password"),
            )
        except EXPLAINED as error:
            visit.add(explain(error))
        else:
            response = visit.go(visit.local_next())
            # Drawn for this session by the node: what the browser had before, and
            # whoever gave it, is of no use any more.
            set_cookie(response, SESSION_COOKIE, signed_in.bearer)
            forget_cookie(response, VISIT_COOKIE)
            return response
    # Kept while it is there: a second tab must not make the first one's form void.
    secret = visit.request.cookies.get(VISIT_COOKIE, "")
    if not VISIT.fullmatch(secret):
        secret = visit.site.entropy.token_bytes(VISIT_BYTES).hex()
    response = visit.page(
        "sign_in.html",
        administrator=visit.form.text("administrator"),
        next=visit.local_next(),
        request_id=visit.new_id(),
        form_token=form_token(secret),
    )
    set_cookie(response, VISIT_COOKIE, secret)
    return response


async def leave(visit: Visit) -> Response:
    """End this session, on every node."""
    call = visit.call("SessionService/Logout", request_id=visit.new_id())
    await visit.site.services.sessions.logout(call)
    return _left(visit)


async def leave_everywhere(visit: Visit) -> Response:
    """End every session of this administrator."""
    call = visit.call("SessionService/LogoutEverywhere", request_id=visit.new_id())
    await visit.site.services.sessions.logout_everywhere(call)
    return _left(visit)


def _left(visit: Visit) -> Response:
    response = visit.go("/sign-in")
    forget_cookie(response, SESSION_COOKIE)
    return response
