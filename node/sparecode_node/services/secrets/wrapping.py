# SPDX-License-Identifier: Apache-2.0
"""
What a member keeps to itself, for the key of one joiner alone (P5).

HPKE (RFC 9180) to the public key in the joiner's certificate, bound to cluster and
node: it travels over a connection that the ticket has opened, and even so is
nothing to whoever has the ticket and not the key.
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
    """It was not wrapped for this key, cluster and node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSecrets:
    """What every member has: the texts of the files."""

    key_ring: str = field(repr=False)
    members_ca_key: str = field(default="", repr=False)
    """Empty: no member signs; certificates come from elsewhere."""
    agents_ca_key: str = field(default="", repr=False)


def can_wrap(key: object) -> bool:
    """Say whether there is a way to wrap for the public key."""
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _KEMS


def wrap(
    secrets: MemberSecrets,
    key: ec.EllipticCurvePublicKey,
    *,
    cluster_id: str,
    node_id: NodeId,
) -> bytes:
    """Return the secrets, for whoever has the private half of *key*."""
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
