# SPDX-License-Identifier: Apache-2.0
"""
The own second factor: a secret for an authenticator app, as a picture and as text.

Nothing changes before a code of the app has been entered. Until then the secret and
its sealed draft are only in the browser, like generated codes (I3): any node can
confirm the code.
"""

import base64
import binascii
import io
import re
from dataclasses import dataclass, field

import segno
from markupsafe import Markup
from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.forms import Form
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.people.second_factors import uri_of
from sparecode_node.statemachine.results import Applied

ENROLL = "AdministratorService/EnrollSecondFactor"
CONFIRM = "AdministratorService/ConfirmSecondFactor"
SECRET = re.compile(r"[A-Z2-7]{16,128}", re.ASCII)
QR_PIXELS_A_MODULE = 4
ENDED = N_("this secret was shown too long ago: set up the second factor again")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSecret:
    """A secret that is on the page but not in force yet."""

    secret: str = field(repr=False)
    draft: str = field(repr=False)

    @property
    def grouped(self) -> str:
        """The secret in groups, for typing."""
        return " ".join(re.findall(r".{1,4}", self.secret))


async def manage(visit: Visit) -> Response:
    """Show whether a second factor is set; set one up."""
    pending: PendingSecret | None = None
    if visit.is_form:
        if visit.form.text("action") == "enroll":
            pending = await _enroll(visit)
        else:
            pending = _submitted_secret(visit.form)
            answer = await _confirm(visit, pending)
            if answer is not None:
                return answer
    has = await visit.read(
        ENROLL,
        lambda call, stale_ok: visit.site.services.second_factors.own(
            call, stale_ok=stale_ok
        ),
    )
    if has or "" in visit.problems:
        pending = None
    name = visit.session.administrator if visit.session else ""
    return visit.page(
        "second_factor.html",
        has=has,
        pending=pending,
        picture=picture(uri_of(name, pending.secret)) if pending else "",
    )


async def _enroll(visit: Visit) -> PendingSecret | None:
    """Draw a secret, which is not in force until a code of it is confirmed."""
    try:
        enrolled = await visit.site.services.second_factors.enroll(visit.call(ENROLL))
    except EXPLAINED as error:
        visit.add(explain(error))
        return None
    return PendingSecret(
        secret=enrolled.secret, draft=base64.b64encode(enrolled.draft).decode()
    )


def _submitted_secret(form: Form) -> PendingSecret | None:
    """Return the secret that the browser sent back, or None."""
    secret = form.text("enrolled_secret")
    if not SECRET.fullmatch(secret):
        return None
    return PendingSecret(secret=secret, draft=form.text("enrolled_draft"))


async def _confirm(visit: Visit, pending: PendingSecret | None) -> Response | None:
    async def make(call: CallContext) -> Applied:
        try:
            draft = base64.b64decode(pending.draft if pending else "", validate=True)
            return await visit.site.services.second_factors.confirm(
                call, draft=draft, code=visit.form.text("second_factor")
            )
        except (binascii.Error, ValueError):
            raise InvalidFieldError("", _(ENDED)) from None
        except Refused as refused:
            if refused.rejected.reason is Reason.DRAFT_STALE:
                raise InvalidFieldError("", _(ENDED)) from None
            raise

    return await change(
        visit,
        CONFIRM,
        make,
        to="/account",
        words=_(
            "Your second factor is set: from now on, sign-in also asks for a code from "
            "your app. All your other sessions have ended."
        ),
        fields={"code": "second_factor", "draft": ""},
    )


def picture(content: str) -> Markup:
    """Return a QR code for the page: dark on light, whatever the palette (ISO 18004)."""
    drawn = io.BytesIO()
    segno.make_qr(content, error="m").save(
        drawn,
        kind="svg",
        xmldecl=False,
        svgns=False,
        nl=False,
        scale=QR_PIXELS_A_MODULE,
        dark="#000",
        light="#fff",
        svgclass=None,
        lineclass=None,
    )
    # The picture contains only paths: its content is drawn, never written as text.
    return Markup(drawn.getvalue().decode())  # noqa: S704
