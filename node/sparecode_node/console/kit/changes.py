# SPDX-License-Identifier: Apache-2.0
"""
Changes requested by forms, and their outcomes.

After a change the browser is redirected by GET, so a reload does not send the form
again. After a refusal the same page shows the reason and keeps the input.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from starlette.responses import Response

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.security import NOTICE_COOKIE, set_cookie
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import (
    ApprovalNeededError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)

T = TypeVar("T")

PERMITTED = (
    "TokenService/SetPin",
    "TokenService/ReplaceToken",
    "TokenService/ResynchronizeToken",
)
"""Changes that an approval only permits: a PIN or a tokencode cannot wait (I10)."""


class Committed(Protocol):
    """The result of a committed change."""

    @property
    def index(self) -> int:
        """The log index of its commit."""


async def attempt(
    visit: Visit,
    method: str,
    make: Callable[[CallContext], Awaitable[T]],
    *,
    fields: Mapping[str, str] | None = None,
    within_s: float | None = None,
) -> T | None:
    """
    Return the result of a change, or None if it was refused.

    The visit then holds the problem. *fields*: fields of the request and their names
    on the page. Raises errors that concern the session or the role rather than the
    form, and `ApprovalNeededError`.
    """
    try:
        return await make(
            visit.call(
                method, request_id=visit.submitted_request_id(), within_s=within_s
            )
        )
    except (ApprovalNeededError, NotSignedInError, NotPermittedError):
        raise
    except OutcomeUnknownError as error:
        # Sending the same id and content again returns the outcome.
        visit.keep_request_id()
        visit.add(explain(error))
    except EXPLAINED as error:
        if isinstance(error, Refused) and error.rejected.reason in (
            Reason.PASSWORD_CHANGE_NEEDED,
            Reason.REAUTHENTICATION_NEEDED,
            Reason.SECOND_FACTOR_REQUIRED,
        ):
            raise
        if isinstance(error, Refused) and error.rejected.reason is Reason.VERSION:
            visit.is_outdated = True
        visit.add(explain(error, fields))
    return None


async def change(
    visit: Visit,
    method: str,
    make: Callable[[CallContext], Awaitable[Committed]],
    *,
    to: str,
    words: str,
    fields: Mapping[str, str] | None = None,
) -> Response | None:
    """
    Make a change, then redirect to the page *to*, which shows *words* once.

    Return None if the change was refused: show the form again. Raises as `attempt`.
    """
    try:
        made = await attempt(visit, method, make, fields=fields)
    except ApprovalNeededError as error:
        waits = Notice(
            words=_(
                "Not done yet: another super administrator must approve it (approval %(approval_id)s). The page Approvals shows why.",
                approval_id=error.approval_id,
            )
            + f" {_('Make the change again after the approval.')}"
            * (method in PERMITTED),
            waiting=True,
        )
        return redirect_with_notice(visit, to, waits)
    if made is None:
        return None
    notice = Notice(words=words, node_id=visit.site.node_id, index=made.index)
    return redirect_with_notice(visit, to, notice)


def redirect_with_notice(visit: Visit, to: str, notice: Notice) -> Response:
    """Redirect the browser to a page that shows *notice* once."""
    response = visit.redirect(to)
    set_cookie(response, NOTICE_COOKIE, notice.to_cookie())
    return response
