# SPDX-License-Identifier: Apache-2.0
"""One action on several users, chosen on a page of the list; a result for each."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import Committed, redirect_with_notice
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, advised, explain
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import ApprovalNeededError

MOST: Final = 100
"""Users of one form; a page of the list has fewer."""

_Make = Callable[[Visit, CallContext, str], Awaitable[Committed]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What can be done to several users at once."""

    name: str
    method: str
    label: str
    """The words of its button."""
    means: str
    """What it does, before it is done."""
    done: str
    """What it has done to one user."""
    make: _Make
    is_danger: bool = False


async def _unlock(visit: Visit, call: CallContext, username: str) -> Committed:
    return await visit.site.services.users.unlock(call, username=username)


async def _disable(visit: Visit, call: CallContext, username: str) -> Committed:
    return await visit.site.services.users.update(
        call, username=username, enabled=False
    )


async def _enable(visit: Visit, call: CallContext, username: str) -> Committed:
    return await visit.site.services.users.update(call, username=username, enabled=True)


ACTIONS: Final = {
    each.name: each
    for each in (
        Action(
            name="unlock",
            method="UserService/UnlockUser",
            label=N_("Unlock"),
            means=N_("Their counts of wrong passcodes become 0, and every wait ends."),
            done=N_("Unlocked"),
            make=_unlock,
        ),
        Action(
            name="enable",
            method="UserService/UpdateUser",
            label=N_("Enable"),
            means=N_(
                "They can sign in again, with the tokens and codes that are valid."
            ),
            done=N_("Enabled"),
            make=_enable,
        ),
        Action(
            name="disable",
            method="UserService/UpdateUser",
            label=N_("Disable"),
            means=N_("They are refused on every node at once, with tokens and codes."),
            done=N_("Disabled"),
            make=_disable,
            is_danger=True,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one user."""

    username: str
    words: str
    mark: str
    """Color of the result: good, warn or bad."""


def offered(visit: Visit) -> list[Action]:
    """Return the actions that the role may do."""
    return [each for each in ACTIONS.values() if visit.may(each.method)]


async def act(visit: Visit) -> Response:
    """Ask whether to do it to all chosen users, then do it to each."""
    action = ACTIONS.get(visit.form.text("action"))
    names = list(dict.fromkeys(visit.form.all("user")))[:MOST]
    if action is None or not names:
        notice = Notice(words=_("Choose users in the list first."), waiting=True)
        return redirect_with_notice(visit, "/users", notice)
    visit.require(action.method)
    results: list[Result] = []
    if visit.form.flag("sure"):
        results = [await _do(visit, action, name) for name in names]
    return visit.page(
        "selection.html",
        action=action,
        names=names,
        results=results,
        unknown=any(each.mark == "warn" for each in results),
    )


async def _do(visit: Visit, action: Action, username: str) -> Result:
    """Do it to one user. Each has a request id of its own: nothing is done twice (Q1)."""
    form = uuid.UUID(visit.submitted_request_id())
    call = visit.call(action.method, request_id=str(uuid.uuid5(form, username)))
    try:
        await action.make(visit, call, username)
    except ApprovalNeededError as error:
        return Result(
            username=username,
            words=_(
                "Another super administrator must approve it (approval %(approval_id)s).",
                approval_id=error.approval_id,
            ),
            mark="wait",
        )
    except OutcomeUnknownError as error:
        visit.keep_request_id()
        return Result(username=username, words=explain(error).words, mark="warn")
    except EXPLAINED as error:
        words = advised(explain(error), visit.may).words
        return Result(username=username, words=words, mark="bad")
    return Result(username=username, words=_(action.done), mark="good")
