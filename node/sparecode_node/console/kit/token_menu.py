# SPDX-License-Identifier: Apache-2.0
"""A token's context menu: the actions that make sense and that the role may do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.domain.pins import PinRule
from sparecode_node.queries.views import TokenView

TURN_OFF = "EmergencyAccessService/DisableEmergencyAccess"
"""Ends emergency access, and can reinstate the token: the help desk may call it."""
AT_HAND = ("reinstate", "turn-off-codes")
"""Actions that have buttons of their own: a caller asks for them."""

May = Callable[[str], bool]


class Link(NamedTuple):
    """An entry of a menu."""

    address: str
    words: str
    destructive: bool = False
    """Below a line, apart from the entries that a wrong click may hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAction:
    """An action on a token, with a page of its own."""

    name: str
    """In the page's address."""
    words: str
    button: str
    done: str
    """The notice on the next page."""
    method: str
    offered: Callable[[TokenView], bool]
    """Whether it makes sense for the token in its present state."""
    destructive: bool = False
    """Whether the user loses something."""


def _is_assigned(token: TokenView) -> bool:
    return bool(token.username)


ACTIONS = (
    TokenAction(
        name="enable",
        words=N_("Enable"),
        button=N_("Enable token"),
        done=N_("The token is enabled."),
        method="TokenService/EnableToken",
        offered=lambda token: not token.enabled,
    ),
    TokenAction(
        name="disable",
        words=N_("Disable"),
        button=N_("Disable token"),
        done=N_("The token is disabled."),
        method="TokenService/DisableToken",
        offered=lambda token: token.enabled,
        destructive=True,
    ),
    TokenAction(
        name="assign",
        words=N_("Assign to User"),
        button=N_("Assign token"),
        done=N_("The token is assigned."),
        method="TokenService/AssignToken",
        offered=lambda token: not token.username,
    ),
    TokenAction(
        name="replace",
        words=N_("Replace With Another Token"),
        button=N_("Replace token"),
        done=N_("This token replaces the earlier one."),
        method="TokenService/ReplaceToken",
        offered=_is_assigned,
        destructive=True,
    ),
    TokenAction(
        name="unassign",
        words=N_("Unassign From User"),
        button=N_("Unassign token"),
        done=N_("The token is unassigned."),
        method="TokenService/UnassignToken",
        offered=_is_assigned,
        destructive=True,
    ),
    TokenAction(
        name="set-pin",
        words=N_("Set PIN"),
        button=N_("Set PIN"),
        done=N_("The PIN is set."),
        method="TokenService/SetPin",
        offered=lambda token: (
            bool(token.username) and token.pin_rule is not PinRule.NONE
        ),
    ),
    TokenAction(
        name="clear-pin",
        words=N_("Clear PIN"),
        button=N_("Clear PIN"),
        done=N_("The PIN is cleared."),
        method="TokenService/ClearPin",
        offered=lambda token: token.pin_set,
        destructive=True,
    ),
    TokenAction(
        name="resynchronize",
        words=N_("Resynchronize"),
        button=N_("Resynchronize token"),
        done=N_("The token is resynchronized."),
        method="TokenService/ResynchronizeToken",
        offered=lambda _: True,
    ),
    TokenAction(
        name="reinstate",
        words=N_("Token Is Back"),
        button=N_("Token is back"),
        done=N_("The token is accepted again."),
        method=TURN_OFF,
        offered=lambda token: token.lost,
    ),
    TokenAction(
        name="turn-off-codes",
        words=N_("Turn Off Codes"),
        button=N_("Turn off codes"),
        done=N_("The emergency codes are void."),
        method=TURN_OFF,
        offered=lambda token: token.live_codes > 0,
        destructive=True,
    ),
    TokenAction(
        name="expiration",
        words=N_("Change Expiration"),
        button=N_("Save"),
        done=N_("The expiration is changed."),
        method="TokenService/UpdateToken",
        offered=lambda _: True,
    ),
    TokenAction(
        name="delete",
        words=N_("Delete"),
        button=N_("Delete token"),
        done=N_("The token is deleted."),
        method="TokenService/DeleteToken",
        offered=lambda _: True,
        destructive=True,
    ),
)


def action_links(token: TokenView, may: May) -> list[Link]:
    """
    Return links to the actions that make sense now and that the role may do.

    Those by which the user loses something come last.
    """
    return [
        Link(
            f"/tokens/{quote(token.serial)}/{action.name}",
            _(action.words),
            action.destructive,
        )
        for action in sorted(ACTIONS, key=lambda action: action.destructive)
        if may(action.method) and action.offered(token)
    ]


def links_at_hand(token: TokenView, may: May) -> list[Link]:
    """Return links to the actions that a caller asks for, in the words of buttons."""
    return [
        Link(f"/tokens/{quote(token.serial)}/{action.name}", _(action.button))
        for action in ACTIONS
        if action.name in AT_HAND and may(action.method) and action.offered(token)
    ]


def token_links(token: TokenView, may: May) -> list[Link]:
    """Return a token's context menu, the most common action first."""
    address = f"/tokens/{quote(token.serial)}"
    links = []
    if may("EmergencyAccessService/GetEmergencyAccess"):
        links.append(
            Link(f"{address}/emergency-access", _("Emergency Access Tokencodes"))
        )
    if may("TokenService/GetToken"):
        links.append(Link(address, _("View")))
    return links + action_links(token, may)
