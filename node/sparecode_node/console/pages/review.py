# SPDX-License-Identifier: Apache-2.0
"""Review after a restore or recovery, and opening the cluster (E2)."""

from starlette.responses import Response

from sparecode_node.console.kit.changes import change
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import READ_S, Visit
from sparecode_node.console.kit.words import UNAVAILABLE
from sparecode_node.queries.review import Review

METHOD = "ClusterService/GetReview"


async def open_cluster(visit: Visit) -> Response:
    """Show what decides who can sign in; open the cluster as reviewed."""
    if visit.is_form:
        visit.require("ClusterService/OpenCluster")
        answer = await change(
            visit,
            "ClusterService/OpenCluster",
            lambda call: visit.site.services.epoch_review.open(
                call, review=visit.form.text("review")
            ),
            to="/cluster",
            words=_("The cluster is open and serves agents."),
            fields={"review": ""},
        )
        if answer is not None:
            return answer
    state = await visit.site.services.epoch_review.review(
        visit.call(METHOD, within_s=READ_S)
    )
    return visit.page("review.html", review=state.value)


async def if_not_open(visit: Visit) -> Review | None:
    """Return the review that agents wait for, or None."""
    if not visit.may(METHOD) or not visit.site.is_ready():
        return None
    try:
        state = await visit.site.services.epoch_review.review(
            visit.call(METHOD, within_s=READ_S)
        )
    except UNAVAILABLE:
        return None  # The page says that there is no quorum.
    return None if state.value.open else state.value
