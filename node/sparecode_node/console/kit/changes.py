# SPDX-License-Identifier: Apache-2.0
"""
A change that a form asks for, and what becomes of it.

Done, the browser is sent on by GET, so that loading again sends nothing twice.
Refused, the same page says why, with everything that was typed.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from starlette.responses import Response

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


class Committed(Protocol):
    """What a change has come to."""

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
    Do what a form asks for; None: it was refused, and the visit holds why.

    *fields*: what the page calls the fields of the request. Raises what is about
    the session and the role, and not about the form; and `ApprovalNeededError`.
    """
    try:
        return await make(
            visit.call(method, request_id=visit.typed_request_id(), within_s=within_s)
        )
    except (ApprovalNeededError, NotSignedInError, NotPermittedError):
        raise
    except OutcomeUnknownError as error:
        # The same id again, with the same content, tells what came of it.
        visit.keep_request_id()
        visit.add(explain(error))
    except EXPLAINED as error:
        if isinstance(error, Refused) and (
            error.rejected.reason is Reason.PASSWORD_CHANGE_NEEDED
        ):
            raise
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
    Make a change, and send the browser on to the page *to*, which says *words*.

    None: it was refused, and the page is to be shown again. Raises as `attempt`.
    """
    try:
        made = await attempt(visit, method, make, fields=fields)
    except ApprovalNeededError as error:
        waits = Notice(
            words="Not done yet: it waits for another super administrator, as "
            f"approval {error.approval_id}.",
            waiting=True,
        )
        return go_on(visit, to, waits)
    if made is None:
        return None
    notice = Notice(words=words, node_id=visit.site.node_id, index=made.index)
    return go_on(visit, to, notice)


def go_on(visit: Visit, to: str, notice: Notice) -> Response:
    """Send the browser on, to a page that says *notice* once."""
    response = visit.go(to)
    set_cookie(response, NOTICE_COOKIE, notice.to_cookie())
    return response
