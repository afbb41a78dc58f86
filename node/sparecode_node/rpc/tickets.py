# SPDX-License-Identifier: Apache-2.0
"""A join ticket as text: a prefix that names the format, and base64."""

import base64
import binascii

from google.protobuf.message import DecodeError

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode_node.domain.ids import NodeId
from sparecode_node.services.secrets.tickets import JoinTicket

PREFIX = "sparecode-join-1:"
TICKET_CHARACTERS_MAX = 64 * 1024


class NotATicketError(ValueError):
    """The text is not a ticket. The message never quotes it."""


def to_text(ticket: JoinTicket) -> str:
    """Return the ticket as one line."""
    message = pb.JoinTicket(
        secret=ticket.secret,
        node_id=ticket.node_id,
        cluster_id=ticket.cluster_id,
        authorities=ticket.authorities,
        members=[
            pb.JoinMember(node_id=node_id, address=address)
            for node_id, address in ticket.members
        ],
        ends_at_ms=ticket.ends_at_ms,
        address=ticket.address,
        hosts=ticket.hosts,
    )
    data = message.SerializeToString(deterministic=True)
    return PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_text(text: str) -> JoinTicket:
    """Return the ticket in a text. Raises `NotATicketError`."""
    line = "".join(text.split())
    if not line.startswith(PREFIX):
        raise NotATicketError(
            f"not a join ticket: a ticket begins with {PREFIX} and is printed by "
            "`sparecode cluster ticket`"
        )
    content = line.removeprefix(PREFIX)
    try:
        data = base64.b64decode(
            content + "=" * (-len(content) % 4), altchars=b"-_", validate=True
        )
        message = pb.JoinTicket.FromString(data)
    except (binascii.Error, DecodeError, ValueError):
        message = pb.JoinTicket()
    if not (message.secret and message.node_id and message.authorities):
        raise NotATicketError("the join ticket is incomplete: copy all of it")
    return JoinTicket(
        secret=message.secret,
        node_id=NodeId(message.node_id),
        cluster_id=message.cluster_id,
        authorities=tuple(message.authorities),
        members=tuple((NodeId(each.node_id), each.address) for each in message.members),
        ends_at_ms=message.ends_at_ms,
        address=message.address,
        hosts=tuple(message.hosts),
    )
