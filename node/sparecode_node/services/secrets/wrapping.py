# SPDX-License-Identifier: Apache-2.0
"""
The secrets of a member, wrapped for the key of one joiner (P5).

HPKE (RFC 9180) to the public key in the joiner's certificate, bound to cluster and
node. The secrets travel over a connection that the ticket opens; even so, the ticket
without the joiner's key does not open them.
"""

import json
from dataclasses import asdict, dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode_node.domain.ids import NodeId

_KEMS: dict[str, hpke.KEM] = {
    "secp256r1": hpke.KEM.P256,
    "secp384r1": hpke.KEM.P384,
    "secp521r1": hpke.KEM.P521,
}


class CannotUnwrapError(Exception):
    """The secrets were not wrapped for this key, cluster and node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSecrets:
    """The secrets of every member, as the texts of their files."""

    key_ring: str = field(repr=False)
    members_ca_key: str = field(default="", repr=False)
    """Empty: the ticket does not hand it over, or no member has it."""
    agents_ca_key: str = field(default="", repr=False)


def can_wrap(key: object) -> bool:
    """Return whether secrets can be wrapped for this public key."""
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _KEMS


def wrap(
    secrets: MemberSecrets,
    key: ec.EllipticCurvePublicKey,
    *,
    cluster_id: str,
    node_id: NodeId,
) -> bytes:
    """Return the secrets, encrypted for the holder of the private half of *key*."""
    content = json.dumps(asdict(secrets)).encode()
    return _suite(key.curve).encrypt(content, key, _bound_to(cluster_id, node_id))


def unwrap(
    wrapped: bytes,
    key: ec.EllipticCurvePrivateKey,
    *,
    cluster_id: str,
    node_id: NodeId,
) -> MemberSecrets:
    """Return the secrets. Raises `CannotUnwrapError`."""
    try:
        content = _suite(key.curve).decrypt(
            wrapped, key, _bound_to(cluster_id, node_id)
        )
        return MemberSecrets(**json.loads(content))
    except (InvalidTag, ValueError, TypeError):
        raise CannotUnwrapError(
            f"the key ring was not wrapped for {node_id} of cluster {cluster_id}"
        ) from None


def _suite(curve: ec.EllipticCurve) -> hpke.Suite:
    return hpke.Suite(_KEMS[curve.name], hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _bound_to(cluster_id: str, node_id: NodeId) -> bytes:
    return f"sparecode/v1/join\0{cluster_id}\0{node_id}".encode()
