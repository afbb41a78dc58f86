# SPDX-License-Identifier: Apache-2.0
"""Emergency codes for several users, chosen in the list; their codes, and a sheet each."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.changes import redirect_with_notice
from sparecode_node.console.kit.languages import gettext
from sparecode_node.console.kit.lifetime import suggested_end
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.recovery import RECOVERY
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, Problem, explain, sentence
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.queries.views import TokenView
from sparecode_node.services.emergency.bulk_issue import BulkResult, BulkRow
from sparecode_node.services.emergency.issuing import Lifetime, SetTerms
from sparecode_node.services.errors import ApprovalNeededError, InvalidFieldError
from sparecode_node.services.fields import PAGE_SIZE_MAX

ISSUE: Final = "EmergencyAccessService/BulkIssueTokencodes"
MOST: Final = 50
"""Users of one form; a page of the list has fewer."""
ISSUE_S: Final = 120.0
_FIELDS: Final = {
    "lifetime": "expires",
    "lifetime.end_time": "expires",
    "rows": "serial",
    "recovery_policy": "recovery",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One chosen user, with the tokens that codes can be issued for."""

    username: str
    tokens: tuple[TokenView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The result for one token."""

    token: TokenView
    result: BulkResult | None
    """None: not decided yet."""
    problem: str = ""

    @property
    def codes_cannot_be_shown(self) -> bool:
        """Whether an earlier call has committed them: they were shown then (I9)."""
        return self.result is not None and self.result.withheld


async def issue(visit: Visit) -> Response:
    """Show the form for the chosen users, and issue codes when it is sent."""
    visit.require(ISSUE)
    names = list(dict.fromkeys(visit.form.all("user")))[:MOST]
    if not names:
        notice = Notice(words=gettext("Choose users in the list first."), waiting=True)
        return redirect_with_notice(visit, "/users", notice)
    chosen = [await _chosen(visit, name) for name in names]
    rows: list[Row] = []
    if visit.form.text("action") == "issue":
        try:
            rows = await _issued(visit, chosen)
        except ApprovalNeededError as error:
            words = gettext(
                "Another super administrator must approve that you issue codes for "
                "these tokens (approval %(number)s). Nothing is lost: send the form "
                "again after the approval.",
                number=str(error.approval_id),
            )
            visit.add(Problem(words=words, status=409))
        except EXPLAINED as error:
            visit.add(explain(error, _FIELDS))
    policy = await visit.read(
        "PolicyService/GetPolicy",
        lambda call, stale_ok: visit.site.services.policies.get(
            call, stale_ok=stale_ok
        ),
    )
    return visit.page(
        "bulk_issue.html",
        names=names,
        chosen=chosen,
        serials=visit.form.all("serial"),
        rows=rows,
        undecided=sum(row.result is None for row in rows),
        recoveries=RECOVERY,
        ends=suggested_end(policy, visit.site.clock.now_ms()),
        policy=policy,
    )


async def _chosen(visit: Visit, username: str) -> Chosen:
    tokens = await visit.read(
        "TokenService/ListTokens",
        lambda call, stale_ok: visit.site.services.tokens.list(
            call, username=username, page_size=PAGE_SIZE_MAX, stale_ok=stale_ok
        ),
    )
    return Chosen(username=username, tokens=tokens.items)


async def _issued(visit: Visit, chosen: list[Chosen]) -> list[Row]:
    """
    Issue the codes, and return the result for each chosen token.

    Each row has its own request id: the same form goes on where it stopped, and issues
    no set twice (Q1).
    """
    tokens = {token.serial: token for each in chosen for token in each.tokens}
    wanted = [tokens[each] for each in visit.form.all("serial") if each in tokens]
    if not wanted:
        raise InvalidFieldError("serial", gettext("choose a token"))
    done: list[BulkResult] = []
    count = visit.form.whole("count", gettext("the number of codes"))
    results = await visit.site.services.bulk.issue(
        visit.call(ISSUE, request_id=visit.submitted_request_id(), within_s=ISSUE_S),
        rows=[
            BulkRow(row=number, serial=token.serial, count=None)
            for number, token in enumerate(wanted, start=1)
        ],
        count=count,
        terms=_terms(visit),
    )
    try:
        async with aclosing(results):
            async for result in results:
                done.append(result)  # noqa: PERF401 - those before an error are kept.
    except EXPLAINED as error:
        if not done:
            raise
        visit.add(explain(error, _FIELDS))
    problems = {each.problem for each in done}
    if len(done) == len(wanted) and len(problems) == 1 and all(problems):
        # The same for every token, such as a date in the past: the form is shown again.
        visit.add(Problem(words=sentence(problems.pop())))
        return []
    if len(done) < len(wanted):
        visit.keep_request_id()
    decided = {each.serial: each for each in done}
    return [
        Row(
            token=token,
            result=result,
            problem=sentence(result.problem) if result else "",
        )
        for token in wanted
        for result in [decided.get(token.serial)]
    ]


def _terms(visit: Visit) -> SetTerms:
    """Return the terms of the form. Raises `InvalidFieldError`."""
    try:
        recovery = RecoveryPolicy(visit.form.text("recovery"))
    except ValueError:
        raise InvalidFieldError(
            "recovery", gettext("choose what happens if the token becomes available")
        ) from None
    ends_at_ms = None
    if visit.form.text("lifetime") != "never":
        ends_at_ms = visit.form.moment_ms("expires")
    return SetTerms(lifetime=Lifetime(ends_at_ms=ends_at_ms), recovery=recovery)
