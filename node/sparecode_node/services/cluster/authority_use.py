# SPDX-License-Identifier: Apache-2.0
"""Whether every member uses the successors of authorities that are due (P6a)."""

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries import authorities, membership
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import MemberStatus, Replicator
from sparecode_node.services.errors import Refused, refusal

STATUS_S = 2.0


async def trusted_successor(
    replicator: Replicator, state: LocalState, *, timeout_s: float
) -> str:
    """
    Return the fingerprint of the members' newest authority, which all members trust.

    A certificate of an authority that one member does not trust would cut its owner off.
    Raises `Refused` (`AUTHORITY_MISSING`, `MEMBER_NOT_READY`).
    """
    members = {member.node_id for member in replicator.members()}
    async with state.transaction() as transaction:
        successors = await authorities.successors(transaction)
    statuses = await _statuses(replicator, members, timeout_s)
    made = [
        each
        for each in successors
        if each.authority is AuthorityKind.MEMBERS and each.node_id in members
    ]
    if not made:
        raise refusal(
            Rejected(
                Reason.AUTHORITY_MISSING,
                "the members' authority has no successor: see sparecode cluster status",
            )
        )
    for each in made:
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


async def used_successors(
    replicator: Replicator, state: LocalState, removed: NodeId, *, timeout_s: float
) -> tuple[str, ...]:
    """
    Return the fingerprints of the successors that all members use.

    They are those of what is due because of *removed*.

    Every member must answer, trust them, and show no certificate of an authority that is
    due. Raises `Refused` (`MEMBER_NOT_READY`) and names a member that is not there yet.
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
        successors = await authorities.successors(transaction)
        nodes = await membership.nodes(transaction)
    statuses = await _statuses(replicator, members, timeout_s)
    if joining := {each.node_id for each in nodes if not each.removed} - members:
        raise _not_ready(f"{min(joining)} is about to join: wait until it is a member")
    used = []
    for key in sorted(due, key=str):
        trusted = [
            each.fingerprint
            for each in successors
            if each.replaced == key
            and each.node_id in members
            and all(each.key in status.authorities for status in statuses)
        ]
        if not trusted:
            raise _not_ready(
                f"there is no successor of the authority for {key} that every member "
                "trusts: see sparecode cluster status"
            )
        used.append(trusted[0])
        for status in statuses:
            _check_shown(status, key)
    return tuple(used)


def _check_shown(status: MemberStatus, due: AuthorityKey) -> None:
    """Refuse a member whose certificate would be refused by the others."""
    if due.authority is not AuthorityKind.MEMBERS:
        return
    if not status.shown_authorities or due.fingerprint in status.shown_authorities:
        raise _not_ready(
            f"{status.node_id} shows a certificate of the authority that is due: run "
            "there: sparecode-node renew-certificate --new-authority"
        )


def _not_ready(words: str) -> Refused:
    return refusal(Rejected(Reason.MEMBER_NOT_READY, words))
