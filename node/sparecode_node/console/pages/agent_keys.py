# SPDX-License-Identifier: Apache-2.0
"""A new bearer key of an agent that calls by HTTP, shown once (D5)."""

from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import attempt
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.radius_clients import OVERLAPS
from sparecode_node.console.pages.snippets import CURL
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.people.agent_keys import NewKey

CREATE: Final = "AgentService/CreateAgentKey"
FIELDS: Final = {"overlap": "overlap_hours"}


async def create(visit: Visit) -> Response:
    """Give an agent a new bearer key, and show it."""
    visit.require(CREATE)
    name, new = visit.request.path_params["name"], None
    if visit.is_form:
        new = await attempt(
            visit, CREATE, lambda call: _create(visit, call, name), fields=FIELDS
        )
    if new is None:
        await _check(visit, name)
    return visit.page(
        "agent_key.html",
        name=name,
        key=new.key if new else "",
        index=new.index if new else 0,
        overlaps=OVERLAPS,
        snippet=CURL,
    )


async def _check(visit: Visit, name: str) -> None:
    """Raise `Refused` if no agent has this name, or a RADIUS client has."""
    agent = await visit.read(
        "AgentService/GetAgent",
        lambda call, stale_ok: visit.site.services.agents.get(
            call, name, stale_ok=stale_ok
        ),
    )
    if agent.radius is not None:
        raise Refused(
            Rejected(
                Reason.AGENT_UNKNOWN,
                f"agent {name} is a RADIUS client, which has a shared secret",
            )
        )


async def _create(visit: Visit, call: CallContext, name: str) -> NewKey:
    hours = visit.form.text("overlap_hours")
    if hours not in OVERLAPS:
        raise InvalidFieldError("overlap_hours", _("choose one of the times"))
    return await visit.site.services.agent_keys.create(
        call,
        name=name,
        overlap_ms=int(hours) * HOUR_MS,
        networks=tuple(visit.form.text("networks").replace(",", " ").split()),
    )
