# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints: signed statements of the audit log's length and head (U2).

The signing key is derived from the active key of the ring, so every member signs with
the same key and no other key is distributed. Verifiers need the public key: keep it
with the CA's certificate.
"""

import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sparecode_node.domain.ids import KeyId
from sparecode_node.queries.audit import AuditHead
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing

FIRST_LINE = b"sparecode audit checkpoint 1\n"
"""Nothing else that the key may sign begins with this line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The length and head of the audit log at a moment, signed."""

    cluster_id: str
    sequence: int
    head: bytes
    at_ms: int
    key_id: KeyId
    public_key: bytes
    signature: bytes


def sign(sealing: Sealing, head: AuditHead, *, at_ms: int) -> Checkpoint:
    """Sign the head of the audit log with the active key."""
    key_id, key = sealing.checkpoint_key()
    message = signed_bytes(
        cluster_id=sealing.cluster_id, head=head, at_ms=at_ms, key_id=key_id
    )
    return Checkpoint(
        cluster_id=sealing.cluster_id,
        sequence=head.sequence,
        head=head.hash,
        at_ms=at_ms,
        key_id=key_id,
        public_key=key.public_key().public_bytes_raw(),
        signature=key.sign(message),
    )


def is_signed(sealing: Sealing, checkpoint: Checkpoint) -> bool:
    """
    Return whether a key that the ring holds, or held, has signed a checkpoint.

    It may name another cluster: the one from whose backup this one began.
    """
    public_key = sealing.checkpoint_public_key(checkpoint.key_id)
    if public_key is None or public_key != checkpoint.public_key:
        return False
    message = signed_bytes(
        cluster_id=checkpoint.cluster_id,
        head=AuditHead(sequence=checkpoint.sequence, hash=checkpoint.head),
        at_ms=checkpoint.at_ms,
        key_id=checkpoint.key_id,
    )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            checkpoint.signature, message
        )
    except InvalidSignature:
        return False
    return True


def signed_bytes(
    *, cluster_id: str, head: AuditHead, at_ms: int, key_id: KeyId
) -> bytes:
    """Return the signed bytes; the contract documents them at `Checkpoint`."""
    content = {
        "at_ms": at_ms,
        "cluster_id": cluster_id,
        "head": head.hash.hex(),
        "key_id": key_id,
        "sequence": head.sequence,
    }
    return FIRST_LINE + json.dumps(
        content, ensure_ascii=True, sort_keys=True, separators=(",", ":")
    ).encode("ascii")


def public_keys(ring: KeyRing) -> str:
    """
    Return the public key of every key that the ring holds or held, in PEM.

    For verifiers: a checkpoint outlives the key that signed it.
    """
    known = {
        key_id: Ed25519PublicKey.from_public_bytes(public)
        for key_id, public in ring.retired.items()
    }
    known |= {
        key_id: ring.checkpoint_key(key_id).public_key() for key_id in ring.key_ids
    }
    return "".join(
        known[key_id]
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii")
        for key_id in sorted(known)
    )
