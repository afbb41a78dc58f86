# SPDX-License-Identifier: Apache-2.0
"""Tickets, nodes that joined or left, and keys of the authorities (P5, P6a)."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from sparecode_node.domain.addresses import host_of
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.policy import MINUTE_MS

TICKET_MS = 15 * MINUTE_MS
"""How long a ticket is valid."""
TICKET_KNOWN_MS = 60 * MINUTE_MS
"""How long after that a refusal can still name the reason."""
TICKETS_MAX = 16
"""Maximum tickets at a time: a handshake with an unknown node checks each of them."""
REPORT_MAX = 512
"""Characters of a text that a member says of its archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Admits one node, once. Its secret is not stored here."""

    node_id: NodeId
    ticket_id: str
    certificate: bytes
    good_until_ms: int
    ends_at_ms: int
    """When the ticket is forgotten; until then a refusal can name the reason."""
    used_by: str | None = None
    """Fingerprint of the key that used the ticket; None: not used yet."""
    address: str | None = None
    """HOST:PORT at which the node joins; None: any, in a ticket of release 0.1.0."""
    hosts: tuple[str, ...] = ()
    """Further host names that the node's certificate may have."""
    with_authority: bool = False
    """Whether the node gets the authorities' keys."""

    def certificate_hosts(self) -> tuple[str, ...]:
        """Return the hosts for the node's certificate: its address, and further names."""
        return certificate_hosts(self.address or "", self.hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node that joined or left after the cluster was initialized."""

    node_id: NodeId
    address: str
    removed: bool
    changed_at_ms: int
    hosts: tuple[str, ...] | None = None
    """The hosts in its certificate; None: it joined without a ticket that names them."""
    suspect: bool = False
    """Whether its removal asked for other keys: it may be in the wrong hands (P6a)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberKey:
    """
    The public key that a member shows, as the state has recorded it (P5a).

    A certificate names a member, and who has an authority's key can make one for any
    member. The key belongs to the member alone.
    """

    fingerprint: str
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hexadecimal digits."""
    former: str = ""
    """
    The previous one, until the member has told that it shows the new one; else empty.
    """

    def accepts(self, fingerprint: str) -> bool:
        """Return whether the member may show a key with this fingerprint."""
        return fingerprint in {self.fingerprint, self.former} - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReport:
    """What a member says of its own archive of the audit log (U2)."""

    place: str
    """The folder."""
    problem: str = ""
    """Why it can write or read a segment there no longer; empty: it can."""

    @classmethod
    def of(cls, place: str, problem: str) -> "ArchiveReport":
        """Return a report of bounded size, in text that can be sent."""
        return cls(place=_bounded(place), problem=_bounded(problem))


def _bounded(words: str) -> str:
    return words[:REPORT_MAX].encode(errors="replace").decode()


class AuthorityKind(enum.StrEnum):
    """Whose certificates an authority signs. The values are in the log."""

    MEMBERS = "members"
    AGENTS = "agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityKey:
    """
    Names the key of an authority; it is not the key.

    A new certificate for the same key is the same authority.
    """

    authority: AuthorityKind
    fingerprint: str
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER), in hexadecimal digits."""

    def __str__(self) -> str:
        return f"{self.authority} {self.fingerprint[:SHORT_DIGITS]}"


SUCCESSOR_BYTES_MAX = 4096
"""Of the certificate of a successor, and of its proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """
    An authority that replaces one whose key a removed member has had (P6a).

    The state records what a member announces and cannot judge it. Each node checks the
    proof before it trusts the successor.
    """

    authority: AuthorityKind
    replaces: str
    """Fingerprint of the authority that it replaces, see `AuthorityKey`."""
    node_id: NodeId
    """The member that has made it, and has its key."""
    fingerprint: str
    certificate: bytes
    """DER."""
    proof: bytes
    """Signature by the key of the replaced authority."""
    since_ms: int = 0
    sole: bool = False
    """Whether the replaced authority is trusted no longer: its replacement is finished."""

    @property
    def name(self) -> str:
        """Kind, fingerprint and maker: others may announce the same key without proof."""
        return f"{self.authority} {self.fingerprint} {self.node_id}"

    @property
    def key(self) -> AuthorityKey:
        """The name of its key."""
        return AuthorityKey(authority=self.authority, fingerprint=self.fingerprint)

    @property
    def replaced(self) -> AuthorityKey:
        """The name of the key that it replaces."""
        return AuthorityKey(authority=self.authority, fingerprint=self.replaces)


def fingerprints(keys: Iterable[AuthorityKey], kind: AuthorityKind) -> tuple[str, ...]:
    """Return the fingerprints of the authorities of one kind."""
    return tuple(key.fingerprint for key in keys if key.authority is kind)


KEYS_MAX = 16
"""
Keys of authorities that one member may record.

A member has two. Those of replaced authorities are forgotten when no member trusts them.
If the table is full, it takes no more: new rows must not push out true ones.
"""

SHORT_DIGITS = 16
"""Digits of a fingerprint in words that people read."""


class DueCause(enum.StrEnum):
    """Why authorities are to be replaced. The values are in the state."""

    POLICY = "policy"
    """A member with their keys was removed, and the policy requires it."""
    REQUEST = "request"
    """The removal asked for it: the machine may be in the wrong hands."""


def certificate_hosts(address: str, hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the hosts for the certificate of a node at *address*."""
    return host_of(address).strip("[]"), *hosts
