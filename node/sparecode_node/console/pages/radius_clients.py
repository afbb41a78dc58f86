# SPDX-License-Identifier: Apache-2.0
"""RADIUS clients: registration, settings, and a new secret, shown once (D1)."""

import dataclasses
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import attempt, change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.agents import PROTECTS, attributes_in, protects_in
from sparecode_node.console.pages.agents import address as agent_address
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.domain.radius import NO_ATTRIBUTES, RadiusSettings
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.people.radius_clients import NewSecret
from sparecode_node.statemachine.results import Applied

REGISTER: Final = "AgentService/RegisterRadiusClient"
ROTATE: Final = "AgentService/RotateRadiusSecret"
UPDATE: Final = "AgentService/UpdateRadiusClient"

OVERLAPS: Final = {
    "0": N_("Not at all: it may be known to others"),
    "1": "1 hour",
    "24": "1 day",
    "168": "7 days",
    "720": "30 days",
}
"""How long a replaced secret still works, in hours."""
NEW: Final = RadiusSettings(networks=())
"""What the form of a new client shows."""
SIGNATURES: Final = {
    "required": N_("Required"),
    "first": N_("Required once the client has sent one: unsafe until then"),
    "optional": N_("Not required: unsafe"),
}
"""Which requests need a Message-Authenticator."""
FIELDS: Final = {
    "overlap": "overlap_hours",
    "allow_unsigned": "signatures",
    "unsigned_until_signed": "signatures",
}


def signatures_of(settings: RadiusSettings) -> str:
    """Return the key in `SIGNATURES` of a client."""
    if not settings.allow_unsigned:
        return "required"
    return "first" if settings.unsigned_until_signed else "optional"


async def add(visit: Visit) -> Response:
    """Register a RADIUS client, and show its secret."""
    visit.require(REGISTER)
    name, new = visit.form.text("name"), None
    if visit.is_form:
        new = await attempt(
            visit, REGISTER, lambda call: _register(visit, call), fields=FIELDS
        )
    return _page(visit, "radius_client_new.html", name, new)


async def _register(visit: Visit, call: CallContext) -> NewSecret:
    return await visit.site.services.radius_clients.register(
        call,
        name=visit.form.text("name"),
        protects=protects_in(visit),
        restricted=visit.form.flag("restricted"),
        **dataclasses.asdict(_settings_in(visit)),
        **dataclasses.asdict(attributes_in(visit)),
    )


async def edit(visit: Visit) -> Response:
    """Change the settings of a RADIUS client."""
    visit.require(UPDATE)
    name = visit.request.path_params["name"]
    if visit.is_form:
        answer = await change(
            visit,
            UPDATE,
            lambda call: _update(visit, call, name),
            to=agent_address(name),
            words=_("The RADIUS client is changed."),
            fields=FIELDS,
        )
        if answer is not None:
            return answer
    settings, etag = await _settings(visit, name)
    return visit.page(
        "radius_client.html",
        name=name,
        settings=settings,
        etag=etag,
        signatures=SIGNATURES,
        signatures_of=signatures_of,
    )


async def _update(visit: Visit, call: CallContext, name: str) -> Applied:
    settings = _settings_in(visit)
    if not settings.networks:
        # For the use case none means no change.
        raise InvalidFieldError("networks", _("must name at least one network"))
    return await visit.site.services.radius_clients.update(
        call, name=name, **dataclasses.asdict(settings)
    )


def _settings_in(visit: Visit) -> RadiusSettings:
    """Return the settings in the form. Raises `InvalidFieldError`."""
    form = visit.form
    signatures = form.text("signatures", "required")
    if signatures not in SIGNATURES:
        raise InvalidFieldError("signatures", _("choose one of the settings"))
    return RadiusSettings(
        networks=tuple(form.text("networks").replace(",", " ").split()),
        allow_unsigned=signatures != "required",
        allow_unsigned_proxied=form.flag("allow_unsigned_proxied"),
        unsigned_until_signed=signatures == "first",
        repeats_with_new_authenticator=form.flag("repeats"),
        prompts_for_passcode=form.flag("prompts"),
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
        await _settings(visit, name)
    return _page(visit, "radius_secret.html", name, new)


async def _settings(visit: Visit, name: str) -> tuple[RadiusSettings, str]:
    """Return the settings of a RADIUS client, and their etag. Raises `Refused`."""
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
    return agent.radius, agent.radius_etag


async def _rotate(visit: Visit, call: CallContext, name: str) -> NewSecret:
    hours = visit.form.text("overlap_hours")
    if hours not in OVERLAPS:
        raise InvalidFieldError("overlap_hours", _("choose one of the times"))
    return await visit.site.services.radius_clients.rotate_secret(
        call, name=name, overlap_ms=int(hours) * HOUR_MS
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
        signatures=SIGNATURES,
        signatures_of=signatures_of,
        settings=NEW,
        attributes=NO_ATTRIBUTES,
    )
