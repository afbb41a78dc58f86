# SPDX-License-Identifier: Apache-2.0
"""Commands on agents and their certificates."""

from dataclasses import dataclass, field

from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.ids import AgentIdentity, GroupKey, NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAgent:
    """Let the agent with this certificate identity authenticate users."""

    name: str
    name_key: NameKey
    """Folded by the called node, because replicas may have different Unicode tables."""
    identity: AgentIdentity
    protects: Protects
    restricted: bool = False
    """Whether it admits only the users on its allow list, which begins empty."""
    filter_id: str = ""
    class_attribute: str = ""
    session_timeout_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAgent:
    """Change an agent. Fields that are None keep their value."""

    name_key: NameKey
    protects: Protects | None
    enabled: bool | None
    restricted: bool | None
    add_users: tuple[NameKey, ...]
    """Users to add to its allow list."""
    remove_users: tuple[NameKey, ...]
    add_groups: tuple[GroupKey, ...] = ()
    """Groups to add to its allow list: it admits their members."""
    remove_groups: tuple[GroupKey, ...] = ()
    end_keys: bool | None = None
    """True: no bearer key of the agent works any longer, and none takes its place."""
    filter_id: str | None = None
    class_attribute: str | None = None
    session_timeout_s: int | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAgent:
    """Remove an agent. Its calls stay in the audit log."""

    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAgentKey:
    """Give an agent a bearer key; the previous one works for *overlap_ms* more."""

    name_key: NameKey
    bearer_id: str
    """
    Names the key.

    It follows from the request and the agent. So a request whose id is not remembered
    any more cannot replace the key that it drew.
    """
    digest: bytes = field(repr=False)
    """SHA-256 of the key."""
    networks: tuple[str, ...]
    """The addresses that it may be used from; empty: any."""
    overlap_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyCertificate:
    """Refuse agents that call with this certificate."""

    mark: CertificateMark
    value: str
    note: str
    """The reason, for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowCertificate:
    """Remove a certificate from the deny list."""

    mark: CertificateMark
    value: str
