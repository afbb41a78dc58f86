# SPDX-License-Identifier: Apache-2.0
"""Signing in and out."""

import contextlib
import re
from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit import idle
from sparecode_node.console.kit.changes import go_on
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.security import (
    SESSION_COOKIE,
    VISIT_COOKIE,
    Origin,
    forget_cookie,
    form_token,
    set_cookie,
)
from sparecode_node.console.kit.visits import CARRY, SIGN_IN, Visit, local_path
from sparecode_node.console.kit.words import EXPLAINED, UNAVAILABLE, Problem, explain
from sparecode_node.replication.errors import OutcomeUnknownError, OverloadedError

VISIT_BYTES = 18
NOT_KEPT = frozenset(
    {
        "enrolled_draft",
        "enrolled_secret",
        "form_token",
        "new_password",
        "new_password_again",
        "old_password",
        "password",
        "password_again",
        "pin",
        "pin_again",
        "second_factor",
    }
)
"""Secrets are typed again after signing in."""
UNDECIDED = (*UNAVAILABLE, OutcomeUnknownError, OverloadedError)
FORGOTTEN = (
    "You are signed out in this browser. The cluster could not be told to end the session "
    "itself; it ends by its time, and nobody else has it."
)
VISIT = re.compile(r"[0-9a-f]{36}", re.ASCII)


def begin(visit: Visit) -> Response:
    """
    Ask to sign in, and go on afterwards where one was.

    What was typed into a form is kept in the browser meanwhile, if it was typed
    here or at another console: nobody else has a form sent after signing in.
    """
    path = local_path(visit.path)
    if not visit.is_form and visit.request.headers.get("hx-request"):
        # Not a piece of a page, but the whole of another one.
        there = {"hx-redirect": f"{SIGN_IN}?next={quote(path, safe='/%')}"}
        response = Response(status_code=204, headers=there)
        forget_cookie(response, SESSION_COOKIE)
        return response
    if kept := _kept(visit):
        visit.add(
            Problem(words="Your session has ended. Sign in, and go on.", status=401)
        )
        response = _door(visit, next_path=path, kept=kept)
    else:
        response = visit.go(f"{SIGN_IN}?next={quote(path, safe='/')}")
    forget_cookie(response, SESSION_COOKIE)
    return response


def cannot_tell(visit: Visit) -> Response:
    """
    Say that nobody can be asked now whose session this is; it may well be one.

    So it is not forgotten, and what was typed is kept, as when it has ended.
    """
    words = (
        "Too few nodes are in contact, and this one does not know your session yet. You "
        "are still signed in: try again in a moment, or at another node’s console."
    )
    if visit.request.headers.get("hx-request") and not visit.is_form:
        return Response(status_code=204, headers={"hx-refresh": "true"})
    if kept := _kept(visit):
        visit.add(Problem(words=words, status=503))
        return _door(visit, next_path=local_path(visit.path), kept=kept)
    return visit.page("problem.html", status=503, title="Not possible now", words=words)


def _kept(visit: Visit) -> str:
    """Return what was typed into a form of ours; of nobody else's."""
    if visit.request.method == "POST" and (
        visit.origin is Origin.HERE
        or (visit.origin is Origin.CONSOLE and visit.form.text("action") == CARRY)
    ):
        return visit.form.kept(without=NOT_KEPT)
    return ""


async def enter(visit: Visit) -> Response:
    """Show the form; open a session."""
    if visit.request.method == "POST":
        try:
            signed_in = await visit.site.services.sessions.login(
                visit.call("SessionService/Login", request_id=visit.typed_request_id()),
                administrator=visit.form.text("administrator"),
                password=visit.form.secret("password"),
                second_factor=visit.form.text("second_factor").strip(),
            )
        except OutcomeUnknownError as error:
            visit.keep_request_id()
            visit.add(explain(error))
        except EXPLAINED as error:
            visit.add(explain(error))
        else:
            response = _inside(visit, signed_in.bearer)
            # Drawn for this session by the node: what the browser had before, and
            # whoever gave it, is of no use any more.
            set_cookie(response, SESSION_COOKIE, signed_in.bearer)
            idle.saw(response, signed_in.bearer, visit.site.clock.now_ms())
            forget_cookie(response, VISIT_COOKIE)
            return response
    return _door(visit, next_path=visit.local_next(), kept=visit.form.secret("kept"))


def _door(visit: Visit, *, next_path: str, kept: str) -> Response:
    # Kept while it is there: a second tab must not make the first one's form void.
    secret = visit.request.cookies.get(VISIT_COOKIE, "")
    if not VISIT.fullmatch(secret):
        secret = visit.site.entropy.token_bytes(VISIT_BYTES).hex()
    response = visit.page(
        "sign_in.html",
        administrator=visit.form.text("administrator"),
        next=next_path,
        kept=kept,
        form_token=form_token(secret),
    )
    set_cookie(response, VISIT_COOKIE, secret)
    return response


def _inside(visit: Visit, bearer: str) -> Response:
    kept = visit.form.secret("kept")
    if not kept:
        return visit.go(visit.local_next())
    return visit.page(
        "go_on.html",
        next=visit.local_next(),
        fields=Form.parse(kept.encode()).pairs,
        form_token=form_token(bearer),
    )


async def end_idle(visit: Visit) -> Response:
    """End the session of a browser that was left alone, and ask to sign in again."""
    with contextlib.suppress(*EXPLAINED):
        # If it cannot be ended now, it ends by itself; this browser forgets it.
        await visit.site.services.sessions.logout(
            visit.call("SessionService/Logout", request_id=visit.new_id())
        )
    return begin(visit)


async def leave(visit: Visit) -> Response:
    """
    End this session, on every node; the browser forgets it in any case.

    Nobody has to stay signed in at a desk because the cluster cannot decide.
    """
    call = visit.call("SessionService/Logout", request_id=visit.new_id())
    try:
        await visit.site.services.sessions.logout(call)
    except UNDECIDED:
        return _left(visit, Notice(words=FORGOTTEN, waiting=True))
    return _left(visit)


async def leave_everywhere(visit: Visit) -> Response:
    """End every session of this administrator."""
    call = visit.call("SessionService/LogoutEverywhere", request_id=visit.new_id())
    await visit.site.services.sessions.logout_everywhere(call)
    return _left(visit)


def _left(visit: Visit, notice: Notice | None = None) -> Response:
    response = go_on(visit, SIGN_IN, notice) if notice else visit.go(SIGN_IN)
    forget_cookie(response, SESSION_COOKIE)
    return response
