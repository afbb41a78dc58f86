# SPDX-License-Identifier: Apache-2.0
"""The administrator's own account: password and sessions."""

from starlette.responses import Response

from sparecode_node.console.kit.changes import change, redirect_with_notice
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.security import set_device_cookie
from sparecode_node.console.kit.visits import SIGN_IN, Visit
from sparecode_node.console.pages import sign_in
from sparecode_node.services.access.authorization import REGISTER_PASSKEY
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.people.administrators import PasswordChanged
from sparecode_node.services.secrets.password_strength import (
    ALONE_MIN,
    WITH_SECOND_FACTOR_MIN,
)

PASSWORD = "/account/password"


async def show(visit: Visit) -> Response:
    """Show the session's owner and its end."""
    own = await visit.read(
        REGISTER_PASSKEY,
        lambda call, stale_ok: visit.site.services.passkeys.own(
            call, stale_ok=stale_ok
        ),
    )
    return visit.page(
        "account.html", has_second_factor=own.has_code, passkeys=own.passkeys
    )


async def password(visit: Visit) -> Response:
    """
    Change the own password; required if it is temporary.

    It ends all sessions. This browser signs in with the new password at once, unless
    that needs a second factor.
    """
    if visit.is_form:
        device_cookie = ""

        async def change_password(call: CallContext) -> PasswordChanged:
            nonlocal device_cookie
            changed = await visit.site.services.administrators.change_password(
                call,
                name="",
                old_password=visit.form.secret("old_password"),
                new_password=_new_password(visit),
            )
            device_cookie = changed.device_cookie
            return changed

        answer = await change(
            visit,
            "AdministratorService/ChangePassword",
            change_password,
            to=SIGN_IN,
            words=_(
                "Your password is changed, and all your sessions have ended. Sign in "
                "with the new password."
            ),
        )
        if answer is not None:
            return await _signed_in_again(visit, answer, device_cookie)
    return visit.page(
        "password.html",
        shortest=ALONE_MIN,
        shortest_with_factor=WITH_SECOND_FACTOR_MIN,
    )


async def _signed_in_again(
    visit: Visit, answer: Response, device_cookie: str
) -> Response:
    """Return the first page, signed in; *answer* leads to the sign-in page."""
    if visit.session is None or not device_cookie:
        return answer
    name = visit.session.administrator
    signed_in = await sign_in.sign_in_again(
        visit, name, visit.form.secret("new_password"), device_cookie
    )
    if signed_in is None:
        set_device_cookie(answer, name, device_cookie)
        return answer
    words = _(
        "Your password is changed. You are signed in with the new one; all your other "
        "sessions have ended."
    )
    response = redirect_with_notice(visit, "/", Notice(words=words))
    sign_in.keep_session(visit, response, signed_in)
    return response


def _new_password(visit: Visit) -> str:
    new = visit.form.secret("new_password")
    if new != visit.form.secret("new_password_again"):
        raise InvalidFieldError("new_password_again", _("the two passwords differ"))
    return new
