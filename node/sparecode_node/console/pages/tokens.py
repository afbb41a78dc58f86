# SPDX-License-Identifier: Apache-2.0
"""*SecurID Tokens: Manage Existing*, with its search, and the page of one token."""

from urllib.parse import quote

from starlette.responses import Response

from sparecode_node.console.kit import explanations, paging
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.navigation import kind_words
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.queries.tokens import TokenOrder
from sparecode_node.queries.views import TokenView

PAGE_SIZE = 25

STATES = {
    "": N_("Any state"),
    "emergency": N_("In emergency access"),
    "normal": N_("Not in emergency access"),
    "enabled": N_("Enabled"),
    "disabled": N_("Disabled"),
}


ALGORITHMS = {
    "": N_("Any type"),
    **{algorithm.value: kind_words(algorithm) for algorithm in Algorithm},
}


async def manage_existing(visit: Visit) -> Response:
    """Search tokens by serial, user name, name or e-mail."""
    visit.require("TokenService/ListTokens")
    search = visit.query.word("q")
    state, kind = visit.query.word("state"), visit.query.word("kind")
    results = paging.nothing(PAGE_SIZE)
    order = paging.order(visit, TokenOrder, TokenOrder.SERIAL)
    try:
        results = await visit.read(
            "TokenService/ListTokens",
            lambda call, stale_ok: visit.site.services.tokens.find(
                call,
                page_size=PAGE_SIZE,
                number=paging.number(visit),
                search=search,
                algorithm=Algorithm(kind) if kind and kind in ALGORITHMS else None,
                enabled={"enabled": True, "disabled": False}.get(state),
                in_emergency_access={"emergency": True, "normal": False}.get(state),
                order=order,
                stale_ok=stale_ok,
            ),
        )
    except EXPLAINED as error:
        visit.add(explain(error, {"search": "q", "page": ""}))
    return visit.page(
        "tokens.html",
        results=results,
        search=search,
        state=state,
        states=STATES,
        kind=kind,
        kinds=ALGORITHMS,
        lists=paging.Lists("/tokens", order, q=search, state=state, kind=kind),
    )


async def view(visit: Visit) -> Response:
    """Show one token."""
    serial = visit.request.path_params["serial"]
    token = await find(visit, serial)
    access = await visit.read(
        "EmergencyAccessService/GetEmergencyAccess",
        lambda call, stale_ok: visit.site.services.emergency.get(
            call, serial, stale_ok=stale_ok
        ),
    )
    explanation = await explanations.of_token(visit, serial)
    return visit.page(
        "token.html",
        token=token,
        access=access,
        explanation=explanation,
        obstacles=explanations.obstacles(visit, explanation),
        of_user=True,
    )


def address(serial: str) -> str:
    """Return the address of a token's page."""
    return f"/tokens/{quote(serial, safe='')}"


async def find(visit: Visit, serial: str) -> TokenView:
    """Return a token. Raises as `Tokens.get`."""
    return await visit.read(
        "TokenService/GetToken",
        lambda call, stale_ok: visit.site.services.tokens.get(
            call, serial, stale_ok=stale_ok
        ),
    )
