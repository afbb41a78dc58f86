# SPDX-License-Identifier: Apache-2.0
"""
Commands on the cluster itself.

Commands on members only record what an administrator has ordered; replication carries
it out.
"""

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
class BeginEpoch:
    """
    Begin a new epoch from a state that may lack what was spent later (E1).

    It is the first log entry of a cluster that was restored from a backup or recovered
    from one survivor. `sparecode-node` writes it; it is never proposed.
    """

    cluster_id: str
    """The new cluster id: nodes of the old cluster cannot join the new one (E2)."""
    cause: str
    """`restore` or `recover`."""
    state_index: int
    """Index of the last entry in the restored state."""
    state_at_ms: int
    """The log's time at that entry; later changes may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCluster:
    """Serve agents again, after an operator has reviewed the restored state (E2)."""

    review: str
    """The mark of the review; if it differs, the state has changed since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseFeatureLevel:
    """Raise the feature level: all members know it, so its features may be used."""

    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPrimary:
    """Let another member become the primary."""

    target: str | None
    """None: the member whose log is most up to date."""


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


@dataclass(frozen=True, slots=True)
class PassBarrier:
    """Change nothing. A node that applied it has applied everything committed before."""
