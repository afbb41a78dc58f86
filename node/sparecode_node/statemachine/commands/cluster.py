# SPDX-License-Identifier: Apache-2.0
"""Commands on the cluster itself."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class InitializeCluster:
    """Begin the cluster's state: id, default policy, first administrator."""

    cluster_id: str
    administrator: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    feature_level: int | None = None
    """Of the node that begins it; absent: the first (see feature_level.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseFeatureLevel:
    """Raise the feature level: all members know it, so its features may be used."""

    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPrimary:
    """Let another member become the primary."""

    target: str | None
    """None: the member whose log is most up to date."""


@dataclass(frozen=True, slots=True)
class CreateBackup:
    """Let a node write a backup for the recipients named in the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteBackup:
    """Record that a node has delivered a complete backup, and its contents."""

    index: int
    digest: str
    taken_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRefusedCalls:
    """Record calls that a node refused before they became a command (U1)."""

    method: str
    reason: str
    actor: str
    """The caller, as far as it has identified itself."""
    count: int
    """Number of calls since the last record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSkipStatement:
    """Record why the operator of a member agreed to skip an entry (E3)."""

    index: int
    digest: str
    """SHA-256 of the entry, in hex."""
    member: NodeId
    """The member whose key signed the statement."""
    operator: str
    reason: str
    signed_at_ms: int
    statement: str
    """The whole statement, with its certificate and signature."""


@dataclass(frozen=True, slots=True)
class PassBarrier:
    """Change nothing. A node that applied it has applied everything committed before."""
