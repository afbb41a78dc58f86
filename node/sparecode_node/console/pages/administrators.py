# SPDX-License-Identifier: Apache-2.0
"""Administrators and their roles."""

from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.navigation import ROLES
from sparecode_node.console.kit.visits import Visit
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import fold
from sparecode_node.queries.administrators import AdministratorView
from sparecode_node.queries.views import Page
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.fields import PAGE_SIZE_MAX
from sparecode_node.services.people.administrators import Link

ROLE_DESCRIPTIONS: Final = {
    Role.SUPER_ADMIN.value: N_("Everything"),
    Role.HELP_DESK.value: N_(
        "Find users and tokens, issue and turn off emergency access, unlock, clear PINs"
    ),
    Role.AUDITOR.value: N_("Read everything, change nothing"),
    Role.OPERATOR.value: N_("Operate the cluster; no access to user data"),
}

ROLE_LABELS: Final = {role.value: words for role, words in ROLES.items()}


def address(name: str) -> str:
    """Return the address of an administrator's page."""
    return f"/administrators/{quote(name, safe='')}"


async def list_all(visit: Visit) -> Response:
    """List administrators."""
    return visit.page(
        "administrators.html",
        results=await _page(visit, visit.query.word("page")),
        role_descriptions=ROLE_DESCRIPTIONS,
        role_labels=ROLE_LABELS,
    )


async def add(visit: Visit) -> Response:
    """Create an administrator."""
    visit.require("AdministratorService/CreateAdministrator")
    if visit.is_form:
        answer = await change(
            visit,
            "AdministratorService/CreateAdministrator",
            lambda call: visit.site.services.administrators.create(
                call,
                name=visit.form.text("name"),
                role=_role(visit),
                link=_link(visit),
                password=_password(visit),
            ),
            to="/administrators",
            words=_(
                "The administrator is created and must choose a password at the first "
                "sign-in."
            ),
        )
        if answer is not None:
            return answer
    return visit.page(
        "administrator_new.html",
        role_descriptions=ROLE_DESCRIPTIONS,
        role_labels=ROLE_LABELS,
    )


async def view(visit: Visit) -> Response:
    """Show an administrator, and apply a change."""
    name = visit.request.path_params["name"]
    if visit.is_form:
        answer = await _change(visit, name)
        if answer is not None:
            return answer
    return visit.page(
        "administrator.html",
        administrator=await _find(visit, name),
        role_descriptions=ROLE_DESCRIPTIONS,
        role_labels=ROLE_LABELS,
    )


async def _page(visit: Visit, page_token: str) -> Page[AdministratorView]:
    return await visit.read(
        "AdministratorService/ListAdministrators",
        lambda call, stale_ok: visit.site.services.administrators.list(
            call, page_size=PAGE_SIZE_MAX, page_token=page_token, stale_ok=stale_ok
        ),
    )


async def _find(visit: Visit, name: str) -> AdministratorView:
    key, page_token = fold(name), ""
    while True:
        page = await _page(visit, page_token)
        for each in page.items:
            if each.name == key:
                return each
        page_token = page.next_page_token
        if not page_token:
            raise Refused(
                Rejected(
                    Reason.ADMINISTRATOR_UNKNOWN, f"there is no administrator {name}"
                )
            )


async def _change(visit: Visit, name: str) -> Response | None:
    administrators = visit.site.services.administrators
    method, here = "AdministratorService/UpdateAdministrator", address(name)
    match visit.form.text("action"):
        case "remove":
            return await change(
                visit,
                "AdministratorService/RemoveAdministrator",
                lambda call: administrators.remove(call, name=name),
                to="/administrators",
                words=_(
                    "The administrator is removed, and all their sessions have ended."
                ),
            )
        case "enable" | "disable" as action:
            return await change(
                visit,
                method,
                lambda call: administrators.update(
                    call, name=name, enabled=action == "enable"
                ),
                to=here,
                words=(
                    _("The administrator is enabled.")
                    if action == "enable"
                    else _("The administrator is disabled.")
                ),
            )
        case "role":
            return await change(
                visit,
                method,
                lambda call: administrators.update(call, name=name, role=_role(visit)),
                to=here,
                words=_("The role is changed."),
            )
        case "remove-second-factor":
            return await change(
                visit,
                "AdministratorService/RemoveSecondFactor",
                lambda call: visit.site.services.second_factors.remove(call, name=name),
                to=here,
                words=_(
                    "The second factor is removed, and all sessions of the "
                    "administrator have ended."
                ),
            )
        case "cancel-reset":
            return await change(
                visit,
                "AdministratorService/CancelReset",
                lambda call: administrators.cancel_reset(call, name=name),
                to=here,
                words=_("The reset is canceled."),
            )
        case "link":
            return await change(
                visit,
                method,
                lambda call: administrators.update(call, name=name, link=_link(visit)),
                to=here,
                words=_("The linked user is changed."),
            )
        case _:
            return await change(
                visit,
                "AdministratorService/ChangePassword",
                lambda call: administrators.change_password(
                    call, name=name, old_password="", new_password=_password(visit)
                ),
                to=here,
                words=_("The password is set and must be changed at the next sign-in."),
                fields={"new_password": "password"},
            )


def _role(visit: Visit) -> Role:
    try:
        return Role(visit.form.text("role"))
    except ValueError:
        raise InvalidFieldError("role", _("choose a role")) from None


def _link(visit: Visit) -> Link:
    return Link(visit.form.text("username"))


def _password(visit: Visit) -> str:
    password = visit.form.secret("password")
    if password != visit.form.secret("password_again"):
        raise InvalidFieldError("password_again", _("the two passwords differ"))
    return password
