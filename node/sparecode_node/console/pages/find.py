# SPDX-License-Identifier: Apache-2.0
"""*Find people*: one search for users and tokens, from the header of every page."""

from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit import paging
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.console.pages import tokens, users
from sparecode_node.domain.users import fold
from sparecode_node.queries.views import Found, TokenView, UserView
from sparecode_node.services.fields import SERIAL

SHOWN = 20
"""People on the page; more are found under Users."""

ALIKE: Final = 8
"""People whose names sound like the typed one; in a million, many do."""

LIST_USERS = "UserService/ListUsers"
LIST_TOKENS = "TokenService/ListTokens"


async def find(visit: Visit) -> Response:
    """
    Show the users and tokens with the typed words, and users who sound like them.

    A single match is shown at once: the user, or the user of the token. But Meier on
    the phone may be Mayer, so the person at the desk chooses if there are both.
    """
    visit.require(LIST_USERS)
    query = visit.query.word("q")
    people: Found[UserView] = paging.nothing(SHOWN)
    devices: tuple[TokenView, ...] = ()
    alike: tuple[UserView, ...] = ()
    if query:
        try:
            people = await _people(visit, query)
            devices = await _devices(visit, query)
            alike = await _alike(visit, query, people)
        except EXPLAINED as error:
            visit.add(explain(error, {"search": "find"}))
    only = _only(people, devices)
    if (
        only
        and not alike
        and not visit.problems
        and not visit.request.headers.get("hx-request")
    ):
        return visit.redirect(only)
    return visit.page(
        "find.html", query=query, people=people, devices=devices, alike=alike
    )


async def _people(visit: Visit, query: str) -> Found[UserView]:
    return await visit.read(
        LIST_USERS,
        lambda call, stale_ok: visit.site.services.users.find(
            call, page_size=SHOWN, search=query, stale_ok=stale_ok
        ),
    )


async def _alike(
    visit: Visit, query: str, people: Found[UserView]
) -> tuple[UserView, ...]:
    """Return users who sound like the typed name, unless it names one user exactly."""
    exact = fold(query)
    if any(
        exact in (fold(each.username), fold(each.email), fold(each.display_name))
        for each in people.items
    ):
        return ()
    return await visit.read(
        LIST_USERS,
        lambda call, stale_ok: visit.site.services.users.alike(
            call, search=query, most=ALIKE, stale_ok=stale_ok
        ),
    )


async def _devices(visit: Visit, query: str) -> tuple[TokenView, ...]:
    """Return the tokens whose serial has the typed text."""
    if not visit.may(LIST_TOKENS) or not SERIAL.fullmatch(query):
        return ()
    matches = await visit.read(
        LIST_TOKENS,
        lambda call, stale_ok: visit.site.services.tokens.find(
            call, page_size=SHOWN, search=query, stale_ok=stale_ok
        ),
    )
    typed = query.casefold()
    return tuple(each for each in matches.items if typed in each.serial.casefold())


def _only(people: Found[UserView], devices: tuple[TokenView, ...]) -> str:
    """Return the address of the single match; empty: there are none or several."""
    names = {user.username for user in people.items}
    if len(devices) == 1 and names <= {devices[0].username}:
        (device,) = devices
        if device.username:
            return users.address(device.username)
        return tokens.address(device.serial)
    if not devices and len(people.items) == 1:
        return users.address(people.items[0].username)
    return ""
