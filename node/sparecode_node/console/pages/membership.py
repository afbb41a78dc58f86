# SPDX-License-Identifier: Apache-2.0
"""Adding and removing members, and transferring the primary role."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.responses import PlainTextResponse, Response

from sparecode_node.console.kit.changes import attempt, change, redirect_with_notice
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.notices import Notice
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import Problem
from sparecode_node.console.pages.cluster import listed, status_of
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.services.cluster.membership_commands import Removal
from sparecode_node.services.cluster.status import ClusterStatus
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import ApprovalNeededError, Refused
from sparecode_node.services.secrets.tickets import JoinTicket
from sparecode_node.statemachine.results import Applied

TICKET: Final = "ClusterService/CreateJoinTicket"
ADD: Final = "ClusterService/AddMember"
KEEP: Final = "ClusterService/KeepAuthorities"
REPLACE: Final = "ClusterService/ReplaceAuthorities"
REMOVE: Final = "ClusterService/RemoveMember"
TRANSFER: Final = "ClusterService/TransferPrimary"

REMOVE_S: Final = 30.0
"""The primary hands over before it leaves, and the rest must be in contact."""

FIELDS: Final = {"": "node_id"}
"""A refusal without a field concerns the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingCluster:
    """The cluster without one of its members."""

    votes: int
    in_contact: int
    """Of the remaining voters."""

    @property
    def quorum(self) -> int:
        """How many voters must be in contact."""
        return self.votes // 2 + 1

    @property
    def spare(self) -> int:
        """How many voters may be down at a time."""
        return self.votes - self.quorum


async def create_ticket(visit: Visit) -> Response:
    """Make a ticket for one node to join, and show it once (P5)."""
    visit.require(TICKET)
    ticket: JoinTicket | None = None
    if visit.is_form:
        ticket = await _ticket(visit)
        if ticket is not None:
            # The page's buttons use the same request id, so they return the same ticket.
            visit.keep_request_id()
    text = visit.site.ticket_text(ticket) if ticket else ""
    if ticket and visit.form.text("action") == "download":
        return PlainTextResponse(
            text + "\n",
            headers={
                "content-disposition": f'attachment; filename="{ticket.node_id}.ticket"'
            },
        )
    return visit.page("ticket.html", ticket=ticket, text=text)


async def _ticket(visit: Visit) -> JoinTicket | None:
    """Return the requested ticket, or None: then the visit has the problem."""
    form = visit.form
    try:
        return await attempt(
            visit,
            TICKET,
            lambda call: visit.site.services.membership.create_join_ticket(
                call,
                node_id=form.text("node_id"),
                address=form.text("address"),
                hosts=form.text("hosts").replace(",", " ").split(),
                with_authority=visit.ticked("with_authority"),
            ),
            fields=FIELDS,
        )
    except ApprovalNeededError as error:
        visit.add(
            Problem(
                words=_(
                    "Another super administrator must approve this ticket (approval %(approval_id)s). Make the same ticket again after the approval.",
                    approval_id=error.approval_id,
                ),
                status=409,
            )
        )
        return None


async def add(visit: Visit) -> Response:
    """Add a node without a ticket."""
    visit.require(ADD)
    if visit.is_form:
        node_id = visit.form.text("node_id")

        async def make(call: CallContext) -> Applied:
            return Applied(
                index=await visit.site.services.membership.add_member(
                    call, node_id=node_id, address=visit.form.text("address")
                )
            )

        answer = await change(
            visit,
            ADD,
            make,
            to="/cluster",
            words=_(
                "%(node_id)s is admitted. Start it with this cluster’s key ring: it catches up and then votes.",
                node_id=node_id,
            ),
            fields=FIELDS,
        )
        if answer is not None:
            return answer
    return visit.page("member_new.html")


async def remove(visit: Visit) -> Response:
    """Show the cluster without a member; remove the member permanently."""
    visit.require(REMOVE)
    node_id = NodeId(visit.request.path_params["node_id"])
    if visit.is_form and visit.form.text("confirm") != node_id:
        words = _("Type %(node_id)s to confirm that it leaves.", node_id=node_id)
        visit.add(Problem(words=words, field="confirm"))
    elif visit.is_form:
        removal = await attempt(
            visit,
            REMOVE,
            lambda call: visit.site.services.membership.remove_member(
                call, node_id=node_id, rotate_keys=visit.ticked("rotate_keys")
            ),
            within_s=REMOVE_S,
        )
        if removal is not None:
            return _after_removal(visit, node_id, removal)
    status = await status_of(visit)
    leaving = next(
        (each for each in await listed(visit) if each.node_id == node_id), None
    )
    if leaving is None:
        raise Refused(Rejected(Reason.MEMBER_UNKNOWN, f"there is no member {node_id}"))
    return visit.page(
        "member_remove.html",
        leaving=leaving,
        leads=status.primary == node_id,
        after=remaining_cluster(status, node_id),
    )


async def keep_authorities(visit: Visit) -> Response:
    """Ask why authorities stay that a removed member has had, and record it (P6a)."""
    visit.require(KEEP)
    node_id = NodeId(visit.request.path_params["node_id"])
    if visit.is_form:
        answer = await change(
            visit,
            KEEP,
            lambda call: visit.site.services.membership.keep_authorities(
                call, node_id=node_id, reason=visit.form.text("reason")
            ),
            to="/cluster",
            words=_(
                "The authorities stay whose keys %(node_id)s has had.", node_id=node_id
            ),
            fields={"node_id": "reason"},
        )
        if answer is not None:
            return answer
    return visit.page("authorities_keep.html", node_id=node_id)


async def replace_authorities(visit: Visit) -> Response:
    """Start to replace authorities that are due, or finish it (P6a)."""
    visit.require(REPLACE)
    node_id = NodeId(visit.request.path_params["node_id"])
    finish = visit.ticked("finish")
    if visit.is_form:
        words = (
            f"The authorities whose keys {node_id} has had are trusted no longer."
            if finish
            else f"The authorities whose keys {node_id} has had get successors."
        )
        answer = await change(
            visit,
            REPLACE,
            lambda call: visit.site.services.membership.replace_authorities(
                call, node_id=node_id, finish=finish
            ),
            to="/cluster",
            words=words,
            fields={"node_id": "finish"},
        )
        if answer is not None:
            return answer
    return visit.page("authorities_replace.html", node_id=node_id, finish=finish)


async def transfer_primary(visit: Visit) -> Response:
    """Transfer the primary role; a member's own page suggests that member."""
    visit.require(TRANSFER)
    if visit.is_form:
        target = visit.form.text("target")
        leads = await attempt(
            visit,
            TRANSFER,
            lambda call: visit.site.services.membership.transfer_primary(
                call, target=target
            ),
            fields={"": "target"},
        )
        if leads is not None:
            words = _("%(leads)s is the primary now.", leads=leads)
            return redirect_with_notice(visit, "/cluster", Notice(words=words))
    return visit.page(
        "primary.html",
        cluster=await status_of(visit),
        target=visit.request.path_params.get("node_id", ""),
    )


def address(node_id: str) -> str:
    """Return the address of the page that removes a member."""
    return f"/cluster/members/{quote(node_id, safe='')}/remove"


def remaining_cluster(status: ClusterStatus, leaving: NodeId) -> RemainingCluster:
    """Return the cluster after a member has left."""
    voters = [each for each in status.members if each.votes and each.node_id != leaving]
    return RemainingCluster(
        votes=len(voters), in_contact=sum(each.reachable for each in voters)
    )


def _after_removal(visit: Visit, node_id: NodeId, removal: Removal) -> Response:
    wipe = _("Stop it and wipe its disk: it still holds the key ring and the state.")
    if removal.new_key_id is not None:
        wipe += " " + _(
            "Key %(new_key_id)s is active, and replaces the key that it has had.",
            new_key_id=removal.new_key_id,
        )
    elif removal.rotation_problem:
        wipe += " " + _(
            "The ring’s key was not replaced: %(rotation_problem)s.",
            rotation_problem=removal.rotation_problem,
        )
    if removal.due_authorities:
        wipe += " " + _(
            "It has had the keys of the authorities for %(names)s: replace these "
            "(docs/runbooks/new-authority.md).",
            names=", ".join(removal.due_authorities),
        )
    if node_id != visit.site.node_id:
        notice = Notice(
            words=_("%(node_id)s is no longer a member.", node_id=node_id) + " " + wipe
        )
        return redirect_with_notice(visit, "/cluster", notice)
    # This page was served by the removed node, which decides nothing anymore.
    return visit.page(
        "problem.html",
        status=200,
        title=_("%(node_id)s is no longer a member", node_id=node_id),
        words=wipe
        + " "
        + _("It served this page: continue on another node’s console."),
    )
