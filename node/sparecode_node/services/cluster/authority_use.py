# SPDX-License-Identifier: Apache-2.0
"""Whether every member uses the successors of authorities that are due (P6a)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries import authorities, membership
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import MemberStatus, Replicator
from sparecode_node.services.errors import Refused, refusal

STATUS_S = 2.0


def in_use(
    accepted: Sequence[Successor], replaced: AuthorityKey, members: Collection[NodeId]
) -> Successor | None:
    """
    Return the successor of an authority that members take certificates of.

    *accepted*: those whose proof this node has checked, the earliest first. It is the
    first one whose maker is still a member.
    """
    for each in accepted:
        if each.replaced == replaced and each.node_id in members:
            return each
    return None


async def trusted_successor(
    replicator: Replicator, accepted: Sequence[Successor], *, timeout_s: float
) -> str:
    """
    Return the fingerprint of the successor of the members' authority that signs.

    *accepted*: those whose proof this node has checked. A certificate of an authority
    that one member does not trust would cut its owner off. Raises `Refused`
    (`AUTHORITY_MISSING`, `MEMBER_NOT_READY`).
    """
    members = {member.node_id for member in replicator.members()}
    waiting = [
        each
        for each in accepted
        # One that is alone already signs without being asked.
        if each.authority is AuthorityKind.MEMBERS and not each.sole
    ]
    made = [each for each in waiting if in_use(waiting, each.replaced, members) is each]
    if not made:
        raise refusal(
            Rejected(
                Reason.AUTHORITY_MISSING,
                "the members' authority has no successor: see sparecode cluster status",
            )
        )
    statuses = await _statuses(replicator, members, timeout_s)
    for each in reversed(made):  # One may replace another one that is due, too.
        if all(each.key in status.authorities for status in statuses):
            return each.fingerprint
    raise _not_ready(
        "not every member trusts the new authority yet: see sparecode cluster status"
    )


async def _statuses(
    replicator: Replicator, members: set[NodeId], timeout_s: float
) -> tuple[MemberStatus, ...]:
    """Return the statuses of all members. Refuses if one does not answer."""
    statuses = await replicator.status(digest=False, timeout_s=min(STATUS_S, timeout_s))
    told = {each.node_id for each in statuses if each.authorities}
    if silent := members - told:
        raise _not_ready(f"{min(silent)} does not answer, so it may use the old ones")
    return tuple(each for each in statuses if each.node_id in members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What ends the trust in authorities that are due: the rest of the command."""

    successors: tuple[str, ...]
    """The names of the successors that all members use."""
    nodes: tuple[NodeId, ...]
    """The nodes that were asked: all that are admitted."""


async def use_of_successors(
    replicator: Replicator,
    state: LocalState,
    accepted: Sequence[Successor],
    removed: NodeId,
    *,
    timeout_s: float,
) -> Use:
    """
    Return the successors, in use by all members, of what is due because of *removed*.

    *accepted*: those whose proof this node has checked. Every member must answer, trust
    them, and show no certificate that would be refused afterwards. Raises `Refused`
    (`MEMBER_NOT_READY`) and names a member that is not there yet.
    """
    members = {member.node_id for member in replicator.members()}
    async with state.transaction() as transaction:
        due = {
            AuthorityKey(
                authority=AuthorityKind(each.authority), fingerprint=each.fingerprint
            )
            for each in await authorities.due(transaction)
            if each.node_id == removed
        }
        nodes = await membership.nodes(transaction)
    statuses = await _statuses(replicator, members, timeout_s)
    admitted = {each.node_id for each in nodes if not each.removed}
    if joining := admitted - members:
        raise _not_ready(f"{min(joining)} is about to join: wait until it is a member")
    chosen = []
    for key in sorted(due, key=str):
        successor = in_use(accepted, key, members)
        if successor is None or not all(
            successor.key in status.authorities for status in statuses
        ):
            raise _not_ready(
                f"there is no successor of the authority for {key} that every member "
                "trusts: see sparecode cluster status"
            )
        chosen.append(successor.name)
        if key.authority is AuthorityKind.MEMBERS:
            ended = _ended(accepted, key, successor)
            for status in statuses:
                _check_shown(status, ended)
    return Use(successors=tuple(chosen), nodes=tuple(sorted(admitted)))


async def check_unused(
    replicator: Replicator, state: LocalState, removed: NodeId, *, timeout_s: float
) -> None:
    """
    Check that the successors of what is due because of *removed* may end.

    A member with a certificate of one would be refused by the others. Raises `Refused`
    (`MEMBER_NOT_READY`) if one shows it, or does not answer.
    """
    members = {member.node_id for member in replicator.members()}
    async with state.transaction() as transaction:
        due = {
            each.fingerprint
            for each in await authorities.due(transaction)
            if each.node_id == removed
        }
        pending = {
            each.fingerprint
            for each in await authorities.successors(transaction)
            if each.replaces in due and not each.sole
        }
    if not pending:
        return
    for status in await _statuses(replicator, members, timeout_s):
        if pending.intersection(status.shown_authorities):
            raise _not_ready(
                f"{status.node_id} shows a certificate of the successor: run there: "
                "sparecode-node renew-certificate, without --new-authority; or finish "
                "the replacement"
            )


def _ended(
    accepted: Sequence[Successor], due: AuthorityKey, chosen: Successor
) -> frozenset[str]:
    """
    Return the fingerprints of what is trusted no longer once *chosen* is alone.

    Those are the authority that is due, its other successors, and theirs.
    """
    ended = {due.fingerprint}
    while True:
        more = {
            each.fingerprint
            for each in accepted
            if each.authority is due.authority
            and each.replaces in ended
            and each.fingerprint != chosen.fingerprint
        }
        if more <= ended:
            return frozenset(ended)
        ended |= more


def _check_shown(status: MemberStatus, ended: frozenset[str]) -> None:
    """Refuse a member whose certificate would be refused by the others."""
    if not status.shown_authorities or ended.intersection(status.shown_authorities):
        raise _not_ready(
            f"{status.node_id} shows a certificate of an authority that ends: run there: "
            "sparecode-node renew-certificate --new-authority"
        )


def _not_ready(words: str) -> Refused:
    return refusal(Rejected(Reason.MEMBER_NOT_READY, words))
