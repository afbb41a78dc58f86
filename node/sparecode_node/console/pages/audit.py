# SPDX-License-Identifier: Apache-2.0
"""The audit log: search, export, and verification of the chain (U)."""

import datetime as dt
import typing
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.rendering import (
    ACTORS,
    action_words,
    agent_name,
    english_words,
)
from sparecode_node.console.kit.visits import READ_S, Visit
from sparecode_node.console.kit.words import EXPLAINED, explain
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.queries.audit import AuditFilter, AuditPage
from sparecode_node.services.access.refusals import NOBODY
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.fields import PAGE_SIZE_MAX
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.statemachine.commands import Command

PAGE_SIZE: Final = 50
CALLS: Final = 20
"""Calls for one page: a million events, and under a second. A link searches further."""

OUTCOMES: Final = {
    "": N_("Any outcome"),
    **{
        outcome: english_words(outcome)
        for outcome in (
            "applied",
            "accepted",
            "refused",
            "next_tokencode_required",
            "new_pin_required",
            "pending",
            "noted",
        )
    },
}

COMMANDS: Final[dict[str, str]] = {
    command.__name__.lower(): command.__name__ for command in typing.get_args(Command)
}
"""Actions by their words in lower case, without spaces."""

TEXTS: Final = (
    *("actor", "action", "target", "outcome", "reason"),
    "authentication_id",
)
DATES: Final = ("start", "end")

FIELDS: Final = {
    **{f"filter.{name}": name for name in TEXTS},
    "filter.end_time": "end",
    "page_token": "",
}

FILES: Final = {
    ExportFormat.CSV: ("text/csv; charset=utf-8", "csv"),
    ExportFormat.JSON_LINES: ("application/x-ndjson", "jsonl"),
}


async def browse(visit: Visit) -> Response:
    """Show the events that match the filter, newest first."""
    visit.require("AuditService/ListAuditEvents")
    results = AuditPage(items=(), next_page_token="")
    try:
        criteria = await _filter(visit)
        async for page in _search(visit, criteria):
            results = replace(page, items=(*results.items, *page.items))
    except EXPLAINED as error:
        # What was found before stays on the page.
        visit.add(explain(error, FIELDS))
    filters = {name: visit.query.word(name) for name in (*TEXTS, *DATES)}
    return visit.page(
        "audit.html",
        results=results,
        is_full=len(results.items) == PAGE_SIZE,
        filters=filters,
        outcomes=OUTCOMES,
        actions=sorted(COMMANDS.values()),
        query=urlencode({name: value for name, value in filters.items() if value}),
        filtered=any(filters.values()),
    )


async def _search(visit: Visit, criteria: AuditFilter) -> AsyncIterator[AuditPage]:
    """Return what some calls find, up to a full page; each looks at some of the log."""
    missing, after = PAGE_SIZE, visit.query.word("page")
    for _call in range(CALLS):
        page = await visit.read(
            "AuditService/ListAuditEvents",
            lambda call, stale_ok: visit.site.services.audit.list(
                call,
                criteria=criteria,
                page_size=missing,  # noqa: B023 - It is called before it changes.
                page_token=after,  # noqa: B023
                stale_ok=stale_ok,
            ),
        )
        yield page
        missing, after = missing - len(page.items), page.next_page_token
        if not missing or not after:
            break


async def verify(visit: Visit) -> Response:
    """Verify the chain of this node's log and show the result."""
    verdict = await visit.read(
        "AuditService/VerifyChain",
        lambda call, stale_ok: visit.site.services.audit.verify_chain(
            call, stale_ok=stale_ok
        ),
    )
    return visit.page("audit_verified.html", verdict=verdict)


async def export(visit: Visit) -> Response:
    """Return the events that match the filter as a file."""
    try:
        form = ExportFormat(visit.query.word("format", ExportFormat.CSV.value))
    except ValueError:
        raise InvalidFieldError("format", _("must be csv or json_lines")) from None
    pieces = await visit.site.services.audit.export(
        visit.call("AuditService/ExportAuditEvents", within_s=READ_S),
        form=form,
        criteria=await _filter(visit),
        stale_ok=not visit.site.is_ready(),
    )
    kind, ending = FILES[form]

    async def content() -> AsyncIterator[bytes]:
        async with aclosing(pieces) as read:  # type: ignore[type-var]
            async for piece in read:
                yield piece.value.content

    return StreamingResponse(
        content(),
        media_type=kind,
        headers={"content-disposition": f'attachment; filename="audit.{ending}"'},
    )


async def _filter(visit: Visit) -> AuditFilter:
    """Return the filter from the address. Raises `InvalidFieldError`."""
    query = visit.query
    end_ms = _day_ms(visit, "end")
    return AuditFilter(
        start_ms=_day_ms(visit, "start"),
        end_ms=None if end_ms is None else end_ms + DAY_MS,
        actor=await _actor(visit, query.word("actor")),
        action=_action(query.word("action")),
        target=query.word("target"),
        outcome=query.word("outcome"),
        reason=_reason(query.word("reason")),
        authentication_id=query.word("authentication_id").lower(),
    )


async def _actor(visit: Visit, typed: str) -> str:
    """Return an actor as the log names it: “agent vpn”; a person is only named."""
    if not typed or ":" in typed or typed == NOBODY:
        return typed
    for kind, words in ACTORS.items():
        begin = _(words, name="")
        if typed.startswith(begin):
            name = typed.removeprefix(begin)
            return f"{kind}:{await _identity(visit, name) if kind == 'agent' else name}"
    return f"administrator:{typed}"


async def _identity(visit: Visit, name: str) -> str:
    """Return the identity of the agent whose address ends with a name."""
    if visit.may("AgentService/ListAgents"):
        after = ""
        while True:
            agents = await visit.read(
                "AgentService/ListAgents",
                lambda call, stale_ok: visit.site.services.agents.list(
                    call,
                    page_size=PAGE_SIZE_MAX,
                    page_token=after,  # noqa: B023 - It is called before it changes.
                    stale_ok=stale_ok,
                ),
            )
            for each in agents.items:
                if agent_name(each.identity) == name:
                    return each.identity
            after = agents.next_page_token
            if not after:
                break
    return name


def _action(typed: str) -> str:
    """Return an action as the log names it: “Unlock user” is `UnlockUser`."""
    for name in COMMANDS.values():
        if action_words(name).casefold() == typed.casefold():
            return name
    words = typed.split()
    # An event that is not a command has another form: “Set low” is `SET_LOW`.
    return COMMANDS.get("".join(words).lower()) or "_".join(words).upper()


def _reason(typed: str) -> str:
    """Return a reason as the log names it: “Token expired” is `token_expired`."""
    for reason in Reason:
        if action_words(reason.value).casefold() == typed.casefold():
            return reason.value
    return "_".join(typed.lower().split())


def _day_ms(visit: Visit, name: str) -> int | None:
    """Return the start of a day in UTC, as all times of the log."""
    typed = visit.query.word(name)
    if not typed:
        return None
    try:
        day = dt.date.fromisoformat(typed)
    except ValueError:
        raise InvalidFieldError(
            name, _("“%(typed)s” is not a date; enter it as 2026-12-31", typed=typed)
        ) from None
    begins = dt.datetime.combine(day, dt.time(), dt.UTC)
    return round(begins.timestamp() * 1000)
