# SPDX-License-Identifier: Apache-2.0
"""
Handlers of membership: tickets, admitted nodes, removed members.

They only decide which nodes shall be members. The primary then brings the engine in
line, one change at a time (`services/cluster/membership_sync.py`). So a primary that
fails in between leaves nothing half done.
"""

import hashlib
from dataclasses import replace

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import (
    TICKET_KNOWN_MS,
    TICKET_MS,
    TICKETS_MAX,
    KnownNode,
    MemberKey,
    Ticket,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.membership import (
    AddMember,
    AdmitNode,
    CreateJoinTicket,
    NoteMemberKey,
    RemoveMember,
    RenewCertificate,
)
from sparecode_node.statemachine.feature_level import (
    DUE_AUTHORITIES,
    DURABLE_ROTATIONS,
    MEMBER_KEYS,
    MEMBERS_ARE_POWER,
)
from sparecode_node.statemachine.handlers import authorities, segments
from sparecode_node.statemachine.results import JoinTicketCreated, Result
from sparecode_node.statemachine.tables import archives, meta
from sparecode_node.statemachine.tables import authorities as authority_tables
from sparecode_node.statemachine.tables import membership as tables
from sparecode_node.statemachine.tables import segments as segment_tables
from sparecode_node.statemachine.tables.keys import ROTATION_DUE


def ticket_id_of(certificate: bytes) -> str:
    """Return the id of the ticket with this certificate (DER)."""
    return hashlib.sha256(certificate).hexdigest()


def create_join_ticket(applying: Applying, command: CreateJoinTicket) -> Result:
    """Apply `CreateJoinTicket`."""
    if refused := _not_new(applying, command.node_id):
        return refused
    if tables.count_tickets(applying.db, excluding=command.node_id) >= TICKETS_MAX:
        return Rejected(
            Reason.TICKETS_FULL,
            f"{TICKETS_MAX} tickets were created within the last 75 minutes: try again "
            "later",
        )
    if command.address is not None:
        if refused := _not_elsewhere(applying, command.address):
            return refused
        applying.detail = terms_of(command)
    good_until_ms = applying.now_ms + TICKET_MS
    tables.save_ticket(
        applying.db,
        Ticket(
            node_id=command.node_id,
            ticket_id=ticket_id_of(command.certificate),
            certificate=command.certificate,
            good_until_ms=good_until_ms,
            ends_at_ms=good_until_ms + TICKET_KNOWN_MS,
            address=command.address,
            hosts=command.hosts,
            with_authority=command.with_authority,
        ),
    )
    return JoinTicketCreated(index=applying.index, ends_at_ms=good_until_ms)


def terms_of(command: CreateJoinTicket) -> str:
    """Return in words what a ticket allows: an approver reads this."""
    words = f"joins at {command.address}"
    if command.hosts:
        words += f", certificate also for {', '.join(command.hosts)}"
    if command.with_authority:
        words += ", gets the keys of the authorities"
    return words


def admit_node(applying: Applying, command: AdmitNode) -> Rejected | None:
    """Use up a ticket and record the admitted node, in one commit (P5)."""
    ticket = tables.find_ticket(applying.db, command.ticket_id)
    if ticket is None:
        return Rejected(
            Reason.TICKET_UNKNOWN,
            "this cluster does not know this ticket",
        )
    applying.actor = f"joiner:{ticket.node_id}"
    if ticket.used_by is not None and ticket.used_by != command.key_fingerprint:
        return Rejected(
            Reason.TICKET_USED,
            f"the ticket of {ticket.node_id} was already used; a ticket works once",
        )
    if applying.now_ms >= ticket.good_until_ms:
        return Rejected(
            Reason.TICKET_ENDED,
            f"the ticket of {ticket.node_id} has expired; it was valid for 15 minutes",
        )
    if ticket.address is None and applying.feature_level >= MEMBERS_ARE_POWER:
        return Rejected(
            Reason.TICKET_ENDED,
            f"the ticket of {ticket.node_id} is of release 0.1.0 and names no address: "
            "create a new one",
        )
    if ticket.address is not None and ticket.address != command.address:
        return Rejected(
            Reason.TICKET_ADDRESS,
            f"the ticket lets {ticket.node_id} join at {ticket.address}, not at "
            f"{command.address}",
        )
    if ticket.used_by is not None:
        known = tables.find_node(applying.db, ticket.node_id)
        if known is not None and not known.removed and known.address == command.address:
            return None  # The admitted node retries.
    hosts = None if ticket.address is None else ticket.certificate_hosts()
    if refused := _add(applying, ticket.node_id, command.address, hosts):
        return refused
    tables.save_ticket(applying.db, replace(ticket, used_by=command.key_fingerprint))
    _record_key(applying, ticket.node_id, command.key_fingerprint)
    if ticket.with_authority:
        applying.detail += ", gets the keys of the authorities"
        authorities.record_keys(applying, ticket.node_id, command.authorities)
    return None


def add_member(applying: Applying, command: AddMember) -> Rejected | None:
    """Apply `AddMember`."""
    return _add(applying, command.node_id, command.address)


def _add(
    applying: Applying,
    node_id: NodeId,
    address: str,
    hosts: tuple[str, ...] | None = None,
) -> Rejected | None:
    """Record that a node shall be a member."""
    if refused := _not_new(applying, node_id) or _not_elsewhere(applying, address):
        return refused
    applying.detail = address
    _save(applying, node_id, address, removed=False, hosts=hosts)
    return None


def remove_member(applying: Applying, command: RemoveMember) -> Rejected | None:
    """
    Record that a node shall not be a member, now or later.

    Its key stays recorded (P5a): the engine removes the member later, or not at all yet,
    and until then no other machine may speak in its name.
    """
    known = tables.find_node(applying.db, command.node_id)
    # A new epoch knows no earlier node, but one that has had keys can be reported (P6a).
    had_keys = authority_tables.count_keys(applying.db, command.node_id) > 0
    if known is None and not command.member and not had_keys:
        return Rejected(Reason.MEMBER_UNKNOWN, f"{command.node_id} is not a member")
    if refused := segments.last_holder(applying, command):
        return refused
    segment_tables.forget_holder(applying.db, command.node_id)
    archives.forget(applying.db, command.node_id)
    address = known.address if known else ""
    suspect = applying.feature_level >= DUE_AUTHORITIES and (
        command.rotate_keys or (known is not None and known.suspect)
    )
    _save(applying, command.node_id, address, removed=True, suspect=suspect)
    if applying.feature_level >= DURABLE_ROTATIONS and (
        command.rotate_keys or applying.policy.rotate_after_removal
    ):
        meta.write(applying.db, ROTATION_DUE, command.node_id)
        applying.detail = "the ring's key is to be replaced"
    due = authorities.mark_due(applying, command.node_id, requested=command.rotate_keys)
    if due:
        words = f"these authorities are to be replaced: {authorities.in_words(due)}"
        applying.detail = "; ".join(filter(None, (applying.detail, words)))
    return None


def renew_certificate(applying: Applying, command: RenewCertificate) -> Rejected | None:
    """Apply `RenewCertificate`: only the audit log changes."""
    applying.actor = f"node:{command.node_id}"
    known = tables.find_node(applying.db, command.node_id)
    if known is not None and known.removed:
        return Rejected(
            Reason.MEMBER_REMOVED, f"{command.node_id} was removed from the cluster"
        )
    applying.detail = f"key {command.key_fingerprint}"
    recorded = tables.member_keys(applying.db).get(command.node_id)
    if recorded is not None and not recorded.accepts(command.key_fingerprint):
        return Rejected(
            Reason.JOINER_CERTIFICATE,
            f"the certificate of {command.node_id} is renewed for the key that the "
            "cluster has recorded, and not for another one",
        )
    return None


def note_member_key(applying: Applying, command: NoteMemberKey) -> Rejected | None:
    """
    Apply `NoteMemberKey`.

    The previous key stays valid until the member tells the new one a second time: then
    it shows that one to all.
    """
    if command.node_id != applying.call.node_id:
        return Rejected(
            Reason.STALE_PARAMETERS, "a member speaks for itself, not for another"
        )
    known = tables.find_node(applying.db, command.node_id)
    if known is not None and known.removed:
        return Rejected(
            Reason.MEMBER_REMOVED, f"{command.node_id} was removed from the cluster"
        )
    recorded = tables.member_keys(applying.db).get(command.node_id)
    former = ""
    if recorded is not None and recorded.fingerprint != command.fingerprint:
        former = recorded.fingerprint
    _record_key(applying, command.node_id, command.fingerprint, former)
    applying.detail = f"key {command.fingerprint}"
    if former:
        applying.detail += f" in place of {former}"
    return None


def _record_key(
    applying: Applying, node_id: NodeId, fingerprint: str, former: str = ""
) -> None:
    if applying.feature_level >= MEMBER_KEYS:
        key = MemberKey(fingerprint=fingerprint, former=former)
        tables.save_member_key(applying.db, node_id, key, applying.now_ms)


def _save(
    applying: Applying,
    node_id: NodeId,
    address: str,
    *,
    removed: bool,
    hosts: tuple[str, ...] | None = None,
    suspect: bool = False,
) -> None:
    tables.save_node(
        applying.db,
        KnownNode(
            node_id=node_id,
            address=address,
            removed=removed,
            changed_at_ms=applying.now_ms,
            hosts=hosts,
            suspect=suspect,
        ),
    )


def _not_elsewhere(applying: Applying, address: str) -> Rejected | None:
    """Refuse the address of another node."""
    other = tables.find_node_at(applying.db, address)
    if other is None:
        return None
    return Rejected(
        Reason.MEMBER_EXISTS, f"{address} is the address of {other.node_id}"
    )


def _not_new(applying: Applying, node_id: NodeId) -> Rejected | None:
    """Refuse a node id that was already used."""
    known = tables.find_node(applying.db, node_id)
    if known is None:
        return None
    if known.removed:
        return Rejected(
            Reason.MEMBER_REMOVED,
            f"{node_id} was removed from the cluster, and its id cannot be used again: "
            "give the machine another id",
        )
    return Rejected(Reason.MEMBER_EXISTS, f"{node_id} is already a member")
