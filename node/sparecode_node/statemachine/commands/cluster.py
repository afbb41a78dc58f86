# SPDX-License-Identifier: Apache-2.0
"""
Commands on the cluster itself.

Changes of members record that an administrator has ordered them; replication
carries them out.
"""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class InitializeCluster:
    """Begin the cluster's state: its id, its policy's defaults, its first administrator."""

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
    Begin anew from a state that may have forgotten what was spent since (E1).

    The first entry of the log of a cluster that was restored from a backup, or
    made of one survivor. `sparecode-node` writes it there, and nobody proposes it.
    """

    cluster_id: str
    """The new one: nodes of before do not meet those of after (E2)."""
    cause: str
    """`restore` or `recover`."""
    state_index: int
    """Of the last entry that the state has from before."""
    state_at_ms: int
    """The log's time at that entry; what came later may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCluster:
    """Serve agents again, after somebody has looked at what differs (E2)."""

    review: str
    """The mark of what was looked at; another one means that it has changed since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseFeatureLevel:
    """All members know this level: what is of it may be done from now on."""

    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPrimary:
    """Have another member lead."""

    target: str | None
    """Absent: whoever has most of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJoinTicket:
    """Let one node be admitted, once and soon (P5)."""

    node_id: NodeId
    certificate: bytes
    """What the joiner shows in the handshake, DER: what stands here opens nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitNode:
    """Admit a node, and use its ticket up."""

    ticket_id: str
    """SHA-256 of the ticket's certificate, in hexadecimal digits."""
    address: str
    """HOST:PORT of the node's peers listener."""
    key_fingerprint: str
    """SHA-256 of the node's public key: the same key may ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddMember:
    """Add a node whose key ring and certificate came by another way."""

    node_id: NodeId
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember:
    """Have a member leave for good, or a node that was admitted and is none yet."""

    node_id: NodeId
    member: bool
    """The called node knows it as a member; the state knows those that came later."""


@dataclass(frozen=True, slots=True)
class CreateBackup:
    """Have a node write a backup for the recipients that the policy names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteBackup:
    """Say that a node has handed a whole backup out, and of what."""

    index: int
    digest: str
    taken_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRefusedCalls:
    """Record calls that a node has refused before they became a command (U1)."""

    method: str
    reason: str
    actor: str
    """Who called, as far as they have shown it."""
    count: int
    """So many calls since the last note."""


@dataclass(frozen=True, slots=True)
class PassBarrier:
    """Change nothing; where it is applied, everything committed before is too."""
