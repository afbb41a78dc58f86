# SPDX-License-Identifier: Apache-2.0
"""Agents, the users that each admits, and denied certificates."""

import dataclasses
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.snippets import CURL, SNIPPETS
from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.radius import NO_ATTRIBUTES, AcceptAttributes
from sparecode_node.queries.views import AgentView, DeniedCertificateView, Page

PROTECTS: Final = {
    Protects.AUTHENTICATION_MANAGER.value: N_("Resources of this system"),
    Protects.CLOUD.value: N_("Cloud resources: emergency codes are refused"),
}

FIELDS: Final = {
    "certificate_identity": "identity",
    "add_usernames": "username",
    "remove_usernames": "username",
    "fingerprint": "value",
    "serial_number": "value",
}
"""Fields of requests and their names on the pages."""


def address(name: str) -> str:
    """Return the address of an agent's page."""
    return f"/agents/{quote(name, safe='')}"


async def list_all(visit: Visit) -> Response:
    """List agents."""
    results: Page[AgentView] = await visit.read(
        "AgentService/ListAgents",
        lambda call, stale_ok: visit.site.services.agents.list(
            call, page_token=visit.query.word("page"), stale_ok=stale_ok
        ),
    )
    return visit.page(
        "agents.html",
        results=results,
        protects=PROTECTS,
    )


async def add(visit: Visit) -> Response:
    """Register an agent."""
    visit.require("AgentService/RegisterAgent")
    if visit.is_form:
        name = visit.form.text("name")
        answer = await change(
            visit,
            "AgentService/RegisterAgent",
            lambda call: visit.site.services.agents.register(
                call,
                name=name,
                identity=visit.form.text("identity"),
                protects=protects_in(visit),
                restricted=visit.form.flag("restricted"),
                **dataclasses.asdict(attributes_in(visit)),
            ),
            to=address(name),
            words=_("The agent is registered."),
            fields=FIELDS,
        )
        if answer is not None:
            return answer
    return visit.page("agent_new.html", protects=PROTECTS, attributes=NO_ATTRIBUTES)


async def view(visit: Visit) -> Response:
    """Show an agent, and apply a change."""
    name = visit.request.path_params["name"]
    if visit.is_form:
        answer = await _change(visit, name)
        if answer is not None:
            return answer
    agent = await visit.read(
        "AgentService/GetAgent",
        lambda call, stale_ok: visit.site.services.agents.get(
            call, name, stale_ok=stale_ok
        ),
    )
    return visit.page(
        "agent.html",
        agent=agent,
        protects=PROTECTS,
        snippets=SNIPPETS if agent.radius else (CURL,),
    )


async def _change(visit: Visit, name: str) -> Response | None:
    agents = visit.site.services.agents
    method, here = "AgentService/UpdateAgent", address(name)
    username = visit.form.text("username")
    match visit.form.text("action"):
        case "remove":
            return await change(
                visit,
                "AgentService/RemoveAgent",
                lambda call: agents.remove(call, name=name),
                to="/agents",
                words=_("The agent is removed."),
            )
        case "enable" | "disable" as action:
            return await change(
                visit,
                method,
                lambda call: agents.update(call, name=name, enabled=action == "enable"),
                to=here,
                words=(
                    _("The agent is enabled.")
                    if action == "enable"
                    else _("The agent is disabled.")
                ),
            )
        case "end-keys":
            return await change(
                visit,
                method,
                lambda call: agents.update(call, name=name, end_keys=True),
                to=here,
                words=_("No bearer key of the agent works any longer."),
            )
        case "admit":
            return await change(
                visit,
                method,
                lambda call: agents.update(call, name=name, add_usernames=[username]),
                to=here,
                words=_("%(username)s is on the allow list.", username=username),
                fields=FIELDS,
            )
        case "turn-away":
            return await change(
                visit,
                method,
                lambda call: agents.update(
                    call, name=name, remove_usernames=[username]
                ),
                to=here,
                words=_(
                    "%(username)s is no longer on the allow list.", username=username
                ),
                fields=FIELDS,
            )
        case _:
            return await change(
                visit,
                method,
                lambda call: agents.update(call, name=name, **_changed_fields(visit)),
                to=here,
                words=_("The agent is changed."),
                fields=FIELDS,
            )


def protects_in(visit: Visit) -> Protects:
    """Return what the form says that an agent protects."""
    typed = visit.form.text("protects")
    known = typed in PROTECTS
    return Protects(typed) if known else Protects.AUTHENTICATION_MANAGER


def attributes_in(visit: Visit) -> AcceptAttributes:
    """Return the attributes in the form. Raises `InvalidFieldError`."""
    form = visit.form
    return AcceptAttributes(
        filter_id=form.text("filter_id"),
        class_attribute=form.text("class_attribute"),
        session_timeout_s=form.whole("session_timeout", _("the session timeout"))
        if form.text("session_timeout")
        else 0,
    )


def _changed_fields(visit: Visit) -> dict[str, Any]:
    """
    Return the fields that the person has changed. Raises `InvalidFieldError`.

    Below feature level 2 a member knows neither the attributes nor etags.
    """
    values = {
        "protects": protects_in(visit),
        "restricted": visit.form.flag("restricted"),
        **dataclasses.asdict(attributes_in(visit)),
    }
    return {
        name: value
        for name, value in values.items()
        if visit.form.has_changed(name.removesuffix("_s"))
    }


async def certificates(visit: Visit) -> Response:
    """List denied certificates; deny another one, or allow one again."""
    if visit.is_form:
        answer = await _judge_certificate(visit)
        if answer is not None:
            return answer
    results: Page[DeniedCertificateView] = await visit.read(
        "AgentService/ListDeniedCertificates",
        lambda call, stale_ok: visit.site.services.agents.list_denied(
            call, page_token=visit.query.word("page"), stale_ok=stale_ok
        ),
    )
    return visit.page(
        "certificates.html",
        results=results,
        marks={
            CertificateMark.FINGERPRINT.value: "SHA-256 fingerprint",
            CertificateMark.SERIAL_NUMBER.value: _("Serial number"),
        },
    )


async def _judge_certificate(visit: Visit) -> Response | None:
    agents = visit.site.services.agents
    form = visit.form
    by_number = form.text("mark") == CertificateMark.SERIAL_NUMBER.value
    named = {"serial_number" if by_number else "fingerprint": form.text("value")}
    if form.text("action") == "allow":
        return await change(
            visit,
            "AgentService/AllowCertificate",
            lambda call: agents.allow(call, **named),
            to="/denied-certificates",
            words=_("The certificate is allowed again."),
            fields=FIELDS,
        )
    return await change(
        visit,
        "AgentService/DenyCertificate",
        lambda call: agents.deny(call, **named, note=form.text("note")),
        to="/denied-certificates",
        words=_("The certificate is denied from now on, on open connections too."),
        fields=FIELDS,
    )
