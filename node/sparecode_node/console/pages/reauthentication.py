# SPDX-License-Identifier: Apache-2.0
"""
The page that asks an administrator to confirm with password and second factor (P7).

It holds the submitted form and sends it to the same address, with the password beside
it. So the change goes on in one step, also without a script.
"""

from dataclasses import replace

from starlette.responses import Response

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.security import SECRET_FIELDS, Origin
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.errors import Refused
from sparecode_node.services.fields import UUID

PASSWORD = "confirm_password"
CODE = "confirm_code"
PASSKEY = "passkey"
"""The answer of a passkey, which the page's script fills in."""
REQUEST_ID = "confirm_id"
CARRIED = "confirm_carried"
"""Set if the page holds a submitted form."""

_OWN = frozenset({PASSWORD, CODE, PASSKEY, REQUEST_ID, CARRIED})
_NOT_KEPT = _OWN | SECRET_FIELDS - {
    "enrolled_draft",
    "enrolled_secret",
    "webhook_secret",
}
"""
A new second factor would have to be set up again, and the receiver of a webhook has its
secret already; their pages have held these, too.
"""
_FIELDS = {"password": PASSWORD, "second_factor": CODE}

ASK_FIRST = frozenset(
    {
        "/account/passkeys",
        "/account/password",
        "/account/second-factor",
        "/new/administrator",
        "/new/channel",
    }
)
"""
Pages that ask before they show their form.

Its secrets are not kept, so that an administrator need not type them twice.
"""


def ask(visit: Visit) -> Response:
    """Ask for password and second factor. Other input of the form is kept."""
    return visit.page(
        "reauthentication.html",
        status=0 if visit.problems else 403,
        fields=visit.form.without(_NOT_KEPT).pairs,
        carried=_carries(visit),
        confirm_id=visit.new_id(),
    )


def is_needed_first(visit: Visit) -> bool:
    """Return whether the page must ask before it shows its form."""
    return (
        not visit.is_form
        and visit.path in ASK_FIRST
        and visit.session is not None
        and not visit.session.confirmed
    )


def is_confirmed(visit: Visit) -> bool:
    """Return whether the administrator is confirmed, perhaps by this very form."""
    return is_confirmation(visit) or (
        visit.session is not None and visit.session.confirmed
    )


async def confirm(visit: Visit) -> Response | None:
    """Confirm the administrator; return None if the form may go on."""
    typed = visit.form.text(REQUEST_ID)
    try:
        await visit.site.services.sessions.reauthenticate(
            visit.call(
                "SessionService/Reauthenticate",
                request_id=typed if UUID.fullmatch(typed) else visit.new_id(),
            ),
            password=visit.form.secret(PASSWORD),
            second_factor=visit.form.text(CODE).strip(),
            passkey=visit.form.secret(PASSKEY),
        )
    except EXPLAINED as error:
        problem = explain(error, _FIELDS)
        if isinstance(error, Refused) and (
            error.rejected.reason is Reason.WRONG_PASSWORD
        ):
            problem = replace(problem, words=_("The password is wrong."))
        visit.add(problem)
        return ask(visit)
    return None if visit.form.flag(CARRIED) else visit.redirect(visit.path)


def is_confirmation(visit: Visit) -> bool:
    """Return whether the form comes from this page, at this console."""
    return (
        visit.is_form
        and visit.origin is not Origin.CONSOLE
        and PASSWORD in visit.form.values
    )


def _carries(visit: Visit) -> bool:
    """Return whether the page holds a submitted form, which then goes on."""
    if is_confirmation(visit):
        return visit.form.flag(CARRIED)
    return visit.is_form
