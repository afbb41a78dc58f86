# SPDX-License-Identifier: Apache-2.0
"""
The members of a cluster: ids, addresses, roles, and the names of their journals.

A `Configuration` is an entry of the log (Raft thesis, 4.1): on each node, the newest
*appended* one counts, committed or not. It differs from the previous one by at most one
voter, so a quorum of either has a member of the other's quorum.
"""

import enum
import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from sparecode.internal.v1 import configuration_pb2
from sparecode_node.domain.ids import NodeId

MEMBER_URI = "sparecode://member/"
"""In a member's certificate, before its id."""


class MemberRole(enum.StrEnum):
    """Whether a member counts for quorums."""

    VOTER = "voter"
    """Counts for every quorum, and may lead."""
    LEARNER = "learner"
    """Receives the log, and counts for nothing: it is new, and catching up."""


_ROLES = {
    configuration_pb2.CONFIGURED_ROLE_VOTER: MemberRole.VOTER,
    configuration_pb2.CONFIGURED_ROLE_LEARNER: MemberRole.LEARNER,
}
_NUMBERS = {role: number for number, role in _ROLES.items()}


class ConfigurationError(ValueError):
    """Bytes that are not a configuration, or one of a newer version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member, as the configuration of the cluster describes it."""

    node_id: NodeId
    address: str
    """Where other members reach it: HOST:PORT."""
    role: MemberRole = MemberRole.VOTER
    journal_id: str = ""
    """
    Names its journal, and so the promises in it; empty until the primary knows it.
    """


@dataclass(frozen=True)  # Without slots, for the cached properties.
class Configuration:
    """The members from one entry of the log on."""

    members: tuple[Member, ...] = ()
    """In the order of their ids."""
    removed: tuple[NodeId, ...] = ()
    """The ids of former members: none of them is used again."""

    @classmethod
    def of(cls, members: Iterable[Member], removed: Iterable[NodeId] = ()) -> Self:
        """Return the configuration of these members."""
        in_order = sorted(members, key=lambda member: member.node_id)
        return cls(tuple(in_order), tuple(sorted(set(removed))))

    @functools.cached_property
    def voters(self) -> frozenset[NodeId]:
        """The ids of the voters."""
        return frozenset(m.node_id for m in self.members if m.role is MemberRole.VOTER)

    @functools.cached_property
    def ids(self) -> tuple[NodeId, ...]:
        """The ids of all members."""
        return tuple(member.node_id for member in self.members)

    def member(self, node_id: str) -> Member | None:
        """Return a member, or None if the id is not one."""
        return self._by_id.get(node_id)

    @functools.cached_property
    def _by_id(self) -> dict[str, Member]:
        return {member.node_id: member for member in self.members}

    def names_another_journal(self, node_id: str, journal_id: str) -> bool:
        """Return whether it has a journal for this member, and not this one."""
        member = self.member(node_id)
        return member is not None and member.journal_id not in ("", journal_id)

    @property
    def is_named(self) -> bool:
        """Whether it knows the journals of all voters."""
        return all(m.journal_id for m in self.members if m.role is MemberRole.VOTER)

    def with_member(self, member: Member) -> "Configuration":
        """Return a configuration with a member that is new or changed."""
        others = [m for m in self.members if m.node_id != member.node_id]
        return Configuration.of((*others, member), self.removed)

    def promoted(self, node_id: NodeId) -> "Configuration":
        """Return a configuration in which this learner is a voter."""
        return Configuration.of(
            (
                replace(m, role=MemberRole.VOTER) if m.node_id == node_id else m
                for m in self.members
            ),
            self.removed,
        )

    def naming(self, node_id: str, journal_id: str) -> "Configuration":
        """Return a configuration with the name of a member's journal."""
        member = self.member(node_id)
        if member is None:
            return self
        return self.with_member(replace(member, journal_id=journal_id))

    def completed(self, known: "Configuration") -> "Configuration":
        """Return it with the addresses and journals that only *known* has."""
        by_id = {member.node_id: member for member in known.members}
        return Configuration.of(
            (
                replace(
                    member,
                    address=member.address or by_id[member.node_id].address,
                    journal_id=member.journal_id or by_id[member.node_id].journal_id,
                )
                if member.node_id in by_id
                else member
                for member in self.members
            ),
            self.removed,
        )

    def without(self, node_id: NodeId) -> "Configuration":
        """Return a configuration without a member, whose id is never used again."""
        others = (m for m in self.members if m.node_id != node_id)
        return Configuration.of(others, (*self.removed, node_id))

    def to_message(self) -> configuration_pb2.Configuration:
        """Return the message that is written and sent."""
        message = configuration_pb2.Configuration(removed=self.removed)
        for member in self.members:
            message.members.add(
                node_id=member.node_id,
                address=member.address,
                role=_NUMBERS[member.role],
                journal_id=member.journal_id,
            )
        return message

    def to_bytes(self) -> bytes:
        """Return the encoded message: the same bytes for the same members."""
        return self.to_message().SerializeToString(deterministic=True)

    @classmethod
    def from_message(cls, message: configuration_pb2.Configuration) -> Self:
        """
        Return the configuration in a message. Raises `ConfigurationError`.

        Fields of a newer version are not skipped: nodes that count members differently
        are not members of one cluster.
        """
        members = [_read(member) for member in message.members]
        configuration = cls.of(
            members, [NodeId(node_id) for node_id in message.removed]
        )
        ids = set(configuration.ids)
        if (
            len(ids) != len(members)
            or ids & set(configuration.removed)
            or not configuration.voters
        ):
            raise ConfigurationError("not a configuration: duplicate ids, or no voter")
        if len(UnknownFieldSet(message)):
            raise ConfigurationError("a configuration of a newer version")
        return configuration

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the configuration in these bytes. Raises `ConfigurationError`."""
        try:
            message = configuration_pb2.Configuration.FromString(data)
        except DecodeError as error:
            raise ConfigurationError("not a configuration") from error
        return cls.from_message(message)


def _read(message: configuration_pb2.ConfiguredMember) -> Member:
    role = _ROLES.get(message.role)
    if role is None or not message.node_id or len(UnknownFieldSet(message)):
        raise ConfigurationError("not a member, or a member of a newer version")
    return Member(
        node_id=NodeId(message.node_id),
        address=message.address,
        role=role,
        journal_id=message.journal_id,
    )


def founders(
    node_id: NodeId, members: Iterable[Member], *, joins: bool
) -> Configuration:
    """
    Return the members that a new journal begins with, as the operator wrote them.

    A node that *joins* a cluster begins as a learner, whatever its own file says: it
    has promised nothing yet, and must not vote before the others count it.
    """
    configuration = Configuration.of(members)
    me = configuration.member(node_id)
    if joins and me is not None:
        configuration = configuration.with_member(replace(me, role=MemberRole.LEARNER))
    return configuration


@functools.lru_cache(maxsize=64)  # Every call shows one.
def key_in(certificate: bytes) -> str:
    """
    Return the fingerprint of the key in a certificate, PEM; the first one of a chain.

    Empty for a certificate that TLS accepts and the library does not.
    """
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return hashlib.sha256(
        key.public_bytes(
            serialization.Encoding.DER,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
    ).hexdigest()
