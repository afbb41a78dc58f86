# SPDX-License-Identifier: Apache-2.0
"""
Commands on the cluster itself; as the others of `commands`, on disk for ever.

They say that somebody with the right to has ordered it, and leave it in the audit
log. What is ordered, replication does.
"""

from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId


class MembershipCommand:
    """A change of which nodes are members, or may become one, or of who leads them."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPrimary(MembershipCommand):
    """Have another member lead."""

    target: str | None
    """Absent: whoever has most of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseFeatureLevel:
    """All members know this level: what is of it may be done from now on."""

    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJoinTicket(MembershipCommand):
    """Let one node be admitted, once and soon (P5)."""

    node_id: NodeId
    certificate: bytes
    """What the joiner shows in the handshake, DER: what stands here opens nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitNode(MembershipCommand):
    """Admit a node, and use its ticket up."""

    ticket_id: str
    """SHA-256 of the ticket's certificate, in hexadecimal digits."""
    address: str
    """HOST:PORT of the node's peers listener."""
    key_fingerprint: str
    """SHA-256 of the node's public key: the same key may ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddMember(MembershipCommand):
    """Add a node whose key ring and certificate came by another way."""

    node_id: NodeId
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember(MembershipCommand):
    """Have a member leave for good, or a node that was admitted and is none yet."""

    node_id: NodeId
    member: bool
    """The called node knows it as a member; the state knows those that came later."""


ClusterCommand = (
    TransferPrimary
    | RaiseFeatureLevel
    | CreateJoinTicket
    | AdmitNode
    | AddMember
    | RemoveMember
)
