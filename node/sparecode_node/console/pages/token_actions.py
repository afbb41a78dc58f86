# SPDX-License-Identifier: Apache-2.0
"""Pages of a token's actions: each explains one action and performs it."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from sparecode_node.console.kit.changes import Committed, change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.rendering import utc
from sparecode_node.console.kit.token_menu import ACTIONS, TokenAction
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.console.pages import tokens
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError

BY_NAME: Final = {action.name: action for action in ACTIONS}

FIELDS = {
    "serial": "",
    "expire_time": "expires",
    "replacement_serial": "replacement",
}
"""Fields of requests and their names on the pages."""

_Make = Callable[[Visit, CallContext, str], Awaitable[Committed]]


async def act(visit: Visit) -> Response:
    """Explain an action; perform it."""
    serial = visit.request.path_params["serial"]
    action = BY_NAME.get(visit.request.path_params["action"])
    if action is None:
        raise HTTPException(404)
    visit.require(action.method)
    if visit.is_form:
        answer = await _do(visit, serial, action)
        if answer is not None:
            return answer
    token = await tokens.find(visit, serial)
    ends = utc(
        token.expires_at_ms
        if token.expires_at_ms is not None
        else visit.site.clock.now_ms()
    )
    return visit.page(
        "token_action.html",
        action=action,
        token=token,
        offered=action.offered(token),
        ends=ends,
    )


async def _do(visit: Visit, serial: str, action: TokenAction) -> Response | None:
    try:
        to = _next_page(visit, serial, action)
    except EXPLAINED as error:
        visit.add(explain(error))
        return None
    return await change(
        visit,
        action.method,
        lambda call: _MAKERS[action.name](visit, call, serial),
        to=to,
        words=_(action.done),
        fields=FIELDS,
    )


def _next_page(visit: Visit, serial: str, action: TokenAction) -> str:
    if action.name == "delete":
        return "/tokens"
    if action.name == "replace":
        other = visit.form.text("replacement")
        if not other:
            raise InvalidFieldError(
                "replacement", _("enter the serial number of the replacement")
            )
        return tokens.address(other)
    return tokens.address(serial)


async def _enable(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.enable(call, serial=serial)


async def _disable(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.disable(call, serial=serial)


async def _assign(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.assign(
        call, serial=serial, username=visit.form.text("username")
    )


async def _replace(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.replace(
        call,
        serial=serial,
        replacement_serial=visit.form.text("replacement"),
        keep_pin=visit.form.flag("keep_pin"),
    )


async def _unassign(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.unassign(call, serial=serial)


async def _set_pin(visit: Visit, call: CallContext, serial: str) -> Committed:
    pin = visit.form.secret("pin")
    if pin != visit.form.secret("pin_again"):
        raise InvalidFieldError("pin_again", _("the two PINs differ"))
    return await visit.site.services.tokens.set_pin(call, serial=serial, pin=pin)


async def _clear_pin(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.clear_pin(call, serial=serial)


async def _resynchronize(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.resynchronize(
        call,
        serial=serial,
        first_tokencode=visit.form.text("first_tokencode"),
        second_tokencode=visit.form.text("second_tokencode"),
    )


async def _reinstate(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.emergency.disable(
        call, serial=serial, reinstate_token=True
    )


async def _turn_off_codes(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.emergency.disable(
        call, serial=serial, reinstate_token=False
    )


async def _expiration(visit: Visit, call: CallContext, serial: str) -> Committed:
    never = visit.form.text("lifetime") == "never"
    return await visit.site.services.tokens.update(
        call,
        serial=serial,
        expires_at_ms=None if never else visit.form.moment_ms("expires"),
        never_expires=never,
    )


async def _delete(visit: Visit, call: CallContext, serial: str) -> Committed:
    return await visit.site.services.tokens.delete(call, serial=serial)


_MAKERS: Final[dict[str, _Make]] = {
    "enable": _enable,
    "disable": _disable,
    "assign": _assign,
    "replace": _replace,
    "unassign": _unassign,
    "set-pin": _set_pin,
    "clear-pin": _clear_pin,
    "resynchronize": _resynchronize,
    "reinstate": _reinstate,
    "turn-off-codes": _turn_off_codes,
    "expiration": _expiration,
    "delete": _delete,
}
