# SPDX-License-Identifier: Apache-2.0
"""The administrator's own account: password and sessions."""

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.security import set_device_cookie
from sparecode_node.console.kit.visits import SIGN_IN, Visit
from sparecode_node.services.access.authorization import REGISTER_PASSKEY
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.people.administrators import PasswordChanged
from sparecode_node.services.secrets.password_strength import (
    ALONE_MIN,
    WITH_SECOND_FACTOR_MIN,
)


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
    """Change the own password; required if it is temporary."""
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
            words="Your password is changed, and all your sessions have ended. Sign in "
            "with the new password.",
        )
        if answer is not None:
            if visit.session is not None:
                set_device_cookie(answer, visit.session.administrator, device_cookie)
            return answer
    return visit.page(
        "password.html",
        shortest=ALONE_MIN,
        shortest_with_factor=WITH_SECOND_FACTOR_MIN,
    )


def _new_password(visit: Visit) -> str:
    new = visit.form.secret("new_password")
    if new != visit.form.secret("new_password_again"):
        raise InvalidFieldError("new_password_again", "the two passwords differ")
    return new
