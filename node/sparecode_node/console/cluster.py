# SPDX-License-Identifier: Apache-2.0
"""The cluster: its members, who leads, who lags."""

from dataclasses import dataclass

from starlette.responses import Response

from sparecode_node.console.changes import go_on
from sparecode_node.console.notices import Notice
from sparecode_node.console.review import if_not_open
from sparecode_node.console.visits import READ_S, Visit
from sparecode_node.console.words import EXPLAINED, explain
from sparecode_node.services.cluster import ClusterStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The cluster in one line."""

    words: str
    good: bool


async def show(visit: Visit) -> Response:
    """Show the members; have another one lead."""
    if visit.is_form:
        answer = await _transfer(visit)
        if answer is not None:
            return answer
    status = await status_of(visit)
    return visit.page(
        "cluster.html",
        cluster=status,
        health=health(status),
        review=await if_not_open(visit),
    )


async def status_of(visit: Visit) -> ClusterStatus:
    """Return what this node sees of the members; it needs no quorum."""
    return await visit.site.services.cluster.status(
        visit.call("ClusterService/GetStatus", within_s=READ_S)
    )


def health(status: ClusterStatus) -> Health:
    """Say in words how the cluster is."""
    members = len(status.members)
    there = sum(member.reachable for member in status.members)
    if not status.quorum:
        return Health(words=f"No quorum: {there} of {members} nodes", good=False)
    if status.primary is None:
        return Health(words="No primary: the nodes are choosing one", good=False)
    if there < members:
        return Health(words=f"{members - there} of {members} nodes down", good=False)
    return Health(words="All nodes in contact", good=True)


async def _transfer(visit: Visit) -> Response | None:
    method = "ClusterService/TransferPrimary"
    visit.must(method)
    try:
        leads = await visit.site.services.cluster_changes.transfer_primary(
            visit.call(method, request_id=visit.typed_request_id()),
            target=visit.form.text("target"),
        )
    except EXPLAINED as error:
        visit.add(explain(error, {"target": ""}))
        return None
    return go_on(visit, "/cluster", Notice(words=f"{leads} is the primary now."))
