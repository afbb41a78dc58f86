# SPDX-License-Identifier: Apache-2.0
"""RADIUS clients: registration, and a new secret. Each secret is shown once (D1)."""

from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit.changes import attempt
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.agents import PROTECTS, protects_in
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.people.radius_clients import NewSecret

REGISTER: Final = "AgentService/RegisterRadiusClient"
ROTATE: Final = "AgentService/RotateRadiusSecret"

_HOUR_MS: Final = 3_600_000
OVERLAPS: Final = {
    "0": "Not at all: it may be known to others",
    "1": "1 hour",
    "24": "1 day",
    "168": "7 days",
    "720": "30 days",
}
"""How long a replaced secret still works, in hours."""
FIELDS: Final = {"overlap": "overlap_hours"}


def address(name: str) -> str:
    """Return the address of the page that replaces a client's secret."""
    return f"/radius-secrets/{quote(name, safe='')}"


async def add(visit: Visit) -> Response:
    """Register a RADIUS client, and show its secret."""
    visit.require(REGISTER)
    name, new = visit.form.text("name"), None
    if visit.is_form:
        new = await attempt(visit, REGISTER, lambda call: _register(visit, call))
    return _page(visit, "radius_client_new.html", name, new)


async def _register(visit: Visit, call: CallContext) -> NewSecret:
    form = visit.form
    return await visit.site.services.radius_clients.register(
        call,
        name=form.text("name"),
        networks=form.text("networks").replace(",", " ").split(),
        protects=protects_in(visit),
        restricted=form.flag("restricted"),
        allow_unsigned=form.flag("allow_unsigned"),
        repeats_with_new_authenticator=form.flag("repeats"),
        filter_id=form.text("filter_id"),
        class_attribute=form.text("class_attribute"),
        session_timeout_s=form.whole("session_timeout", "the session timeout")
        if form.text("session_timeout")
        else 0,
    )


async def rotate(visit: Visit) -> Response:
    """Replace the secret of a RADIUS client, and show the new one."""
    visit.require(ROTATE)
    name, new = visit.request.path_params["name"], None
    if visit.is_form:
        new = await attempt(
            visit, ROTATE, lambda call: _rotate(visit, call, name), fields=FIELDS
        )
    if new is None:
        await _check_client(visit, name)
    return _page(visit, "radius_secret.html", name, new)


async def _check_client(visit: Visit, name: str) -> None:
    """Raise `Refused` if there is no RADIUS client of this name."""
    agent = await visit.read(
        "AgentService/GetAgent",
        lambda call, stale_ok: visit.site.services.agents.get(
            call, name, stale_ok=stale_ok
        ),
    )
    if agent.radius is None:
        raise Refused(
            Rejected(Reason.AGENT_UNKNOWN, f"there is no RADIUS client {name}")
        )


async def _rotate(visit: Visit, call: CallContext, name: str) -> NewSecret:
    hours = visit.form.text("overlap_hours")
    if hours not in OVERLAPS:
        raise InvalidFieldError("overlap_hours", "choose one of the times")
    return await visit.site.services.radius_clients.rotate_secret(
        call, name=name, overlap_ms=int(hours) * _HOUR_MS
    )


def _page(visit: Visit, template: str, name: str, new: NewSecret | None) -> Response:
    if new is not None:
        # A reload sends the same request, and shows the same secret.
        visit.keep_request_id()
    return visit.page(
        template,
        name=name,
        secret=new.secret if new else "",
        index=new.index if new else 0,
        overlaps=OVERLAPS,
        protects=PROTECTS,
    )
