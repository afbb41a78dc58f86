# SPDX-License-Identifier: Apache-2.0
"""Open sessions: one's own, and for those who may read administrators, all of them."""

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.domain.administrators import Permission, Role, may
from sparecode_node.queries.sessions import SessionListing
from sparecode_node.queries.views import Page
from sparecode_node.services.fields import PAGE_SIZE_MAX

END = "SessionService/EndSession"
LIST = "SessionService/ListSessions"


async def manage(visit: Visit) -> Response:
    """List open sessions; end one."""
    if visit.is_form:
        answer = await change(
            visit,
            END,
            lambda call: visit.site.services.open_sessions.end(
                call, session_id=visit.form.text("session_id")
            ),
            to="/sessions",
            words=_("The session has ended, on every node."),
            fields={"session_id": ""},
        )
        if answer is not None:
            return answer
    session = visit.session
    role = Role(session.role) if session else Role.HELP_DESK
    return visit.page(
        "sessions.html",
        results=await _page(visit, every=may(role, Permission.READ_ADMINISTRATORS)),
        every=may(role, Permission.READ_ADMINISTRATORS),
        ends_others=may(role, Permission.CHANGE_ADMINISTRATORS),
    )


async def _page(visit: Visit, *, every: bool) -> Page[SessionListing]:
    page_token = visit.query.word("page")
    return await visit.read(
        LIST,
        lambda call, stale_ok: visit.site.services.open_sessions.list(
            call,
            all_administrators=every,
            page_size=PAGE_SIZE_MAX,
            page_token=page_token,
            stale_ok=stale_ok,
        ),
    )
