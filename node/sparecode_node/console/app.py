# SPDX-License-Identifier: Apache-2.0
"""The console as an ASGI application: routes, session, forms and errors."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from sparecode_node.console.kit import idle
from sparecode_node.console.kit.changes import redirect_with_notice
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.language_choice import Languages
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.navigation import role_in_sentence
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.security import (
    SESSION_COOKIE,
    VISIT_COOKIE,
    Origin,
    SecurityHeaders,
    TooLargeError,
    body_of,
    is_ours,
    origin_of,
)
from sparecode_node.console.kit.site import Site
from sparecode_node.console.kit.visits import (
    CARRY,
    PAGE_ROUTE,
    SIGN_IN,
    WATCHING,
    UnknownHereError,
    Visit,
)
from sparecode_node.console.kit.words import EXPLAINED, Problem, advised, explain
from sparecode_node.console.pages import (
    account,
    administrators,
    agent_keys,
    agents,
    approvals,
    audit,
    backups,
    bulk_issue,
    channel_settings,
    channels,
    cluster,
    command_line,
    dashboard,
    emergency_access,
    emergency_form,
    find,
    imports,
    keys,
    language,
    membership,
    passkeys,
    policy,
    previews,
    radius_clients,
    reauthentication,
    review,
    second_factors,
    selection,
    sessions,
    sheet_files,
    sign_in,
    token_actions,
    tokens,
    users,
)
from sparecode_node.console.public import not_me, sealed_codes
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import RemovedError
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"

View = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

VIEWS: dict[str, View] = {
    "/": dashboard.show,
    "/account": account.show,
    "/account/command-line": command_line.decide,
    "/account/passkeys": passkeys.manage,
    "/account/passkeys/confirmation": passkeys.confirmation_options,
    "/account/passkeys/options": passkeys.registration_options,
    account.PASSWORD: account.password,
    "/account/second-factor": second_factors.manage,
    "/account/sign-out": sign_in.sign_out,
    "/account/sign-out-everywhere": sign_in.sign_out_everywhere,
    "/administrators": administrators.list_all,
    "/administrators/{name:path}": administrators.view,
    "/agents": agents.list_all,
    "/agent-keys/{name:path}": agent_keys.create,
    "/agents/{name:path}": agents.view,
    "/approvals": approvals.decide,
    "/audit": audit.browse,
    "/audit/export": audit.export,
    "/audit/verify": audit.verify,
    "/backups": backups.take,
    "/channels": channels.show,
    "/channels/{name:path}": channel_settings.edit,
    "/cluster": cluster.show,
    "/cluster/add": membership.add,
    "/cluster/authorities/{node_id}/keep": membership.keep_authorities,
    "/cluster/authorities/{node_id}/replace": membership.replace_authorities,
    "/cluster/members/{node_id}/lead": membership.transfer_primary,
    "/cluster/members/{node_id}/remove": membership.remove,
    "/cluster/primary": membership.transfer_primary,
    "/cluster/review": review.open_cluster,
    "/cluster/ticket": membership.create_ticket,
    "/denied-certificates": agents.certificates,
    "/find": find.find,
    "/import/tokens": imports.tokens,
    "/import/users": imports.users,
    "/issue-codes": bulk_issue.issue,
    "/keys": keys.rotate,
    "/new/administrator": administrators.add,
    "/new/agent": agents.add,
    "/new/channel": channel_settings.add,
    "/new/radius-client": radius_clients.add,
    "/new/user": users.add,
    "/notices": previews.show,
    previews.LETTER: previews.letter,
    "/policy": policy.edit,
    "/radius-clients/{name:path}": radius_clients.edit,
    "/radius-secrets/{name:path}": radius_clients.rotate,
    "/selection": selection.act,
    "/sessions": sessions.manage,
    "/tokens": tokens.manage_existing,
    "/tokens/{serial}": tokens.view,
    emergency_form.ROUTE: emergency_access.manage,
    "/tokens/{serial}/emergency-access/sheet.pdf": sheet_files.download_pdf,
    "/tokens/{serial}/emergency-access/sheet.txt": sheet_files.download,
    "/tokens/{serial}/{action}": token_actions.act,
    "/users": users.search,
    "/users/{username:path}": users.view,
}
"""Pages for signed-in administrators. A name may contain a slash; a serial may not."""

WITH_TEMPORARY_PASSWORD = frozenset(
    {account.PASSWORD, "/account/sign-out", "/account/sign-out-everywhere"}
)
"""The pages of an administrator who has to choose a password first."""

POST_ONLY = frozenset(
    {
        "/account/sign-out",
        "/account/sign-out-everywhere",
        "/audit/verify",
        "/issue-codes",
        "/selection",
        "/tokens/{serial}/emergency-access/sheet.pdf",
        "/tokens/{serial}/emergency-access/sheet.txt",
    }
)
GET_ONLY = frozenset(
    {
        "/",
        "/account",
        "/account/passkeys/confirmation",
        "/account/passkeys/options",
        "/administrators",
        "/agents",
        "/audit",
        "/audit/export",
        "/cluster",
        "/cluster/members/{node_id}/lead",
        "/find",
        "/notices",
        previews.LETTER,
        "/tokens",
        "/tokens/{serial}",
        "/users",
    }
)


def build_app(site: Site) -> ASGIApp:
    """Return the application of one node's console."""

    def methods(path: str) -> list[str]:
        if path in POST_ONLY:
            return ["POST"]
        return ["GET"] if path in GET_ONLY else ["GET", "POST"]

    pages = Starlette(
        routes=[
            Route(SIGN_IN, _sign_in_endpoint(site), methods=["GET", "POST"]),
            Route(language.PATH, language.choose(site), methods=["POST"]),
            Route(not_me.PAGE, not_me.page(site), methods=["GET", "POST"]),
            Route(sealed_codes.PAGE, sealed_codes.show(site), methods=["GET"]),
            Route(sealed_codes.OPEN, sealed_codes.open_codes(site), methods=["POST"]),
            Route(passkeys.OPTIONS, passkeys.sign_in_options(site), methods=["GET"]),
            *(
                Route(
                    path,
                    _page_endpoint(site, path, view),
                    methods=methods(path),
                    name=PAGE_ROUTE,
                )
                for path, view in VIEWS.items()
            ),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    # Not as Starlette's middleware: the answer to a bug would have no headers.
    return SecurityHeaders(Languages(pages), consoles=site.others().values())


def _page_endpoint(site: Site, route: str, view: View) -> Endpoint:
    """Wrap a page that needs a session."""

    async def endpoint(request: Request) -> Response:
        bearer = request.cookies.get(SESSION_COOKIE, "")
        visit = await _visit(site, request, route=route, secret=bearer, bearer=bearer)
        if isinstance(visit, Response):
            return visit
        now_ms, used_ms = site.clock.now_ms(), idle.last_use_ms(request, bearer)
        try:
            session = await visit.find_session()
            if idle.is_idle(used_ms, now_ms, session.idle_ms):
                return await sign_in.end_idle_session(visit, session.idle_ms)
            # Before the page calls anything: its refused calls would be audited.
            if session.temporary and visit.path not in WITH_TEMPORARY_PASSWORD:
                return _first(visit, account.PASSWORD)
            if session.lacks_factor and not visit.path.startswith("/account"):
                return _first(visit, passkeys.PAGE)
            response = await _shown(visit, view)
        except UnknownHereError:
            return await sign_in.explain_unknown_session(visit)
        except NotSignedInError:
            ended = sign_in.ended_words(used_ms, now_ms) if bearer else ""
            return await sign_in.ask_to_sign_in(visit, ended)
        except EXPLAINED as error:
            response = _error_page(visit, error)
        # A page that refreshes itself does not count as use.
        counts = not visit.query.has(WATCHING) and not visit.is_renewed
        if counts and idle.needs_update(used_ms, now_ms):
            idle.record_use(response, bearer, now_ms)
        return response

    return endpoint


def _first(visit: Visit, path: str) -> Response:
    """Redirect to what the administrator has to do first; a form is not kept."""
    if not visit.is_form:
        return visit.redirect(path)
    words = _("The form was not sent. Do this first, then fill the form in again.")
    return redirect_with_notice(visit, path, Notice(words=words, waiting=True))


async def _shown(visit: Visit, view: View) -> Response:
    """Return the page, after a confirmation of the administrator if one was sent (P7)."""
    if reauthentication.is_needed_first(visit):
        return reauthentication.ask(visit)
    if reauthentication.is_confirmation(visit):
        answer = await reauthentication.confirm(visit)
        if answer is not None:
            return answer
    return await view(visit)


def _sign_in_endpoint(site: Site) -> Endpoint:
    """Wrap the sign-in page, the only one without a session."""

    async def endpoint(request: Request) -> Response:
        secret = request.cookies.get(VISIT_COOKIE, "")
        visit = await _visit(site, request, route="", secret=secret, bearer="")
        return (
            visit if isinstance(visit, Response) else await sign_in.open_session(visit)
        )

    return endpoint


async def _visit(
    site: Site, request: Request, *, route: str, secret: str, bearer: str
) -> Visit | Response:
    """
    Read the form; refuse a form that this console did not serve.

    *route*: of the page; empty: of the sign-in page.
    """
    if site.is_removed():
        bare = Visit(site, request, secret=secret)
        problem = explain(RemovedError(site.node_id))
        return bare.page(
            "problem.html",
            status=problem.status,
            title=_("This node was removed"),
            words=problem.words,
        )
    if request.method != "POST":
        return Visit(site, request, secret=secret, bearer=bearer, route=route)
    try:
        form = Form.parse(await body_of(request))
    except TooLargeError:
        return _too_large(Visit(site, request, secret=secret))
    except InvalidFieldError:
        return PlainTextResponse(_("This is not a form of the console."), 400)
    except ClientDisconnect:
        return PlainTextResponse("", 400)
    visit = Visit(site, request, form=form, secret=secret, bearer=bearer, route=route)
    visit.origin = origin_of(request, site.others().values())
    if is_ours(visit.origin, secret, form.text("form_token")):
        return visit
    if (
        visit.origin is Origin.CONSOLE
        and form.text("action") == CARRY
        and route == emergency_form.ROUTE
    ):
        # This page alone shows such a form again, and does nothing until it is sent here.
        return visit
    if not bearer and route:
        return await sign_in.ask_to_sign_in(visit)
    log.warning("form refused", extra={"path": request.url.path})
    return visit.page(
        "problem.html",
        status=403,
        title=_("Form refused"),
        words=_(
            "This form does not belong to your present session at this console. "
            "Nothing was changed. Go back, reload the page, and send the form again."
        ),
    )


def _too_large(visit: Visit) -> Response:
    """Refuse a form that is longer than any page: of the pages, only imports can be."""
    if visit.path not in imports.PAGES:
        return PlainTextResponse(_("This is not a form of the console."), 400)
    return visit.page(
        "problem.html",
        status=413,
        title=_("File too long"),
        words=imports.too_long(imports.PAGES[visit.path]),
    )


def _error_page(visit: Visit, error: Exception) -> Response:
    """Return a page that explains an error."""
    if isinstance(error, Refused) and (
        error.rejected.reason is Reason.PASSWORD_CHANGE_NEEDED
    ):
        return _first(visit, account.PASSWORD)
    if isinstance(error, Refused) and (
        error.rejected.reason is Reason.REAUTHENTICATION_NEEDED
    ):
        return reauthentication.ask(visit)
    if isinstance(error, Refused) and (
        error.rejected.reason is Reason.SECOND_FACTOR_REQUIRED
    ):
        return _first(visit, passkeys.PAGE)
    problem = advised(explain(error), visit.may)
    title = {404: _("Not found"), 503: _("Not possible now")}.get(
        problem.status, _("Refused")
    )
    if isinstance(error, NotPermittedError):
        role = role_in_sentence(visit.session.role) if visit.session else ""
        title = _("Not permitted")
        problem = Problem(
            words=_(
                "The role %(role)s cannot do this. Ask an administrator whose role can.",
                role=role,
            ),
            status=403,
        )
    return visit.page(
        "problem.html", status=problem.status, title=title, words=problem.words
    )


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {
        404: _("There is no such page."),
        405: _("This page does not accept this method."),
    }
    return PlainTextResponse(words.get(status, "Refused."), status)


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("page failed by a bug", extra={"path": request.url.path}, exc_info=error)
    return PlainTextResponse(_("Internal error. The node's log has the details."), 500)
