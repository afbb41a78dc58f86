# SPDX-License-Identifier: Apache-2.0
"""Membership changes: permitted, recorded, and carried out by replication."""

from dataclasses import replace

import pytest
from cryptography import x509

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.replication.members import Member
from sparecode_node.replication.replicator import Proposal
from sparecode_node.rpc.tickets import NotATicketError, from_text, to_text
from sparecode_node.services.cluster.status import MemberStanding
from sparecode_node.services.context import Anonymous
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.secrets.tickets import door_of
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.membership import NoteAuthorityKeys
from tests.services.one_node import OneNode

pytestmark = pytest.mark.asyncio

TRANSFER = "ClusterService/TransferPrimary"


def last_event(node: OneNode) -> tuple[str, str, str]:
    """Return action, target and outcome of the newest audit event."""
    row: tuple[str, str, str] = node.primary_db.execute(
        "SELECT action, target, outcome FROM audit_events"
        " ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    return row


async def test_a_transfer_is_recorded_and_done(node: OneNode) -> None:
    """(U1)."""
    changes = node.membership
    assert await changes.transfer_primary(node.admin(TRANSFER), target="n2") == "n2"
    assert last_event(node) == ("TransferPrimary", "n2", "applied")
    assert await changes.transfer_primary(node.admin(TRANSFER), target="") == "n3"
    assert last_event(node) == ("TransferPrimary", "", "applied")
    assert node.replicator.transfers == ["n2", None]


async def test_an_impossible_transfer_names_the_reason(node: OneNode) -> None:
    with pytest.raises(Refused) as refused:
        await node.membership.transfer_primary(node.admin(TRANSFER), target="n9")
    assert refused.value.rejected.reason is Reason.MEMBER_UNKNOWN
    with pytest.raises(InvalidFieldError, match="target"):
        await node.membership.transfer_primary(node.admin(TRANSFER), target="N 9")


# --- Members that come and go


REMOVE = "ClusterService/RemoveMember"
TICKET = "ClusterService/CreateJoinTicket"
REQUEST = "0b0a1ad5-9b1f-4c6d-9a0e-6f0f7f3f1c11"


async def test_a_ticket_is_for_one_node_and_a_quarter_of_an_hour(node: OneNode) -> None:
    """(P5) It has 128 bits; the log and the state hold only a verifier."""
    changes = node.membership
    ticket = await changes.create_join_ticket(
        node.admin(TICKET), node_id="n4", address="n4:7301"
    )
    assert len(ticket.secret) == 16
    assert ticket.node_id == "n4"
    assert ticket.cluster_id == node.ring.cluster_id
    assert ticket.ends_at_ms == node.clock.now + 15 * 60_000
    assert ticket.members == (
        ("n0", "n0:7301"),
        ("n1", "n1:7301"),
        ("n3", "n3:7301"),
    )
    assert last_event(node) == ("CreateJoinTicket", "n4", "applied")
    (stored,) = node.primary_db.execute(
        "SELECT certificate FROM join_tickets"
    ).fetchone()
    assert stored == door_of(ticket.secret, ticket.node_id).certificate
    for held in (*node.replicator.entries, node.primary_db.serialize()):
        assert ticket.secret not in held


@pytest.mark.parametrize("length", [57, 58, 63])
async def test_a_ticket_is_for_a_node_of_any_name(node: OneNode, length: int) -> None:
    """(P5) A node id has up to 63 characters, a certificate's common name up to 64."""
    wanted = NodeId("n" * length)
    ticket = await node.membership.create_join_ticket(
        node.admin(TICKET), node_id=wanted, address="n4:7301"
    )
    door = x509.load_der_x509_certificate(door_of(ticket.secret, wanted).certificate)
    (common,) = door.subject
    assert str(common.value).startswith("joiner nnn")
    names = door.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uri.endswith(f"/{wanted}")


async def test_a_retry_gets_the_same_ticket_and_a_new_request_another(
    node: OneNode,
) -> None:
    """(Q1) A lost answer costs nothing. A node never has two valid tickets."""
    changes = node.membership
    first = await changes.create_join_ticket(
        node.admin(TICKET, REQUEST), node_id="n4", address="n4:7301"
    )
    again = await changes.create_join_ticket(
        node.admin(TICKET, REQUEST), node_id="n4", address="n4:7301"
    )
    other = await changes.create_join_ticket(
        node.admin(TICKET), node_id="n4", address="n4:7301"
    )
    assert again == first
    assert other.secret != first.secret
    (known,) = node.primary_db.execute("SELECT count(*) FROM join_tickets").fetchone()
    assert known == 1


async def test_a_ticket_survives_its_text_form(node: OneNode) -> None:
    changes = node.membership
    ticket = await changes.create_join_ticket(
        node.admin(TICKET), node_id="n4", address="n4:7301"
    )
    text = to_text(ticket)
    assert from_text(f"  {text[:70]}\n{text[70:]}\n") == ticket
    for spoiled, says in (
        ("hello", "not a join ticket"),
        (text[:40], "incomplete"),
        (text + "!", "incomplete"),
    ):
        with pytest.raises(NotATicketError, match=says) as refused:
            from_text(spoiled)
        assert text[20:40] not in str(refused.value)


async def test_no_ticket_for_a_member(node: OneNode) -> None:
    """Neither for a founder nor for a later member."""
    changes = node.membership
    add = node.admin("ClusterService/AddMember")
    await changes.add_member(add, node_id="n4", address="n4:7301")
    assert last_event(node) == ("AddMember", "n4", "applied")
    for member in ("n1", "n4"):
        with pytest.raises(Refused) as refused:
            await changes.create_join_ticket(
                node.admin(TICKET), node_id=member, address="n9:7301"
            )
        assert refused.value.rejected.reason is Reason.MEMBER_EXISTS
    with pytest.raises(Refused, match="address of n1"):
        await changes.add_member(
            node.admin("ClusterService/AddMember"), node_id="n5", address="n1:7301"
        )


@pytest.mark.parametrize(
    "address", ["", "n4", "n4:0", "n4:70000", "0.0.0.0:7301", "[::]:7301", "n 4:1"]
)
async def test_an_address_must_be_one_that_others_reach(
    node: OneNode, address: str
) -> None:
    with pytest.raises(InvalidFieldError, match="address"):
        await node.membership.add_member(
            node.admin("ClusterService/AddMember"), node_id="n4", address=address
        )


async def test_a_retry_of_adding_a_member_gets_the_first_answer(
    node: OneNode,
) -> None:
    """(Q1) Although it is a member by now. Another request fails."""
    changes, add = node.membership, "ClusterService/AddMember"
    first = await changes.add_member(
        node.admin(add, REQUEST), node_id="n4", address="N4.Example:07301"
    )
    node.replicator.joined = (Member(node_id=NodeId("n4"), address="n4.example:7301"),)
    again = await changes.add_member(
        node.admin(add, REQUEST), node_id="n4", address="N4.Example:07301"
    )
    assert again == first
    with pytest.raises(Refused, match="n4 is already a member"):
        await changes.add_member(
            node.admin(add), node_id="n4", address="n4.example:7301"
        )


async def test_a_removal_is_recorded_and_done(node: OneNode) -> None:
    """(U1) And its id is not used again."""
    changes = node.membership
    await changes.remove_member(node.admin(REMOVE), node_id="n3")
    assert last_event(node) == ("RemoveMember", "n3", "applied")
    assert node.replicator.changes == [("remove_member", "n3")]
    with pytest.raises(Refused) as refused:
        await changes.remove_member(node.admin(REMOVE), node_id="n7")
    assert refused.value.rejected.reason is Reason.MEMBER_UNKNOWN
    assert last_event(node) == ("RemoveMember", "n7", "refused")
    node.replicator.gone.add("n3")
    with pytest.raises(Refused) as refused:
        await changes.create_join_ticket(
            node.admin(TICKET), node_id="n3", address="n3:7301"
        )
    assert refused.value.rejected.reason is Reason.MEMBER_REMOVED


async def test_a_removal_names_what_is_due_though_this_node_is_behind(
    node: OneNode,
) -> None:
    """(P6a) The primary has recorded the keys; this node has not applied them yet."""
    node.replicator.lags = True
    keys = tuple(
        AuthorityKey(authority=kind, fingerprint="ab" * 32) for kind in AuthorityKind
    )
    noted = NoteAuthorityKeys(node_id=NodeId("n3"), keys=keys)
    call = UnstampedCall.of_node(NodeId("n3"), noted, RequestId(""))
    await node.replicator.propose(Proposal(call=call), timeout_s=1)
    removal = await node.membership.remove_member(node.admin(REMOVE), node_id="n3")
    assert sorted(removal.due_authorities) == sorted(AuthorityKind)


async def test_an_admitted_node_is_listed_and_can_be_removed(node: OneNode) -> None:
    """The engine need not undo what it has not done yet."""
    changes, listing = node.membership, node.admin("ClusterService/ListMembers")
    await changes.add_member(
        node.admin("ClusterService/AddMember"), node_id="n4", address="n4:7301"
    )
    listed = await node.cluster.members(listing, stale_ok=False)
    assert [(each.node_id, each.standing) for each in listed] == [
        ("n0", MemberStanding.VOTER),
        ("n1", MemberStanding.VOTER),
        ("n3", MemberStanding.VOTER),
        ("n4", MemberStanding.ADMITTED),
    ]
    await changes.remove_member(node.admin(REMOVE), node_id="n4")
    assert len(await node.cluster.members(listing, stale_ok=False)) == 3
    assert node.replicator.changes == []


async def test_without_a_quorum_the_members_are_those_that_the_node_knows(
    node: OneNode,
) -> None:
    """A node that was removed without applying the removal does not know either."""
    listing = node.admin("ClusterService/ListMembers")
    node.replicator.down = NoQuorumError("alone")
    with pytest.raises(NoQuorumError):
        await node.cluster.members(listing, stale_ok=False)
    assert len(await node.cluster.members(listing, stale_ok=True)) == 3


async def test_a_new_primary_is_given_time_to_hear_of_the_others(
    node: OneNode,
) -> None:
    """The old primary has just handed over. After the wait, the refusal says why."""
    node.replicator.not_ready = 2
    await node.membership.remove_member(node.admin(REMOVE), node_id="n3")
    assert node.replicator.changes == [("remove_member", "n3")]
    node.replicator.not_ready = 10**6
    context = replace(node.admin(REMOVE), deadline_s=0.3)
    with pytest.raises(Refused) as refused:
        await node.membership.remove_member(context, node_id="n0")
    assert refused.value.rejected.reason is Reason.MEMBER_NOT_READY


async def test_the_only_member_stays(node: OneNode) -> None:
    node.replicator.gone |= {"n0", "n3"}
    with pytest.raises(Refused, match="only member"):
        await node.membership.remove_member(node.admin(REMOVE), node_id="n1")


async def test_watching_ends_before_the_deadline(node: OneNode) -> None:
    """The caller then calls again, and its session is checked again (P2)."""
    context = replace(node.admin("ClusterService/WatchStatus"), deadline_s=2.5)
    seen = [each async for each in node.cluster.watch(context, every_ms=60_000)]
    assert [status.node_id for status in seen] == ["n1"]
    with pytest.raises(InvalidFieldError, match="interval"):
        await anext(node.cluster.watch(context, every_ms=10))
    with pytest.raises(NotSignedInError):
        await anext(
            node.cluster.watch(replace(context, caller=Anonymous()), every_ms=0)
        )
