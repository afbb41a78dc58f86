# SPDX-License-Identifier: Apache-2.0
"""
Codes by message, as choices of the page of emergency access (I13).

Nothing is generated beforehand: *Save* issues the codes and mails their link, and the
administrator does not see them.
"""

from dataclasses import dataclass
from typing import Final

from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import Problem
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.sealed_codes import MessageObstacle
from sparecode_node.services.emergency.emergency_access import IssuedCodes, SetTerms
from sparecode_node.services.emergency.sealed_messages import MessageChoice

KINDS: Final = {"message": False, "manager": True}
"""The values of the choices, and whether the codes go to the user's manager."""

OBSTACLES: Final = {
    MessageObstacle.POLICY: N_("The policy does not allow it."),
    MessageObstacle.NO_CONSOLE: N_(
        "This node knows no console whose page could show the codes."
    ),
    MessageObstacle.NO_CHANNEL: N_(
        "No channel for mail is enabled that encrypts its connection."
    ),
    MessageObstacle.NO_USER: N_("The token is not assigned."),
    MessageObstacle.NO_PIN: N_(
        "The token has no PIN, so anyone who reads the mail could sign in. Give the codes in person."
    ),
    MessageObstacle.NO_ADDRESS: N_("The user has no address on file."),
    MessageObstacle.NEW_ADDRESS: N_(
        "The user’s address was set or changed within the last 72 hours. Give the codes in person."
    ),
}
OBSTACLES_OF_MANAGER: Final = {
    MessageObstacle.NO_ADDRESS: N_("The user has no manager on file."),
    MessageObstacle.NEW_ADDRESS: N_(
        "The manager’s address was set or changed within the last 72 hours. Give the codes in person."
    ),
}
"""What they say if the codes would go to the user's manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A choice of the form: by message to the user, or to the user's manager."""

    kind: str
    recipient: str
    obstacle: str
    """Why codes cannot go there, in words; empty: they can."""


async def choices(visit: Visit, serial: str, chosen: str) -> tuple[Choice, ...]:
    """
    Return the choices of a token.

    The manager is one of them if the policy allows it, or if the form has it *chosen*.
    """
    found = await visit.site.services.sealed_messages.choices(TokenSerial(serial))
    kinds = {to_manager: kind for kind, to_manager in KINDS.items()}
    return tuple(
        Choice(
            kind=kinds[each.to_manager],
            recipient=each.recipient,
            obstacle=_words(each),
        )
        for each in found
        if not each.to_manager
        or each.obstacle is not MessageObstacle.POLICY
        or chosen == kinds[each.to_manager]
    )


def _words(choice: MessageChoice) -> str:
    if choice.obstacle is None:
        return ""
    own = OBSTACLES_OF_MANAGER if choice.to_manager else {}
    return _(own.get(choice.obstacle, OBSTACLES[choice.obstacle]))


def nothing_shown() -> Problem:
    """Return what to say if codes that go by message were to be generated."""
    return Problem(
        words=_(
            "Codes that go by message are not shown here. Press “Save” to mail them."
        ),
        field="count",
    )


async def issue(
    visit: Visit, serial: str, terms: SetTerms, request_id: str, *, to_manager: bool
) -> IssuedCodes:
    """Issue a set and mail its link."""
    return await visit.site.services.emergency.issue(
        visit.call("EmergencyAccessService/IssueTokencodes", request_id=request_id),
        serial=serial,
        count=visit.form.whole("count", _("the number of tokencodes")),
        terms=terms,
        by_message=True,
        to_manager=to_manager,
    )
