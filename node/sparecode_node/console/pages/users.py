# SPDX-License-Identifier: Apache-2.0
"""Users: search, create, change, unlock, disable, delete."""

from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit import explanations, paging
from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.console.pages import selection
from sparecode_node.queries.alarms import AlarmView
from sparecode_node.queries.users import UserOrder
from sparecode_node.queries.views import Page, TokenView

PAGE_SIZE: Final = 25

STATES: Final = {
    "": N_("Any state"),
    "locked": N_("Locked or waiting"),
    "enabled": N_("Enabled"),
    "disabled": N_("Disabled"),
}

FIELDS: Final = {"search": "q", "page": ""}


def address(username: str) -> str:
    """Return the address of a user's page."""
    return f"/users/{quote(username, safe='')}"


async def search(visit: Visit) -> Response:
    """Search users by user name, name or e-mail."""
    visit.require("UserService/ListUsers")
    query, state = visit.query.word("q"), visit.query.word("state")
    results = paging.nothing(PAGE_SIZE)
    order = paging.order(visit, UserOrder, UserOrder.NAME)
    try:
        results = await visit.read(
            "UserService/ListUsers",
            lambda call, stale_ok: visit.site.services.users.find(
                call,
                page_size=PAGE_SIZE,
                number=paging.number(visit),
                search=query,
                enabled={"enabled": True, "disabled": False}.get(state),
                locked=True if state == "locked" else None,
                order=order,
                stale_ok=stale_ok,
            ),
        )
    except EXPLAINED as error:
        visit.add(explain(error, FIELDS))
    return visit.page(
        "users.html",
        results=results,
        search=query,
        state=state,
        states=STATES,
        lists=paging.Lists("/users", order, q=query, state=state),
        actions=selection.offered(visit),
    )


async def add(visit: Visit) -> Response:
    """Create a user."""
    visit.require("UserService/CreateUser")
    if visit.is_form:
        username = visit.form.text("username")
        answer = await change(
            visit,
            "UserService/CreateUser",
            lambda call: visit.site.services.users.create(
                call,
                username=username,
                display_name=visit.form.text("display_name"),
                email=visit.form.text("email"),
                language=visit.form.text("language"),
                manager_email=visit.form.text("manager_email"),
            ),
            to=address(username),
            words=_("The user is created."),
        )
        if answer is not None:
            return answer
    return visit.page("user_new.html")


async def view(visit: Visit) -> Response:
    """Show a user, and apply a change."""
    username = visit.request.path_params["username"]
    if visit.is_form:
        answer = await _change(visit, username)
        if answer is not None:
            return answer
    user = await visit.read(
        "UserService/GetUser",
        lambda call, stale_ok: visit.site.services.users.get(
            call, username, stale_ok=stale_ok
        ),
    )
    tokens: Page[TokenView] = await visit.read(
        "TokenService/ListTokens",
        lambda call, stale_ok: visit.site.services.tokens.list(
            call, username=username, stale_ok=stale_ok
        ),
    )
    alarms: tuple[AlarmView, ...] = await visit.read(
        "UserService/GetUser",
        lambda call, stale_ok: visit.site.services.alarms.recent(
            call, username, stale_ok=stale_ok
        ),
    )
    explanation = await explanations.of_user(visit, username)
    return visit.page(
        "user.html",
        user=user,
        alarms=alarms,
        tokens=tokens.items,
        explanation=explanation,
        obstacles=explanations.obstacles(visit, explanation),
        of_user=False,
    )


async def _change(visit: Visit, username: str) -> Response | None:
    users = visit.site.services.users
    here = address(username)
    match visit.form.text("action"):
        case "unlock":
            return await change(
                visit,
                "UserService/UnlockUser",
                lambda call: users.unlock(call, username=username),
                to=here,
                words=_("The user is unlocked: both failure counts are 0."),
            )
        case "enable" | "disable" as action:
            return await change(
                visit,
                "UserService/UpdateUser",
                lambda call: users.update(
                    call, username=username, enabled=action == "enable"
                ),
                to=here,
                words=(
                    _("The user is enabled.")
                    if action == "enable"
                    else _("The user is disabled.")
                ),
            )
        case "delete":
            return await change(
                visit,
                "UserService/DeleteUser",
                lambda call: users.delete(call, username=username),
                to="/users",
                words=_("The user is deleted."),
            )
        case _:
            return await change(
                visit,
                "UserService/UpdateUser",
                lambda call: users.update(
                    call,
                    username=username,
                    display_name=visit.form.text("display_name"),
                    email=visit.form.text("email"),
                    language=visit.form.text("language"),
                    manager_email=visit.form.text("manager_email"),
                ),
                to=here,
                words=_("The user is changed."),
            )
