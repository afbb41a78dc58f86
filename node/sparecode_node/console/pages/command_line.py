# SPDX-License-Identifier: Apache-2.0
"""
Sign-in of the command line: type its code, look at its request, approve or refuse (P9).

The code is typed and never part of an address: an attacker cannot send a
link that opens the attacker's request (RFC 8628, 5.4). An approval needs a recent confirmation (P7).
"""

from starlette.responses import Response

from sparecode_node.console.kit.changes import attempt, change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.domain.browser_logins import normalized_code, shown_code
from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.queries.browser_logins import WaitingLogin
from sparecode_node.services.access.authorization import (
    APPROVE_BROWSER_LOGIN,
    REFUSE_BROWSER_LOGIN,
)
from sparecode_node.services.people.browser_logins import PAGE

CODE = "user_code"


async def decide(visit: Visit) -> Response:
    """Ask for the code; show the request with this code; approve or refuse it."""
    if not visit.is_form:
        return visit.page("command_line.html", login=None)
    code = visit.form.text(CODE)
    match visit.form.text("action"):
        case "approve":
            answer = await _approve(visit, code)
        case "refuse":
            answer = await _refuse(visit, code)
        case _:
            return await _show(visit, code)
    return answer or visit.page("command_line.html", login=None)


async def _show(visit: Visit, code: str) -> Response:
    found: WaitingLogin | None = await attempt(
        visit,
        APPROVE_BROWSER_LOGIN,
        lambda call: visit.site.services.browser_logins.find(call, user_code=code),
    )
    client = visit.request.client
    return visit.page(
        "command_line.html",
        login=found,
        code=shown_code(normalized_code(code)),
        is_here=bool(found and client and canonical(client.host) == found.address),
    )


async def _approve(visit: Visit, code: str) -> Response | None:
    return await change(
        visit,
        APPROVE_BROWSER_LOGIN,
        lambda call: visit.site.services.browser_logins.approve(call, user_code=code),
        to=PAGE,
        words=_(
            "Approved. The command line signs in within a few seconds, if you stay "
            "signed in here until then."
        ),
    )


async def _refuse(visit: Visit, code: str) -> Response | None:
    return await change(
        visit,
        REFUSE_BROWSER_LOGIN,
        lambda call: visit.site.services.browser_logins.refuse(call, user_code=code),
        to=PAGE,
        words=_("Refused. The program that asked gets no session."),
    )
