# SPDX-License-Identifier: Apache-2.0
"""Commands on agents and on the certificates that they call with."""

from dataclasses import dataclass

from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.ids import AgentIdentity, GroupKey, NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAgent:
    """Let the agent of this certificate identity authenticate users."""

    name: str
    name_key: NameKey
    """Folded by the called node: replicas may know different Unicode tables."""
    identity: AgentIdentity
    protects: Protects
    restricted: bool = False
    """It admits only the users on its allow list, where nobody is yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAgent:
    """Change what is given of an agent; what is absent stays."""

    name_key: NameKey
    protects: Protects | None
    enabled: bool | None
    restricted: bool | None
    add_users: tuple[NameKey, ...]
    """Onto its allow list."""
    remove_users: tuple[NameKey, ...]
    add_groups: tuple[GroupKey, ...] = ()
    """Onto its allow list: whoever is in one is admitted."""
    remove_groups: tuple[GroupKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAgent:
    """Remove an agent; what it has asked stays in the audit log."""

    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyCertificate:
    """Refuse every agent that calls with this certificate."""

    mark: CertificateMark
    value: str
    note: str
    """Why, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowCertificate:
    """Take a certificate from the deny list."""

    mark: CertificateMark
    value: str
