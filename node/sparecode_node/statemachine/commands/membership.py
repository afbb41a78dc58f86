# SPDX-License-Identifier: Apache-2.0
"""
Commands on the members of the cluster.

They only record what an administrator has ordered; replication carries it out.
"""

from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJoinTicket:
    """Create a ticket that admits one node, once, for a short time (P5)."""

    node_id: NodeId
    certificate: bytes
    """The certificate (DER) that the joiner shows in the handshake; not a secret."""
    address: str | None = None
    """HOST:PORT at which the node joins. Absent in tickets of release 0.1.0: any."""
    hosts: tuple[str, ...] = ()
    """Further host names that the node's certificate may have."""
    with_authority: bool = False
    """Whether the node gets the authorities' keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitNode:
    """Admit a node, and use up its ticket."""

    ticket_id: str
    """SHA-256 of the ticket's certificate, in hexadecimal digits."""
    address: str
    """HOST:PORT of the node's peers listener."""
    key_fingerprint: str
    """SHA-256 of the node's public key: the same key may retry."""
    authorities: tuple[AuthorityKey, ...] = ()
    """The keys of authorities that it gets. Empty: none, or below feature level 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewCertificate:
    """Record that a member gets a new certificate, before it is signed (P5)."""

    node_id: NodeId
    key_fingerprint: str
    """SHA-256 of the key in the certificate, in hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteMemberKey:
    """Record the public key that a member shows, as the member tells (P5a)."""

    node_id: NodeId
    fingerprint: str
    """SHA-256 of the key in its certificate, in hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAuthorityKeys:
    """Record the authorities whose keys a member has, as the member tells (P6a)."""

    node_id: NodeId
    keys: tuple[AuthorityKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireAuthority:
    """Record that no member trusts an authority any more: it is replaced (P6a)."""

    authority: AuthorityKind
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAuthorities:
    """Keep the authorities whose keys a removed member has had, for a reason (P6a)."""

    node_id: NodeId
    """The removed member."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceAuthorities:
    """Start to replace the authorities whose keys a removed member has had (P6a)."""

    node_id: NodeId
    """The removed member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceAuthority:
    """Announce the successor of an authority that is due, as its maker tells (P6a)."""

    node_id: NodeId
    """The member that has made the successor."""
    authority: AuthorityKind
    replaces: str
    """Fingerprint of the authority that is due."""
    fingerprint: str
    certificate: bytes
    """DER."""
    proof: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishAuthorities:
    """Trust authorities no longer whose successors are in use (P6a)."""

    node_id: NodeId
    """The removed member that has had their keys."""
    successors: tuple[str, ...]
    """Names of those that every member uses, as the called node has seen."""
    nodes: tuple[NodeId, ...] = ()
    """The admitted nodes at that time: another one was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddMember:
    """Add a node that already has the key ring and a certificate."""

    node_id: NodeId
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember:
    """Remove a member for good, or an admitted node that is not a member yet."""

    node_id: NodeId
    member: bool
    """Whether the called node knows it as a member; the state knows only later ones."""
    rotate_keys: bool = False
    """Replace the ring's key, and the authorities whose keys it has had (P6, P6a)."""
    staying: tuple[NodeId, ...] = ()
    """The voters that stay, and have answered the called node."""
    copies: int = 0
    """
    How many of them must hold each of its audit segments (U1).

    0: it does not answer, so its own copy is not counted on; one member must hold each.
    """
