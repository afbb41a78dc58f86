# SPDX-License-Identifier: Apache-2.0
"""
Codes by message, as a choice of the page of emergency access (I13).

Nothing is generated beforehand: *Save* issues the codes and mails their link, and the
administrator does not see them.
"""

from typing import Final

from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import Problem
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.sealed_codes import MessageObstacle
from sparecode_node.services.emergency.emergency_access import IssuedCodes, SetTerms

KIND: Final = "message"
"""The value of the choice."""

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


async def obstacle(visit: Visit, serial: str) -> str:
    """Return why codes of a token cannot go by message, in words; empty: they can."""
    found = await visit.site.services.sealed_messages.obstacle(TokenSerial(serial))
    return _(OBSTACLES[found]) if found else ""


def nothing_shown() -> Problem:
    """Return what to say if codes that go by message were to be generated."""
    return Problem(
        words=_(
            "Codes that go by message are not shown here. Press “Save” to mail them."
        ),
        field="count",
    )


async def issue(
    visit: Visit, serial: str, terms: SetTerms, request_id: str
) -> IssuedCodes:
    """Issue a set and mail its link."""
    return await visit.site.services.emergency.issue(
        visit.call("EmergencyAccessService/IssueTokencodes", request_id=request_id),
        serial=serial,
        count=visit.form.whole("count", _("the number of tokencodes")),
        terms=terms,
        by_message=True,
    )
