# SPDX-License-Identifier: Apache-2.0
"""Sign-in and sign-out."""

import contextlib
import re
from dataclasses import replace
from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit import idle
from sparecode_node.console.kit.changes import redirect_with_notice
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.rendering import span, within
from sparecode_node.console.kit.security import (
    NOTICE_COOKIE,
    SESSION_COOKIE,
    VISIT_COOKIE,
    Origin,
    device_cookie_name,
    forget_cookie,
    form_token,
    set_cookie,
    set_device_cookie,
)
from sparecode_node.console.kit.visits import SIGN_IN, Visit, local_path
from sparecode_node.console.kit.words import EXPLAINED, UNAVAILABLE, Problem, explain
from sparecode_node.console.pages import kept_forms
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import OutcomeUnknownError, OverloadedError
from sparecode_node.services.context import Anonymous, SessionCaller
from sparecode_node.services.errors import Refused
from sparecode_node.services.people.sessions import SignedIn

VISIT_BYTES = 18
UNCERTAIN = (*UNAVAILABLE, OutcomeUnknownError, OverloadedError)
SIGNED_OUT_LOCALLY = N_(
    "You are signed out in this browser. The cluster could not be reached to end the session "
    "itself. No one else holds it, and it ends with its lifetime."
)
VISIT_SECRET = re.compile(r"[0-9a-f]{36}", re.ASCII)


ENDED = N_(
    "A session ends after a while without use, after some hours in any case, and when the "
    "password changes or an administrator ends it."
)


NOT_KEPT = N_("The form was not sent: fill it in again after you have signed in.")
NOT_OURS = N_(
    "The form was not sent: it was not filled in in this browser within the last ten "
    "minutes. Start again from here."
)


def ended_words(used_ms: int | None, now_ms: int) -> str:
    """Return why a session has ended, and when this browser last used it."""
    if used_ms:
        words = _(
            "Your session has ended, and was last used %(distance)s.",
            distance=within(used_ms, now_ms),
        )
    else:
        words = _("Your session has ended.")
    return f"{words} {_(ENDED)}"


async def ask_to_sign_in(visit: Visit, ended: str = "") -> Response:
    """
    Ask the administrator to sign in, then return to the same page.

    *ended*: why the browser's session has ended; empty: it had none.

    A form that `kept_forms` names is kept in the browser until then. No other site can
    have a form sent after the sign-in.
    """
    path = local_path(visit.request, visit.path)
    if not visit.is_form and visit.request.headers.get("hx-request"):
        # The script wants part of a page: load the whole sign-in page instead.
        there = {"hx-redirect": f"{SIGN_IN}?next={quote(path, safe='/%')}"}
        response = Response(status_code=204, headers=there)
        _say(response, ended)
        forget_cookie(response, SESSION_COOKIE)
        return response
    if kept := kept_forms.seal(visit):
        why = ended or _unknown_here(visit)
        words = f"{why} {_('Your input is kept.')} {_('Sign in to continue.')}"
        visit.add(Problem(words=words, status=401))
        response = await _sign_in_page(visit, next_path=path, kept=kept)
    else:
        lost = _(NOT_KEPT) if visit.is_form and visit.origin is Origin.HERE else ""
        response = visit.redirect(f"{SIGN_IN}?next={quote(path, safe='/')}")
        _say(response, f"{ended} {lost}".strip())
    if SESSION_COOKIE in visit.request.cookies:
        # A link on another site comes without the cookie, and must not sign out.
        forget_cookie(response, SESSION_COOKIE)
    return response


def _unknown_here(visit: Visit) -> str:
    """Return why a browser without a session must sign in; its session may be elsewhere."""
    return _(
        "This browser is not signed in at the console of %(node_id)s.",
        node_id=visit.site.node_id,
    )


def _say(response: Response, ended: str) -> None:
    """Show once, on the sign-in page, why the session has ended."""
    if ended:
        notice = Notice(words=f"{ended} {_('Sign in to continue.')}", waiting=True)
        set_cookie(response, NOTICE_COOKIE, notice.to_cookie())


async def explain_unknown_session(visit: Visit) -> Response:
    """
    Explain that this node cannot check the session now, because there is no quorum.

    The session may be valid: keep its cookie, and keep the input as after its end.
    """
    words = _(
        "Too few nodes are in contact, and this one does not know your session yet. You "
        "are still signed in: try again in a moment, or on another node’s console."
    )
    if visit.request.headers.get("hx-request") and not visit.is_form:
        return Response(status_code=204, headers={"hx-refresh": "true"})
    if kept := kept_forms.seal(visit):
        visit.add(Problem(words=words, status=503))
        path = local_path(visit.request, visit.path)
        return await _sign_in_page(visit, next_path=path, kept=kept)
    return visit.page(
        "problem.html", status=503, title=_("Not possible now"), words=words
    )


async def open_session(visit: Visit) -> Response:
    """Show the sign-in form; open a session."""
    if visit.request.method == "POST":
        try:
            signed_in = await _signed_in(visit)
        except OutcomeUnknownError as error:
            visit.keep_request_id()
            visit.add(explain(error))
        except EXPLAINED as error:
            visit.add(explain(error))
        else:
            # The session that this browser had before ends. The node drew a new bearer,
            # so a cookie that an attacker may have planted is worth nothing now.
            await _end_session(visit)
            response = _after_sign_in(visit, signed_in.bearer)
            keep_session(visit, response, signed_in)
            forget_cookie(response, VISIT_COOKIE)
            return response
        return await _sign_in_page(
            visit,
            next_path=local_path(visit.request, visit.form.text("next")),
            kept=visit.form.secret("kept"),
        )
    asked = visit.query.word("next")
    return await _sign_in_page(visit, next_path=local_path(visit.request, asked))


def keep_session(visit: Visit, response: Response, signed_in: SignedIn) -> None:
    """Give the browser the cookies of a new session."""
    set_cookie(response, SESSION_COOKIE, signed_in.bearer)
    set_device_cookie(response, signed_in.opened.administrator, signed_in.device_cookie)
    idle.record_use(response, signed_in.bearer, visit.site.clock.now_ms())
    visit.is_renewed = True


async def sign_in_again(
    visit: Visit, administrator: str, password: str, device_cookie: str
) -> SignedIn | None:
    """Open a session after a change of the password; None if that needs a form."""
    call = visit.call("SessionService/Login", request_id=visit.new_id())
    try:
        return await visit.site.services.sessions.login(
            replace(call, caller=Anonymous(), device_cookie=device_cookie),
            administrator=administrator,
            password=password,
        )
    except EXPLAINED:
        return None


async def _signed_in(visit: Visit) -> SignedIn:
    """Open the session of a submitted form. Raises as `Sessions.login`."""
    administrator = visit.form.text("administrator")
    code = visit.form.text("second_factor").strip()
    passkey = visit.form.secret("passkey")
    cookie = visit.request.cookies.get(device_cookie_name(administrator), "")

    async def with_id(request_id: str) -> SignedIn:
        call = visit.call("SessionService/Login", request_id=request_id)
        return await visit.site.services.sessions.login(
            replace(call, device_cookie=cookie),
            administrator=administrator,
            password=visit.form.secret("password"),
            second_factor=code,
            passkey=passkey,
        )

    try:
        return await with_id(visit.submitted_request_id())
    except Refused as error:
        if code or passkey or error.rejected.reason is not Reason.REQUEST_ID_REUSED:
            raise
        # The form was sent twice, and a repeated sign-in gets no session.
        return await with_id(visit.new_id())


async def _sign_in_page(
    visit: Visit, *, next_path: str, kept: kept_forms.Seal | str = ""
) -> Response:
    """Return the page. *kept*: a form that is kept now, or was in this page before."""
    # Keep an existing cookie: a second tab must not invalidate the first tab's form.
    secret = visit.request.cookies.get(VISIT_COOKIE, "")
    if not VISIT_SECRET.fullmatch(secret):
        secret = visit.site.entropy.token_bytes(VISIT_BYTES).hex()
    response = visit.page(
        "sign_in.html",
        administrator=visit.form.text("administrator"),
        next=next_path,
        kept=kept.text if isinstance(kept, kept_forms.Seal) else kept,
        form_token=form_token(secret),
        passkeys=await visit.site.services.passkeys.available(),
    )
    set_cookie(response, VISIT_COOKIE, secret)
    if isinstance(kept, kept_forms.Seal):
        kept.remember(response)
    return response


def _after_sign_in(visit: Visit, bearer: str) -> Response:
    kept = visit.form.secret("kept")
    if not kept:
        return visit.redirect(local_path(visit.request, visit.form.text("next")))
    if page := kept_forms.continue_page(visit, kept, bearer):
        return page
    return redirect_with_notice(visit, "/", Notice(words=_(NOT_OURS), waiting=True))


async def end_idle_session(visit: Visit, idle_ms: int) -> Response:
    """End the session of an idle browser, and ask to sign in again."""
    await _end_session(visit)
    words = _(
        "You were signed out: this browser was not used for %(span)s.",
        span=span(idle_ms),
    )
    return await ask_to_sign_in(visit, words)


async def _end_session(visit: Visit) -> None:
    """
    End the session of this browser's cookie, if there is one.

    If it cannot be ended now, it ends by itself; the browser forgets the cookie.
    """
    bearer = visit.request.cookies.get(SESSION_COOKIE, "")
    if not bearer:
        return
    call = visit.call("SessionService/Logout", request_id=visit.new_id())
    with contextlib.suppress(*EXPLAINED):
        await visit.site.services.sessions.logout(
            replace(call, caller=SessionCaller(bearer=bearer))
        )


async def sign_out(visit: Visit) -> Response:
    """
    End this session on every node; the browser deletes its cookie in any case.

    Signing out of a shared computer must work even if the cluster has no quorum.
    """
    call = visit.call("SessionService/Logout", request_id=visit.new_id())
    try:
        await visit.site.services.sessions.logout(call)
    except UNCERTAIN:
        return _after_sign_out(visit, Notice(words=_(SIGNED_OUT_LOCALLY), waiting=True))
    return _after_sign_out(visit)


async def sign_out_everywhere(visit: Visit) -> Response:
    """End every session of this administrator."""
    call = visit.call("SessionService/LogoutEverywhere", request_id=visit.new_id())
    await visit.site.services.sessions.logout_everywhere(call)
    return _after_sign_out(visit)


def _after_sign_out(visit: Visit, notice: Notice | None = None) -> Response:
    response = (
        redirect_with_notice(visit, SIGN_IN, notice)
        if notice
        else visit.redirect(SIGN_IN)
    )
    forget_cookie(response, SESSION_COOKIE)
    return response
