# SPDX-License-Identifier: Apache-2.0
"""Approvals: requests of one administrator, decided by another (P3)."""

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.approval_words import lines_of, target_of
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.queries.views import Page


async def decide(visit: Visit) -> Response:
    """List the waiting approvals; approve or reject one."""
    if visit.is_form:
        answer = await _decide(visit)
        if answer is not None:
            return answer
    results: Page[ApprovalView] = await visit.read(
        "AdministratorService/ListApprovals",
        lambda call, stale_ok: visit.site.services.approvals.list(
            call, page_token=visit.query.word("page"), stale_ok=stale_ok
        ),
    )
    return visit.page(
        "approvals.html", results=results, lines_of=lines_of, target_of=target_of
    )


async def _decide(visit: Visit) -> Response | None:
    approvals = visit.site.services.approvals
    if visit.form.text("action") == "approve":
        return await change(
            visit,
            "AdministratorService/Approve",
            lambda call: approvals.approve(
                call, approval_id=visit.form.whole("approval_id", _("the approval"))
            ),
            to="/approvals",
            words=_("Approved."),
        )
    return await change(
        visit,
        "AdministratorService/Reject",
        lambda call: approvals.reject(
            call, approval_id=visit.form.whole("approval_id", _("the approval"))
        ),
        to="/approvals",
        words=_("Rejected: the change will not be made."),
    )
