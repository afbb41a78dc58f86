# SPDX-License-Identifier: Apache-2.0
"""The members of the cluster: roles, lag, contact."""

from dataclasses import dataclass

from starlette.responses import Response

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.visits import READ_S, Visit
from sparecode_node.console.pages.review import if_not_open
from sparecode_node.services.cluster.status import ClusterStatus, ListedMember


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of the cluster in one line."""

    words: str
    good: bool


async def show(visit: Visit) -> Response:
    """Show the members and the admitted nodes."""
    status = await status_of(visit)
    return visit.page(
        "cluster.html",
        cluster=status,
        listed={each.node_id: each for each in await listed(visit)},
        health=health(status),
        review=await if_not_open(visit),
    )


async def listed(visit: Visit) -> tuple[ListedMember, ...]:
    """Return the members and the admitted nodes, as far as this node knows."""
    return await visit.site.services.cluster.members(
        visit.call("ClusterService/ListMembers", within_s=READ_S), stale_ok=True
    )


async def status_of(visit: Visit) -> ClusterStatus:
    """Return the status of the members as this node sees it; needs no quorum."""
    return await visit.site.services.cluster.status(
        visit.call("ClusterService/GetStatus", within_s=READ_S)
    )


def health(status: ClusterStatus) -> Health:
    """Return the state of the cluster in words."""
    members = len(status.members)
    reachable = sum(member.reachable for member in status.members)
    if not status.quorum:
        return Health(
            words=_(
                "No quorum: %(reachable)s of %(members)s nodes",
                reachable=reachable,
                members=members,
            ),
            good=False,
        )
    if status.primary is None:
        return Health(words=_("No primary: the nodes are electing one"), good=False)
    if reachable < members:
        return Health(
            words=_(
                "%(down)s of %(members)s nodes down",
                down=members - reachable,
                members=members,
            ),
            good=False,
        )
    return Health(words=_("All nodes in contact"), good=True)
